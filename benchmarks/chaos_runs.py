"""Random schedules of failures in virtual time, and an account of what becomes of the models' sum.

m_i = x_i + p_i is what node i would use as its model. S, the sum of m_i over the nodes that live,
changes by exactly this and nothing else:

* a local step of i: by what it added to x_i;
* an exchange: its partner's m moves by d when it answers, its initiator's by -d when it mixes. In
  between, or for ever if the initiator never mixes (the exchange is *lost*), S is off by d;
* a death of i: by -m_i. A join of i: by what it begins with, a neighbour's copy.

`Account` follows every m_i from one of these to the next and raises AssertionError for a change
that is none of them, and for a mix that is not the exact opposite of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest import mock

import numpy as np

from swarmsgd.core.messages import ExchangeId
from swarmsgd.core.traffic import Exchange
from swarmsgd.core.wire_code import Mixed
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.sim.swarm import nodes as swarm_nodes
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.sim.swarm.virtual_node import VirtualNode
from swarmsgd.tasks import TASKS, SyntheticOptions

MOST_EVENTS = 500_000
"""A schedule has some thousands; this many is a hang."""
ROUNDING = 1e-5
"""Of float32 sums of numbers about 1."""


def schedule(seed: int) -> SimConfig:
    """A run of 4 to 12 nodes of a second or two, in which up to a dozen things happen."""
    rng = np.random.default_rng(seed)
    n, steps = int(rng.integers(4, 13)), int(rng.choice([40, 80, 160]))
    momentum = float(rng.choice([0.0, 0.5]))
    slow = [f"{node}:{rng.integers(2, 8)}" for node in range(n) if rng.random() < 0.15]
    return SimConfig.of(
        task=SyntheticOptions(
            dimension=int(rng.choice([8, 300])), samples_per_node=steps, noise=0.2
        ),
        nodes=n,
        lr=0.05,
        momentum=momentum,
        graph=str(rng.choice(["complete", "ring", "cycles:4", "cycles:4", "exponential", "star"])),
        mode=str(rng.choice(["non-blocking", "non-blocking", "blocking", "matching"])),
        local_steps=str(rng.choice(["1", "4", "geometric:3"])),
        bits=[None, 8, 4][rng.integers(3)],
        exchange_state=("momentum_buffer",) if momentum and rng.random() < 0.4 else (),
        budget=str(rng.choice(["each", "together"])),
        seed=seed,
        epochs=1.0,
        world=World(
            step_jitter=float(rng.choice([0.0, 0.3])),
            latency_ms=float(rng.choice([0.0, 0.1, 5.0, 60.0])),
            bandwidth_mbit_s=float(rng.choice([np.inf, 100.0, 0.5])),
            stragglers=tuple(slow),
            events=tuple(_events(rng, n, 0.01 * steps)),
        ),
    )


def _events(rng: np.random.Generator, n: int, end_s: float) -> list[str]:
    """Kills, joins and cuts until a little after `end_s`; one node at least lives always."""
    live, events = set(range(n)), list[str]()
    for time_s in np.sort(rng.uniform(0, 1.1 * end_s, rng.integers(1, 13))):
        at, dead = f"@{time_s:.6f}", sorted(set(range(n)) - live)
        what = str(rng.choice(["kill", "join", "cut"], p=[0.45, 0.4, 0.15]))
        if what == "kill" and len(live) > 1:
            who = rng.choice(sorted(live), rng.integers(1, min(4, len(live))), replace=False)
            live.difference_update(who.tolist())
        elif what == "join" and dead:
            who = rng.choice(dead, rng.integers(1, len(dead) + 1), replace=False)
            live.update(who.tolist())
        elif what == "cut":
            who = rng.choice(n, rng.integers(1, n), replace=False)
            at += f"-{time_s + rng.choice([0.05, 0.3, 3.0]):.6f}"
        else:
            continue
        events.append(f"{what}:{','.join(map(str, who))}{at}")
    return events


@dataclass
class Account:
    """Of one run, which tells it of each exchange and local step."""

    swarm: SwarmEngine
    fleet: Fleet
    moved: dict[ExchangeId, np.ndarray] = field(default_factory=dict)
    """Exchanges that were answered and not mixed: d."""
    deaths: int = 0
    joins: int = 0
    answers: int = 0
    events: int = 0
    wall_s: float = 0.0
    """Virtual."""

    def __post_init__(self) -> None:
        self.known = {rank: self.model(rank) for rank in self.swarm.live()}
        self.wanted = self.sum_of_live()
        """What S must be, but for exchanges that are not over."""
        steps_of = self.fleet.steps_of

        def accounted(node: int, count: int) -> None:
            self.unmoved(node)
            steps_of(node, count)
            self.wanted = self.wanted + self.change(node)

        self.fleet.steps_of = accounted  # pyright: ignore[reportAttributeAccessIssue]

    def model(self, rank: int) -> np.ndarray:
        x, p = self.fleet.x_ND[rank], self.swarm.pending_ND[rank]
        return x.astype(np.float64) + p

    def sum_of_live(self) -> np.ndarray:
        return np.sum([self.model(rank) for rank in self.swarm.live()], axis=0)

    def change(self, rank: int) -> np.ndarray:
        """Of a node's model since it was last looked at."""
        before, self.known[rank] = self.known[rank], self.model(rank)
        return self.known[rank] - before

    def unmoved(self, rank: int) -> None:
        assert np.abs(self.change(rank)).max() < ROUNDING, f"node {rank} moved for no reason"

    def mixed(self, node: VirtualNode, exchange: Exchange) -> None:
        """One end of an exchange has moved."""
        machine, d = node.endpoint.machine, self.change(node.rank)
        if exchange.role == "partner":
            life = machine.membership.incarnation(exchange.peer)
            self.moved[ExchangeId(exchange.peer, life, exchange.counter)] = d
            self.answers += 1
        else:
            id = ExchangeId(node.rank, machine.incarnation, exchange.counter)
            assert np.abs(d + self.moved.pop(id)).max() < ROUNDING, f"{id}: no exact opposites"

    def look(self) -> None:
        """After each entry of the agenda: who has died, who has come."""
        live = {node.rank for node in self.swarm.nodes if node.alive}
        for rank in sorted(self.known.keys() - live):
            self.unmoved(rank)
            self.wanted = self.wanted - self.known.pop(rank)
            self.deaths += 1
        for rank in sorted(live - self.known.keys()):
            self.known[rank] = self.model(rank)
            self.wanted = self.wanted + self.known[rank]
            self.joins += 1

    @property
    def off(self) -> float:
        """How far S is from what it must be, lost exchanges included: rounding alone."""
        lost = sum(self.moved.values(), np.zeros(self.fleet.dim))
        return float(np.abs(self.sum_of_live() - self.wanted - lost).max())

    @property
    def counted_lost(self) -> int:
        """Exchanges whose initiators know them lost, or died with one under way."""
        lives = (*self.swarm._past, *self.swarm.nodes)  # pyright: ignore[reportPrivateUsage]
        return self.deaths + sum(node.endpoint.machine.counts.lost for node in lives)

    @property
    def distrusted(self) -> int:
        """Messages that broke the protocol: a bug, here."""
        return sum(node.endpoint.traffic.distrusted for node in self.swarm.nodes)


def run(config: SimConfig) -> Account:
    """Run a schedule to its end. Raises AssertionError for a sum that moved, or a hang."""
    accounts: list[Account] = []

    class Accounted(VirtualNode):
        __slots__ = ()

        def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
            accounts[0].mixed(self, exchange)
            super().mixed(exchange, mixed)

    with mock.patch.object(swarm_nodes, "VirtualNode", Accounted):
        task = TASKS[config.task_name].make(config.task, config.nodes, print)
        fleet = Fleet(task, config)
        account = Account(SwarmEngine(fleet, Ledger(config.nodes, None)), fleet)
        accounts.append(account)
        for now in account.swarm.run():
            account.wall_s = now
            account.look()
            account.events += 1
            assert account.events < MOST_EVENTS, f"no end at {account.wall_s} s"
    for rank in account.swarm.live():
        account.unmoved(rank)
    assert account.off < 1e-4, f"the sum is off by {account.off:.3g}"
    assert len(account.moved) <= account.counted_lost, "an exchange was lost and not counted"
    assert not account.distrusted
    return account
