"""Asynchronous algorithms that average pairs of models atomically, on an agenda.

A node computes and communicates in parallel. Its step takes the gradient at the model it has when
the step begins, and is applied to the model it has when the gradient is there; meanwhile averages
with others may have moved it. With each step it starts some averages with random neighbours. The
next step begins when the gradient is applied and these averages are over; the time between the two
counts as blocked.

Atomic means that a node takes part in one average at a time, from its first byte to its last: both
ends send their model at once, and when both have arrived both have the mean. Others wait, in the
order in which they asked; an average begins as soon as both ends are free. So nothing can lock up,
which the published algorithms need bipartite graphs or a coordinator for: a favour to these
baselines, as is that asking costs no time.

A killed node vanishes: who is in an average with it is free a latency later, with its model as it
was; nobody asks it any more. A node that joins takes a live neighbour's model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from swarmsgd.core.wire_code import Bytes
from swarmsgd.seeds import stream
from swarmsgd.sim.baselines.costs import FLOAT_BYTES
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.engine.speeds import Speeds


class Mixing(Protocol):
    """One algorithm's arithmetic."""

    def begins(self, node: int, now: float) -> int:
        """A step of `node` begins; how many averages it starts along with it."""
        ...

    def step(self, node: int, seen_D: Vector, now: float) -> None:
        """Apply the gradient of `node` at `seen_D` to its model."""
        ...

    def average(self, i: int, j: int, now: float) -> None:
        """Average the models of two nodes; conserves their sum."""
        ...

    def models(self, nodes: list[int], now: float) -> Vector:
        """[nodes, D] what they would use as their models now."""
        ...

    def joined(self, node: int, now: float) -> None:
        """`node` has begun anew with the model that is in its row."""
        ...


class _Node:
    __slots__ = (
        "alive", "busy", "computed", "computing", "done", "life", "owed", "rank", "since",
        "waiting",
    )  # fmt: skip

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.alive = True
        self.done = False
        self.life = 0
        self.computing = False
        self.since = 0.0
        """When its step began."""
        self.computed = 0.0
        """When its gradient was applied."""
        self.owed = 0
        """Averages of this step that are not over yet."""
        self.busy: _Average | None = None
        self.waiting: list[_Average] = []


class _Average:
    __slots__ = ("arrived", "ends", "message")

    def __init__(self, initiator: _Node, partner: _Node, nbytes: int) -> None:
        self.ends = (initiator, partner)
        self.message: Bytes = np.broadcast_to(np.uint8(0), nbytes)  # nobody reads it
        self.arrived = 0


class Pairwise:
    """Drives a mixing; see `swarmsgd.sim.command.makers.Algorithm`."""

    def __init__(self, fleet: Fleet, ledger: Ledger, mixing: Mixing) -> None:
        config = fleet.config
        self.mixing = mixing
        self._fleet = fleet
        self._ledger = ledger
        self._config = config
        self._graph = config.swarm.graph_of(config.nodes)
        self._agenda = ledger.clock = Agenda()
        self._network = Network(config.world, self._agenda, self._arrived)
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        self._rngs = [stream("partners", config.seed, i) for i in range(config.nodes)]
        self._together = config.budget == "together"
        self._seen_ND = np.zeros_like(fleet.x_ND)
        self._nodes = [_Node(rank) for rank in range(config.nodes)]
        for rank in config.world.absent_at_start:
            self._nodes[rank].alive = False

    # `Algorithm`.

    def run(self) -> Iterator[float]:
        """Yields the virtual time after each entry of the agenda."""
        present = [node for node in self._nodes if node.alive]
        self._running = len(present)
        for node in present:
            self._begin(node)
        acts = {"kill": self._kill, "join": self._join}
        for happening in self._config.world.happenings:
            for rank in happening.nodes if happening.what in acts else ():
                self._agenda.at(happening.start_s, acts[happening.what], self._nodes[rank])
        while self._running and self._agenda.step():
            yield self._agenda.now
            if self._together and self._fleet.steps >= self._fleet.budget:
                return

    def live(self) -> list[int]:
        return [node.rank for node in self._nodes if node.alive]

    def models(self) -> Vector:
        return self.mixing.models(self.live(), self._agenda.now)

    def tally(self) -> None:
        """All but this is written to the ledger as it happens."""
        self._ledger.events = self._agenda.done

    # Computing.

    def _begin(self, node: _Node) -> None:
        """A step, if there are any left."""
        fleet, rank, now = self._fleet, node.rank, self._agenda.now
        if not self._together and fleet.steps_N[rank] >= fleet.total_steps:
            node.done = True
            self._running -= 1
            return
        node.computing, node.since = True, now
        self._seen_ND[rank] = fleet.x_ND[rank]
        averages = self.mixing.begins(rank, now)
        self._agenda.at(now + self._speeds.step_s(rank, now), self._compute, (node, node.life))
        for _ in range(averages):
            self._ask(node)

    def _compute(self, ticket: tuple[_Node, int]) -> None:
        """The gradient of a step is there."""
        node, life = ticket
        if node.life != life:
            return
        now = self._agenda.now
        self.mixing.step(node.rank, self._seen_ND[node.rank], now)
        self._ledger.compute_s_N[node.rank] += now - node.since
        node.computing, node.computed = False, now
        self._go_on(node)

    def _go_on(self, node: _Node) -> None:
        if not node.computing and not node.owed and not node.done and node.alive:
            self._ledger.blocked_s_N[node.rank] += self._agenda.now - node.computed
            self._begin(node)

    # Averaging.

    def _ask(self, node: _Node) -> None:
        partner = self._partner(node.rank)
        if partner is None:
            return
        wish = _Average(node, self._nodes[partner], FLOAT_BYTES * self._fleet.dim)
        node.owed += 1
        for end in wish.ends:
            end.waiting.append(wish)
        self._serve(node)

    def _partner(self, rank: int) -> int | None:
        """A random live neighbour."""
        if self._graph.num_nodes == 1:
            return None
        found = self._graph.random_neighbour(rank, self._rngs[rank])
        if self._nodes[found].alive:
            return found
        alive = [p for p in self._graph.neighbours(rank) if self._nodes[p].alive]
        return alive[int(self._rngs[rank].integers(len(alive)))] if alive else None

    def _serve(self, node: _Node) -> None:
        """Begin the first average that waits for `node` and can begin."""
        for wish in node.waiting:
            if not any(end.busy for end in wish.ends):
                self._transfer(wish)
                return

    def _transfer(self, wish: _Average) -> None:
        for end, other in (wish.ends, wish.ends[::-1]):
            end.waiting.remove(wish)
            end.busy = wish
            self._network.send(end.rank, other.rank, wish.message)
            self._ledger.bytes_sent_N[end.rank] += len(wish.message)

    def _arrived(self, source: int, target: int, message: Bytes) -> None:
        average = self._nodes[source].busy
        if average is None or average.message is not message:
            return  # of an average that was abandoned
        self._ledger.bytes_received_N[target] += len(message)
        average.arrived += 1
        if average.arrived == 2:
            initiator, partner = (end.rank for end in average.ends)
            self.mixing.average(initiator, partner, self._agenda.now)
            self._ledger.exchanges_N[[initiator, partner]] += 1
            self._ledger.initiated_N[initiator] += 1
            self._over(average)

    def _over(self, average: _Average) -> None:
        """Both ends are free again."""
        for end in average.ends:
            end.busy = None
        average.ends[0].owed -= 1
        for end in average.ends:
            self._serve(end)
        self._go_on(average.ends[0])

    # What happens in the world.

    def _kill(self, node: _Node) -> None:
        if not node.alive:
            return
        self._running -= not node.done
        node.alive, node.computing = False, False
        node.life += 1
        self._network.kill(node.rank)
        self._note(node, "killed")
        for wish in node.waiting.copy():
            self._withdraw(wish)
        if node.busy and node.busy.arrived >= 0:
            later = self._agenda.now + self._network.latency_s
            node.busy.arrived = -2  # whatever still comes, it is not both models
            self._ledger.lost_N[node.busy.ends[0].rank] += 1
            self._agenda.at(later, self._over, node.busy)

    def _withdraw(self, wish: _Average) -> None:
        for end in wish.ends:
            end.waiting.remove(wish)
        wish.ends[0].owed -= 1
        self._go_on(wish.ends[0])

    def _join(self, node: _Node) -> None:
        if node.alive:
            return
        self._network.revive(node.rank)
        node.alive, node.done = True, False
        neighbours = [p for p in self._graph.neighbours(node.rank) if self._nodes[p].alive]
        if neighbours:
            self._heal(node.rank, neighbours[0])
        self._note(node, "joined")
        self._running += 1
        self._begin(node)

    def _heal(self, rank: int, other: int) -> None:
        fleet, now = self._fleet, self._agenda.now
        fleet.x_ND[rank] = self.mixing.models([other], now)[0]
        fleet.states.reset(rank)
        fleet.buffers_NB[rank] = fleet.buffers_NB[other]
        fleet.steps_N[rank] = fleet.steps_N[other]  # its schedule goes on where they are
        self.mixing.joined(rank, now)

    def _note(self, node: _Node, what: str) -> None:
        recorder = self._ledger.recorder(node.rank)
        recorder.write("event", what=what, peer=node.rank, text="by the recipe")
