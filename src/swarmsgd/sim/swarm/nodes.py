"""SwarmSGD in virtual time: n nodes of the real machine, code and messages on one agenda."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swarmsgd import graphs
from swarmsgd.codec import host_way, kernels, make_code
from swarmsgd.core import messages
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Node
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments
from swarmsgd.core.wire_code import Bytes
from swarmsgd.graphs import random_partner
from swarmsgd.seeds import stream
from swarmsgd.settings.swarm import lengths_of
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.engine.speeds import Speeds
from swarmsgd.sim.swarm.virtual_node import Stage, VirtualNode

if TYPE_CHECKING:
    from swarmsgd.sim.engine.fleet import Fleet, Vector
    from swarmsgd.sim.engine.ledger import Ledger

UNBOUNDED = 1 << 62


class SwarmEngine:
    """The engine; see `swarmsgd.sim.command.makers.Algorithm`."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        config = fleet.config
        self._fleet = fleet
        self._ledger = ledger
        self._config = config
        self._graph = config.swarm.graph_of(config.nodes)
        self._agenda = ledger.clock = Agenda()
        self._network = Network(config.world, self._agenda, self._deliver)
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        self._matchings = _Matchings(self._graph, config.seed)
        self._rows = [_Rows.of("model", config.swarm.bits, fleet.x_ND)]
        for name, bits in config.swarm.states():
            self._rows.append(_Rows.of(name, bits, fleet.state_ND(name)))
        self.copy_ND, self.pending_ND = self._rows[0][3:]
        """Of the models; `x_ND` of the fleet are the live ones."""
        self._ids = list(range(config.nodes))
        self._past: list[VirtualNode] = []
        """Earlier lives of nodes that joined again."""
        self._over = False
        self._together = config.budget == "together"
        self._lock = threading.Lock()  # one for all: nobody waits for it in one thread
        fine = self._together  # the budget is all nodes': it must be exact at every step
        self._stage = Stage(
            fleet,
            self._speeds,
            self._agenda,
            self._network,
            run=messages.fingerprint({"seed": config.seed, "nodes": config.nodes}),
            blocking=config.swarm.mode != "non-blocking",
            lengths=lengths_of(config.swarm.local_steps),
            seed=config.seed,
            budget=UNBOUNDED if self._together else fleet.total_steps,
            pace=1 if fine else max(1, fleet.total_steps // (4 * config.evals)),
            stopped=self._stopped,
        )
        kernels.prepare()
        late = config.world.absent_at_start
        self.nodes = [self._make(rank, 0, absent=late) for rank in range(config.nodes)]
        for node in self.nodes:
            node.alive = node.rank not in late

    def _make(self, rank: int, incarnation: int, absent: Set[int]) -> VirtualNode:
        machine = self._machine(rank, incarnation)
        for peer in absent & set(machine.membership.open) if absent else ():
            machine.membership.lost(peer)
        replica = Replica(
            [self._vector(rows, rank, incarnation) for rows in self._rows], self._lock
        )
        return VirtualNode(machine, replica, self._stage, self._ledger.recorder(rank))

    def _machine(self, rank: int, incarnation: int) -> Machine:
        neighbours = self._neighbours(rank)
        if self._config.swarm.mode == "matching":
            partner_of = self._matchings.partner_of(rank)
            return Matching(rank, neighbours, partner_of, incarnation=incarnation)
        pick = random_partner(stream("partners", self._config.seed, rank))
        return Node(rank, neighbours, pick, incarnation=incarnation)

    def _vector(self, rows: _Rows, rank: int, incarnation: int) -> ExchangedVector:
        config = self._config
        code = make_code(
            self._fleet.dim,
            rows.bits,
            rotation=config.swarm.rotation,
            common_start=incarnation == 0 and not config.world.absent_at_start,
        )
        return ExchangedVector(
            rows.name,
            code,
            host_way(Segments.row(rows.live_ND[rank])),
            copy=rows.copy_ND[rank],
            pending=rows.pending_ND[rank],
        )

    # `Algorithm`.

    def run(self) -> Iterator[float]:
        """Yields the virtual time after each entry of the agenda."""
        present = [node for node in self.nodes if node.alive]
        self._running = len(present)
        for node in present:
            node.begin()
        acts = {"kill": self._kill, "join": self._join}
        for happening in self._config.world.happenings:
            for rank in happening.nodes if happening.what in acts else ():
                self._agenda.at(happening.start_s, acts[happening.what], rank)
        while self._running and self._agenda.step():
            yield self._agenda.now
            if self._together and self._fleet.steps >= self._fleet.budget:
                self._settle_all()
        self._over = True
        for node in self.nodes:  # nobody starts an exchange any more
            while node.alive and node.endpoint.machine.held and self._agenda.step():
                pass
        self._settle_all()

    def live(self) -> list[int]:
        return [node.rank for node in self.nodes if node.alive]

    def _neighbours(self, rank: int) -> list[int]:
        """The neighbours; in a complete graph all nodes' lists hold the same number objects."""
        if self._graph.stored_edges is None:
            return [*self._ids[:rank], *self._ids[rank + 1 :]]
        return list(self._graph.neighbours(rank))

    def models(self) -> Vector:
        """x + p of the live nodes, with all steps made that are over by now."""
        live = [node for node in self.nodes if node.alive]
        for node in () if self._together else live:
            node.advance(self._agenda.now)
        rows = [node.rank for node in live]
        return self._fleet.x_ND[rows] + self.pending_ND[rows]

    def tally(self) -> None:
        """Write what every node did to the ledger."""
        ledger = self._ledger
        ledger.clear()
        for node in (*self._past, *self.nodes):
            traffic, rank = node.endpoint.traffic, node.rank
            ledger.bytes_sent_N[rank] += traffic.bytes_sent
            ledger.bytes_received_N[rank] += traffic.bytes_received
            ledger.exchanges_N[rank] += node.exchanges
            ledger.initiated_N[rank] += node.initiated
            ledger.blocked_s_N[rank] += node.blocked_s
            ledger.compute_s_N[rank] += node.compute_s
            ledger.lost_N[rank] += node.endpoint.machine.counts.lost
        ledger.events = self._agenda.done
        traffics = [node.endpoint.traffic for node in self.nodes if node.alive]
        found = [graphs.gamma_of(self._graph, each.recent_sq, each.mixes) for each in traffics]
        known = [gamma for gamma in found if gamma is not None]
        ledger.gamma_estimate = sum(known) / len(known) if known else None

    # What happens.

    def _deliver(self, source: int, target: int, message: Bytes) -> None:
        self.nodes[target].received(source, message)

    def _stopped(self) -> None:
        self._running -= 1

    def _settle_all(self) -> None:
        """The end: steps that are over are made, x += p; nobody computes any more."""
        for node in self.nodes:
            if node.alive:
                if not self._together:
                    node.advance(self._agenda.now)
                node.replica.settle()
            node.stop()
        self._running = 0

    def _kill(self, rank: int) -> None:
        node = self.nodes[rank]
        if not node.alive or self._over:
            return
        node.advance(self._agenda.now)
        self._running -= not node.done
        node.stop()
        node.alive = False
        self._network.kill(rank)
        self._ledger.recorder(rank).write("event", what="killed", peer=rank, text="by the recipe")
        for peer in self._graph.neighbours(rank):
            self._agenda.at(self._agenda.now + self._network.latency_s, self._notice, (peer, rank))

    def _notice(self, who: tuple[int, int]) -> None:
        peer, dead = who
        if not self.nodes[dead].alive:
            self.nodes[peer].lost(dead)

    def _join(self, rank: int) -> None:
        """Take a live neighbour's model, then its place in the graph."""
        before = self.nodes[rank]
        if before.alive or self._over:
            return
        neighbours = [p for p in self._graph.neighbours(rank) if self.nodes[p].alive]
        dead = set(self._graph.neighbours(rank)).difference(neighbours)
        incarnation = before.endpoint.machine.incarnation + 1
        self._past.append(before)
        self.nodes[rank] = node = self._make(rank, incarnation, absent=dead)
        self._heal(node, self.nodes[neighbours[0]] if neighbours else before)
        self._network.revive(rank)
        self._speeds.begin_life(rank, incarnation)
        for peer in neighbours:
            self.nodes[peer].lost(rank)  # if the news of its death has not come yet
            self.nodes[peer].endpoint.machine.membership.joined(rank)
        self._ledger.recorder(rank).write("event", what="joined", peer=rank, text="by the recipe")
        self._running += 1
        node.begin()

    def _heal(self, node: VirtualNode, other: VirtualNode) -> None:
        """Begin as `other` is now: a neighbour, or without one this node as it was."""
        other.advance(self._agenda.now)
        mine, theirs = node.endpoint.machine, other.endpoint.machine
        if isinstance(mine, Matching) and isinstance(theirs, Matching):
            mine.next_round = theirs.next_round  # rounds go on where they are
        fleet, rank = self._fleet, node.rank
        fleet.states.reset(rank)
        fleet.buffers_NB[rank] = fleet.buffers_NB[other.rank]
        fleet.steps_N[rank] = fleet.steps_N[other.rank]  # its schedule goes on where they are
        for rows in self._rows:
            rows.live_ND[rank] = rows.live_ND[other.rank] + rows.pending_ND[other.rank]
            rows.copy_ND[rank] = rows.live_ND[rank]
            rows.pending_ND[rank] = 0


class _Rows(NamedTuple):
    """One exchanged vector of all nodes, float32 [N, D]: live, copy and pending."""

    name: str
    bits: int | None
    live_ND: Vector
    copy_ND: Vector
    pending_ND: Vector

    @classmethod
    def of(cls, name: str, bits: int | None, live_ND: Vector) -> _Rows:
        """Copies as the live ones are now, and nothing pending."""
        return cls(name, bits, live_ND, live_ND.copy(), np.zeros_like(live_ND))


class _Matchings:
    """The matching of a round, drawn once for all nodes."""

    def __init__(self, graph: graphs.Graph, seed: int) -> None:
        self._graph = graph
        self._seed = seed
        self._rounds: dict[int, dict[int, int]] = {}

    def partner_of(self, rank: int) -> Callable[[int], int | None]:
        return lambda round: self._partners(round).get(rank)

    def _partners(self, round: int) -> dict[int, int]:
        found = self._rounds.get(round)
        if found is None:
            pairs = graphs.matching_schedule(self._graph, self._seed, round)
            found = {i: j for pair in pairs for i, j in (pair, pair[::-1])}
            self._rounds[round] = found
            self._rounds.pop(round - 64, None)
        return found
