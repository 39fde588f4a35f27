"""Which of the checkpoints in a folder a node begins with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.train.checkpoint.folder import Entry, Folder


@dataclass(frozen=True, slots=True)
class Choice:
    """What is there for one node of `nodes`."""

    era: int
    """The one that it saves in."""
    own: Entry | None = None
    """What it had saved, in a run of as many nodes."""
    all: tuple[Entry, ...] = ()
    """Of each node of a run of another number of nodes, by rank."""


def choose(folder: Folder, rank: int, num_nodes: int, step: int | None = None) -> Choice:
    """What node `rank` of `num_nodes` begins with: nothing, its own or all.

    Of the latest era. Of several steps it is the latest that all nodes have, else the latest of
    each; or `step`. Raises ConfigError if that is not there, DataError if only some nodes of
    another number have left checkpoints.
    """
    entries = folder.entries()
    if not entries:
        return Choice(era=0)
    era, nodes = max(entry[:2] for entry in entries)
    if nodes == num_nodes:
        latest = _latest(_of(entries, era, nodes), step, folder)
        own = next((entry for entry in latest if entry.rank == rank), None)
        return Choice(era, own=own)
    return Choice(era + 1, all=whole_run(folder, step))


def whole_run(folder: Folder, step: int | None = None) -> tuple[Entry, ...]:
    """A checkpoint of each node, by rank, of the latest era that has them all.

    Raises DataError if none has, or there are no checkpoints at all.
    """
    entries = folder.entries()
    if not entries:
        raise DataError(f"{folder.where} has no checkpoints: name the folder that swarm.save() got")
    missing = ""
    for era, nodes in sorted({entry[:2] for entry in entries}, reverse=True):
        group = _of(entries, era, nodes)
        absent = set(range(nodes)) - {entry.rank for entry in group}
        if not absent:
            return tuple(_latest(group, step, folder))
        missing = missing or f"node {', '.join(map(str, sorted(absent)))} of {nodes}"
    raise DataError(
        f"{folder.where} has no checkpoint of {missing}, but a run of another number of nodes, as "
        "an export, begins with the mean of all: bring all nodes' files together in one folder"
    )


def _of(entries: Iterable[Entry], era: int, nodes: int) -> list[Entry]:
    return [entry for entry in entries if entry[:2] == (era, nodes) and entry.rank < nodes]


def _latest(group: Sequence[Entry], step: int | None, folder: Folder) -> list[Entry]:
    """One of each node, by rank."""
    by_rank = {entry.rank: [e for e in group if e.rank == entry.rank] for entry in group}
    if step is not None:
        found = [entry for entry in group if entry.steps == step]
        if len(found) < len(by_rank):
            there = sorted({entry.steps for entry in group})
            raise ConfigError(
                f"{folder.where} has no checkpoint of every node at step {step}; there are steps "
                f"{', '.join(map(str, there))}"
            )
        return found
    common = set.intersection(*({e.steps for e in mine} for mine in by_rank.values()))
    complete = len(by_rank) == group[0].nodes
    if common and complete:
        return [entry for entry in group if entry.steps == max(common)]
    return [mine[-1] for mine in by_rank.values()]
