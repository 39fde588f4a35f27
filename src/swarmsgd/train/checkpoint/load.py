"""`swarmsgd.load()`: a node begins with what it had saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from swarmsgd.core.layout import in_words
from swarmsgd.errors import ConfigError
from swarmsgd.train.checkpoint.choice import choose
from swarmsgd.train.checkpoint.container import Checkpoint
from swarmsgd.train.checkpoint.folder import Entry, Folder
from swarmsgd.train.checkpoint.mean import mean_model, mean_optimizers
from swarmsgd.train.checkpoint.random_states import set_random_states
from swarmsgd.train.checkpoint.resumed import ITS_OWN, LOADED, OF_ALL, Resumed
from swarmsgd.train.checkpoint.save import Stateful, given, tensors_of
from swarmsgd.train.checkpoint.tree import unpack
from swarmsgd.train.meet.place import own_place
from swarmsgd.train.node.join_checks import optimizers_of
from swarmsgd.train.node.swarm import JOINED

_log = logging.getLogger("swarmsgd")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load` found. True if it found anything."""

    steps: int = 0
    """Local steps made so far."""
    nodes: int = 0
    """How many the run had that was saved; 0 if there is nothing yet."""

    def __bool__(self) -> bool:
        return self.nodes > 0


@dataclass(frozen=True, slots=True)
class _Found:
    """All that is to be taken up, read and checked."""

    model: dict[str, Any]
    optimizers: list[dict[str, Any]]
    source: Checkpoint
    """Of the rest, and for error texts."""
    optimizer_names: list[str]

    def part(self, name: str) -> Any:
        return unpack(self.source.about["tree"][name], self.source.tensor)


def load(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    rank: int | None = None,
    num_nodes: int | None = None,
    step: int | None = None,
    **parts: Stateful | None,
) -> Loaded:
    """Begin with the checkpoint that `swarm.save()` left in `path`, if there is one: before `join`.

    `path` is a folder, or a URL that fsspec opens. `parts` are what `save` got under these names:
    schedulers, samplers, a GradScaler, ...; all of them, None for one to leave out. Who this node
    is comes from `rank` and `num_nodes`, else from the environment, as for `join`. `step` chooses
    one of several checkpoints.

    The same number of nodes: each goes on as it was, global random states included, and `join` does
    not overwrite the models with node 0's. Another number: all begin with the mean of all the old
    nodes' models, node r with the optimizer state of old node r modulo their number, and with the
    parts of the old node that had made the fewest steps.

    Returns what was found: nothing on the first start. Raises ConfigError for a checkpoint of
    another model, optimizer or set of parts, DataError for one that is torn or of another version;
    nothing has been changed then.

    >>> import torch, swarmsgd
    >>> model = torch.nn.Linear(4, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> begun = swarmsgd.load("memory://docs/run", model, optimizer)
    >>> begun.steps
    0
    """
    optimizers = optimizers_of(optimizer)
    if any(each in JOINED for each in optimizers):
        raise ConfigError(
            "load() after join(): the others exchange with this model already. Load first, then "
            "join; join() sees that the model was loaded"
        )
    kept = given(parts)
    rank, num_nodes = own_place(rank, num_nodes)
    folder = Folder(path)
    choice = choose(folder, rank, num_nodes, step)
    if choice.own is None and not choice.all:
        _log.warning("node %d: no checkpoint of it in %s: it begins anew", rank, folder.where)
        LOADED[optimizers[-1]] = Resumed(folder.where, choice.era)
        return Loaded()
    with ExitStack() as stack:
        taken = [choice.own] if choice.own else choice.all
        files = [opened(stack, folder, entry) for entry in taken]
        found = _mean(files, rank) if choice.all else _own(files[0])
        _check(found, model, optimizers, parts)
        states = found.part("parts")
        state = found.part("swarm") if choice.own else {}
        rngs = found.part("random") if choice.own else None
        for name, part in kept.items():
            part.load_state_dict(states[name])
        for each, its in zip(optimizers, found.optimizers, strict=True):
            each.load_state_dict(its)
        model.load_state_dict(found.model)
        if rngs is not None:
            set_random_states(rngs, next(model.parameters()).device)
        steps = found.source.about["steps"]
    start = ITS_OWN if choice.own else OF_ALL
    LOADED[optimizers[-1]] = Resumed(folder.where, choice.era, start, steps, state)
    return Loaded(steps, (choice.own or choice.all[0]).nodes)


def opened(stack: ExitStack, folder: Folder, entry: Entry) -> Checkpoint:
    """A checkpoint that can be read until the stack is closed."""
    path, where = stack.enter_context(folder.fetch(entry))
    return Checkpoint(path, where)


def _own(own: Checkpoint) -> _Found:
    tree = own.about["tree"]
    model, optimizers = (unpack(tree[name], own.tensor) for name in ("model", "optimizers"))
    return _Found(model, optimizers, own, own.about["optimizers"])


def _mean(old: Sequence[Checkpoint], rank: int) -> _Found:
    source = old[rank % len(old)]
    model, optimizers = mean_model(old), mean_optimizers(source, old)
    behind = min(old, key=lambda checkpoint: checkpoint.about["steps"])
    return _Found(model, optimizers, behind, source.about["optimizers"])


def _check(
    found: _Found, model: nn.Module, optimizers: Sequence[Optimizer], parts: Mapping[str, Any]
) -> None:
    """Raise ConfigError unless all of it fits."""
    where = found.source.where
    check_alike(where, found.model, model)
    _check_optimizers(found, optimizers)
    names = set(found.source.about["tree"]["parts"]["map"])
    if names - set(parts) or {n for n, part in parts.items() if part is not None} - names:
        raise ConfigError(
            f"{where} has the states of {_some(names, 'no parts')}, load() was given "
            f"{_some(set(parts), 'none')}: pass the same as to save(), and name=None for one that "
            "shall be left out"
        )


def check_alike(where: str, state: Mapping[str, Any], model: nn.Module) -> None:
    """Raise ConfigError unless a state dict has the names, shapes and dtypes of a model's."""
    there = {in_words(*each) for each in tensors_of(state).items()}
    here = {in_words(*each) for each in tensors_of(model.state_dict()).items()}
    if there != here:
        raise ConfigError(
            f"{where} is of another model: it has {_some(there - here)}; this one has "
            f"{_some(here - there)}. Make the model as it was, or begin anew in another folder"
        )


def _check_optimizers(found: _Found, optimizers: Sequence[Optimizer]) -> None:
    now = _in_words([type(each).__name__ for each in optimizers], optimizers)
    then = _in_words(found.optimizer_names, found.optimizers)
    if now != then:
        raise ConfigError(
            f"{found.source.where} is of {then}, got {now}: make the optimizer as it was"
        )


def _in_words(names: Sequence[str], optimizers: Sequence[Any]) -> str:
    """Optimizers, or their state dicts."""
    all_groups = [o["param_groups"] if isinstance(o, dict) else o.param_groups for o in optimizers]
    return " and ".join(
        f"{name} with groups of {[len(group['params']) for group in groups]} parameters"
        for name, groups in zip(names, all_groups, strict=True)
    )


def _some(words: set[str], none: str = "nothing else", most: int = 3) -> str:
    """The first few, in order."""
    first = sorted(words)[:most]
    return ", ".join(first) + (", ..." if len(words) > most else "") if first else none
