"""`swarm.save()`: what is in a node's checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from swarmsgd.errors import ConfigError, SwarmError
from swarmsgd.optim import ScheduleFreeAdamW
from swarmsgd.settings.swarm import SwarmSettings
from swarmsgd.train.checkpoint.container import Parcel
from swarmsgd.train.checkpoint.folder import Entry, Folder
from swarmsgd.train.checkpoint.random_states import random_states
from swarmsgd.train.checkpoint.resumed import Resumed
from swarmsgd.train.checkpoint.tree import Tensors, pack
from swarmsgd.train.node.result import float_buffers

_WRITTEN: dict[tuple[str, int], int] = {}
"""Where this process has saved as which node, and in which era: there it may save on after it has
left a swarm and joined again.
"""


class Stateful(Protocol):
    """A scheduler, sampler, GradScaler, ...: what else a training loop has to go on with."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One node, between two steps, with nothing pending or waited for."""

    model: nn.Module
    optimizers: Sequence[Optimizer]
    config: SwarmSettings
    rank: int
    num_nodes: int
    steps: int
    swarm: Mapping[str, Any]
    """As of `PlaceInSwarm.state`."""


def save(
    path: str | os.PathLike[str],
    node: Standing,
    resumed: Resumed | None,
    parts: Mapping[str, Stateful | None],
) -> Resumed:
    """Write the node's checkpoint; what its next one replaces. `resumed` is that of the last.

    Raises ConfigError for what cannot be written, or for a folder with another run's checkpoints;
    DataError where there is no room; SwarmError while the parameters hold what an optimizer
    reports. The former checkpoint is then as it was.
    """
    for optimizer in node.optimizers:
        if isinstance(optimizer, ScheduleFreeAdamW) and optimizer.reports:
            raise SwarmError(
                "save() after the optimizer's eval(): the parameters hold its average, from which "
                "training cannot go on. Call its train() first, or save outside `reporting`"
            )
    folder = Folder(path)
    if resumed is None or resumed.where != folder.where:
        key = folder.where, node.rank
        if key not in _WRITTEN:
            _refuse_anothers(folder, node.rank)
        era = 0 if resumed is None else resumed.era
        resumed = Resumed(folder.where, era=_WRITTEN.get(key, era))
    parcel = _parcel(node, parts)
    entry = Entry(resumed.era, node.num_nodes, node.rank, node.steps)
    # In matching mode a kill can come between two nodes' saves of one round.
    folder.put(entry, parcel.write, keep=2 if node.config.mode == "matching" else 1)
    _WRITTEN[folder.where, node.rank] = resumed.era
    return resumed


def _refuse_anothers(folder: Folder, rank: int) -> None:
    mine = [entry for entry in folder.entries() if entry.rank == rank]
    if mine:
        raise ConfigError(
            f"{folder.where} has checkpoints of node {rank} that this run did not begin with "
            f"(the last: {mine[-1].name}): swarmsgd.load() it before join() to go on with them, or "
            "save to another folder"
        )


def _parcel(node: Standing, parts: Mapping[str, Stateful | None]) -> Parcel:
    tensors: Tensors = {}
    states = {
        "model": node.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in node.optimizers],
        "parts": {name: part.state_dict() for name, part in given(parts).items()},
        "random": random_states(next(node.model.parameters()).device),
        "swarm": dict(node.swarm),
    }
    tree = {name: pack(state, name, tensors) for name, state in states.items()}
    local = node.config.buffers == "local"
    apart = [n for n, b in float_buffers(node.model).items() if local or not b.averaged]
    about = {
        "steps": node.steps,
        "optimizers": [type(optimizer).__name__ for optimizer in node.optimizers],
        "not_averaged": apart,
        "exchanged": [name for name, _ in node.config.states()],
        "tree": tree,
    }
    return Parcel(about, tensors)


def given(parts: Mapping[str, Stateful | None]) -> dict[str, Stateful]:
    """Those that are not None. Raises ConfigError for one whose state cannot be kept."""
    for name, part in parts.items():
        kept = all(callable(getattr(part, m, None)) for m in ("state_dict", "load_state_dict"))
        if part is not None and not kept:
            raise ConfigError(
                f"{name} is a {type(part).__name__}, which has no state_dict() and "
                "load_state_dict(): pass what has them, or leave it out"
            )
    return {name: part for name, part in parts.items() if part is not None}


def tensors_of(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a module's state dict; not the extra state that some modules have."""
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
