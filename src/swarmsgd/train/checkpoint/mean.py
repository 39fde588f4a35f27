"""One model of all nodes' checkpoints: their mean, read tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from swarmsgd.errors import DataError
from swarmsgd.train.checkpoint.container import Checkpoint
from swarmsgd.train.checkpoint.tree import unpack

Read = Callable[[str], torch.Tensor]


def mean_model(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """The state dict of the mean of these nodes' models. What is not averaged is the first one's:
    integers, floating-point buffers unless the nodes joined with ``buffers="average"``, and then
    still those of a parametrization or of other shapes.
    """
    first = checkpoints[0]
    apart = {f"model/{name}" for name in first.about["not_averaged"]}
    mean = averaged(checkpoints)
    read: Read = lambda name: first.tensor(name) if name in apart else mean(name)  # noqa: E731
    return unpack(first.about["tree"]["model"], read)


def mean_optimizers(source: Checkpoint, checkpoints: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """The state dicts of `source`'s optimizers; state that is exchanged with the model is, like
    that, the mean of all.
    """
    states = source.about["exchanged"]
    mean = averaged([source, *(c for c in checkpoints if c is not source)])

    def read(name: str) -> torch.Tensor:
        exchanged = re.match(r"optimizers/\d+/state/", name) and name.rpartition("/")[2] in states
        return mean(name) if exchanged else source.tensor(name)

    return unpack(source.about["tree"]["optimizers"], read)


def averaged(checkpoints: Sequence[Checkpoint]) -> Read:
    """Reads a tensor's mean over these, computed in float64; the first one's where that is not
    floating, or not all have it in this shape.
    """

    def read(name: str) -> torch.Tensor:
        first = checkpoints[0].tensor(name)
        if not first.is_floating_point():
            return first
        total = first.to(torch.float64, copy=True)
        for other in checkpoints[1:]:
            try:
                value = other.tensor(name)
            except DataError:
                if name in other:
                    raise
                return first
            if value.shape != first.shape:
                return first
            total += value
        return (total / len(checkpoints)).to(first.dtype)

    return read
