"""What `join` takes up of a checkpoint, beside what lies in the model and optimizer already."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch.optim import Optimizer

from swarmsgd.core.layout import Layout
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Burst
from swarmsgd.core.replica import Replica
from swarmsgd.seeds import stream
from swarmsgd.settings.swarm import SwarmSettings, lengths_stream, resuming

_log = logging.getLogger("swarmsgd")

FRESH, ITS_OWN, OF_ALL = "fresh", "own", "mean"
"""How a node begins: anew; with what it had saved; as all others, with the mean of what all had."""


@dataclass(frozen=True, slots=True)
class SwarmStreams:
    """The random streams of one node of a swarm."""

    partners: np.random.Generator
    lengths: np.random.Generator

    @classmethod
    def of(cls, config: SwarmSettings, rank: int) -> Self:
        """From their beginning."""
        return cls(
            stream("partners", config.seed, rank),
            lengths_stream(config.seed, rank, rounds=config.mode == "matching"),
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """Left by `load` for `join`."""

    where: str
    """The folder of the run, where `save` may replace this node's former checkpoints."""
    era: int
    start: str = FRESH
    steps: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)
    """What `PlaceInSwarm.state` gave at the save; empty unless this node goes on as it was."""

    def goes_on(self, config: SwarmSettings) -> bool:
        """Whether streams, burst and round are those of a run with these settings."""
        return self._alike(resuming("streams"), config)

    def _alike(self, names: tuple[str, ...], config: SwarmSettings) -> bool:
        now, then = config.in_effect(), self.state.get("settings", {})
        return all(now[name] == then.get(name) for name in names)

    def put_back(self, burst: Burst, streams: SwarmStreams, config: SwarmSettings) -> None:
        """Burst and streams go on where they were."""
        if not self.goes_on(config):
            if self.state:
                _log.warning(
                    "the checkpoint is of a run with other settings (one of %s): partners and "
                    "bursts begin anew",
                    ", ".join(resuming("streams")),
                )
            return
        burst.made, burst.length = self.state["burst"]
        streams.lengths.bit_generator.state = self.state["lengths"]
        streams.partners.bit_generator.state = self.state["partners"]

    def round(self, config: SwarmSettings) -> int:
        """The number of the next round in matching mode."""
        return self.state["round"] if self.goes_on(config) else 0

    def put_into(
        self, replica: Replica, machine: Machine, layout: Layout, config: SwarmSettings
    ) -> None:
        """Copies, codes and rounds go on where they were."""
        if isinstance(machine, Matching):
            machine.begin_at(self.round(config))
        if not self._alike(resuming("code"), config):
            return
        for vector in replica.vectors:
            learned = self.state["learned"].get(vector.name)
            if learned is not None:
                vector.code.learn(learned)
            if self.goes_on(config):
                parts = dict(layout.named(torch.from_numpy(vector.copy)))
                for name, values in self.state["copies"].get(vector.name, {}).items():
                    parts[name].copy_(values)


LOADED: weakref.WeakKeyDictionary[Optimizer, Resumed] = weakref.WeakKeyDictionary()
"""By the optimizer that was loaded, until it joins."""


@dataclass(frozen=True, slots=True)
class PlaceInSwarm:
    """How far one node's exchanges have come."""

    config: SwarmSettings
    burst: Burst
    streams: SwarmStreams
    layout: Layout

    def state(
        self, replica: Replica | None = None, machine: Machine | None = None
    ) -> dict[str, Any]:
        """What `Resumed` puts back. Called on the exchange thread, if there is one, while nothing
        of this node is waited for.
        """
        learned: dict[str, Any] = {}
        copies: dict[str, Any] = {}
        if replica is not None:
            with replica.lock:
                learned = {vector.name: vector.code.learned() for vector in replica.vectors}
            if isinstance(machine, Matching):
                copies = _apart(replica, self.layout)
        return {
            "settings": self.config.in_effect(),
            "burst": [self.burst.made, self.burst.length],
            "lengths": self.streams.lengths.bit_generator.state,
            "partners": self.streams.partners.bit_generator.state,
            "round": machine.next_round if isinstance(machine, Matching) else 0,
            "learned": learned,
            "copies": copies,
        }


def _apart(replica: Replica, layout: Layout) -> dict[str, dict[str, torch.Tensor]]:
    """Copies that are not x, by vector and parameter. Within a burst of matching mode a node's copy
    is x as it was when the burst began: how far x comes from there decides how it is coded.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    for index, vector in enumerate(replica.vectors):
        copy = replica.copy_now(index)
        if vector.bits and not np.array_equal(copy, replica.read(index)):
            found[vector.name] = dict(layout.named(torch.from_numpy(copy)))
    return found
