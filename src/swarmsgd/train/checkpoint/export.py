"""One model of all nodes' checkpoints."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.train.checkpoint.choice import whole_run
from swarmsgd.train.checkpoint.folder import Folder
from swarmsgd.train.checkpoint.load import check_alike, opened
from swarmsgd.train.checkpoint.mean import mean_model
from swarmsgd.train.checkpoint.save import tensors_of
from swarmsgd.train.node.recalibrate import Batches, estimate


class Exported(NamedTuple):
    """A mean model, and of what."""

    state: dict[str, torch.Tensor]
    nodes: int
    steps: str
    """Of all nodes, or from the fewest to the most."""


def export(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    loader: Batches | None = None,
    *,
    step: int | None = None,
) -> dict[str, torch.Tensor]:
    """The state dict of the mean of all nodes' models, from the checkpoints in `path`.

    Floating-point buffers are node 0's, or averages if the nodes joined with ``buffers="average"``;
    batch norm's among them, unless `model` and a `loader` of training batches are given: then the
    mean is loaded into the model, and they are estimated anew there, as by
    `Swarm.mean_model(recalibrate=loader)`. Raises DataError unless all nodes' checkpoints are
    there, ConfigError for another model or a loader that gives no batch.
    """
    if (model is None) != (loader is None):
        raise ConfigError(
            "export() was given one of model and loader: batch norm is estimated anew with both"
        )
    exported = mean_of_run(path, step)
    if model is None or loader is None:
        return exported.state
    check_alike(str(path), exported.state, model)
    model.load_state_dict(exported.state, strict=False)  # without what is no tensor
    estimate(model, loader)
    return {name: value.clone() for name, value in tensors_of(model.state_dict()).items()}


def mean_of_run(path: str | os.PathLike[str], step: int | None = None) -> Exported:
    """The mean of the latest checkpoints of all nodes, or of those at `step`."""
    folder = Folder(path)
    entries = whole_run(folder, step)
    with ExitStack() as stack:
        checkpoints = [opened(stack, folder, entry) for entry in entries]
        state = {n: v.clone() for n, v in tensors_of(mean_model(checkpoints)).items()}
    steps = [entry.steps for entry in entries]
    low, high = min(steps), max(steps)
    return Exported(state, len(entries), f"{low}" if low == high else f"{low} to {high}")
