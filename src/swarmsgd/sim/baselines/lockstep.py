"""Algorithms whose nodes go in rounds: local steps, messages, and on when these have come.

What is learned does not depend on when, so each round moves the models at once and the clocks of
all nodes by a recurrence on arrays [N].

What happens in the world: a slow node or link slows whoever waits for it; a cut is waited out; all
begin when the last node has joined. A killed node stops everybody, since none of these algorithms
says how to go on without it: the run ends at that second, with the rounds that were over by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from swarmsgd.seeds import stream
from swarmsgd.settings.swarm import lengths_of
from swarmsgd.sim.baselines.costs import Times
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.speeds import Speeds


class Rule(Protocol):
    """One algorithm's round."""

    def ends(self, begin_N: Times, computed_N: Times) -> Times:
        """[N] when each node may begin its next round, which it began and had computed then."""
        ...

    def train(self, steps: int) -> None:
        """`steps` local steps of every node, and what follows them."""
        ...

    def models(self) -> Vector:
        """[N, D] what each node would use as its model now."""
        ...

    def count(self, ledger: Ledger) -> None:
        """Write the traffic so far to the ledger."""
        ...


class LockStep:
    """Drives a rule; see `swarmsgd.sim.command.makers.Algorithm`.

    `lengths` is H, drawn once a round for all nodes; the last round may be shorter.
    """

    def __init__(self, fleet: Fleet, ledger: Ledger, rule: Rule, lengths: int | str = 1) -> None:
        config = fleet.config
        self.rule = rule
        self._fleet = fleet
        self._ledger = ledger
        self._lengths = lengths_of(lengths)
        self._rng = stream("lengths", config.seed)
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        self._live = np.arange(config.nodes)
        fleet.joint_schedule = False  # all make the same number of steps, whatever the budget
        self._begin_s, self._killed_s_N = _appointments(fleet)

    def run(self) -> Iterator[float]:
        """Yields the virtual time at which the last node has finished a round."""
        begin_N = np.full(self._fleet.num_nodes, self._begin_s)
        self._ledger.blocked_s_N += begin_N
        left = self._fleet.total_steps
        while left:
            steps = min(left, self._lengths.draw(self._rng))
            computed_N = self._computed(begin_N, steps)
            ends_N = self.rule.ends(begin_N, computed_N)
            if (ends_N > self._killed_s_N).any():
                yield self._stall(ends_N)
                return
            self.rule.train(steps)
            self._ledger.compute_s_N += computed_N - begin_N
            self._ledger.blocked_s_N += ends_N - computed_N
            self._ledger.clock.now = float(ends_N.max())
            begin_N, left = ends_N, left - steps
            yield self._ledger.clock.now

    def live(self) -> list[int]:
        return self._live.tolist()

    def models(self) -> Vector:
        models_ND = self.rule.models()
        return models_ND if len(self._live) == len(models_ND) else models_ND[self._live]

    def tally(self) -> None:
        self.rule.count(self._ledger)

    def _computed(self, begin_N: Times, steps: int) -> Times:
        now_N = begin_N
        for _ in range(steps):
            now_N = now_N + self._speeds.round_s(now_N)
        return now_N

    def _stall(self, ends_N: Times) -> float:
        """Nobody gets further than the first node that did not live to the end of its round."""
        killed_s = float(self._killed_s_N[ends_N > self._killed_s_N].min())
        dead = self._killed_s_N <= killed_s
        self._live = np.flatnonzero(~dead | dead.all())  # none left: what they had is scored
        clock = self._ledger.clock
        clock.now = max(clock.now, killed_s)  # others may have been ahead of it
        names = ", ".join(map(str, np.flatnonzero(dead).tolist()))
        self._ledger.stopped = f"node {names} was killed and all others wait for ever"
        for node in np.flatnonzero(dead).tolist():
            self._ledger.recorder(node).write(
                "event", what="killed", peer=node, text="by the recipe: all others wait for ever"
            )
        return clock.now


def _appointments(fleet: Fleet) -> tuple[float, Times]:
    """When all are there, and [N] when each is killed."""
    world = fleet.config.world
    killed_s_N = np.full(fleet.num_nodes, np.inf)
    joined_s: dict[int, float] = {}
    for happening in sorted(world.happenings, key=lambda h: h.start_s):
        for node in happening.nodes:
            if happening.what == "kill":
                killed_s_N[node] = min(killed_s_N[node], happening.start_s)
            elif happening.what == "join":
                joined_s.setdefault(node, happening.start_s)
    begin_s = max((joined_s[node] for node in world.absent_at_start), default=0.0)
    return begin_s, killed_s_N


def mean_row(rows_ND: Vector) -> Vector:
    """[D] the mean of all rows, added up in float64."""
    return rows_ND.mean(0, dtype=np.float64).astype(np.float32)


def count_even(ledger: Ledger, nbytes: float) -> None:
    """Every node has sent and received `nbytes` so far."""
    ledger.bytes_sent_N[:] = ledger.bytes_received_N[:] = round(nbytes)
