"""SwarmSGD in virtual time: n nodes of the real machine, code and messages on one agenda."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

from swarmsgd.codec import host_way, kernels, make_code
from swarmsgd.core import messages
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Node
from swarmsgd.core.progress import Total
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments
from swarmsgd.core.wire_code import Bytes
from swarmsgd.graphs import Graph, gamma_of, random_partner
from swarmsgd.seeds import stream
from swarmsgd.settings.swarm import lengths_of
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.engine.speeds import Speeds
from swarmsgd.sim.swarm.arrival import Arrival, InSchedule, Ways
from swarmsgd.sim.swarm.links import VirtualLinks, graph_of
from swarmsgd.sim.swarm.rounds import Rounds
from swarmsgd.sim.swarm.rows import Rows
from swarmsgd.sim.swarm.virtual_node import Census, Stage, VirtualNode

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
        self._graph = graph_of(config)
        self._agenda = ledger.clock = Agenda()
        self._network = Network(config.world, self._agenda, self._deliver)
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        self._rounds: Rounds | None = None
        if config.swarm.mode == "matching":
            assert isinstance(self._graph, Graph)
            self._rounds = Rounds(self._graph, config.seed)
        self._rows = [Rows.of("model", config.swarm.bits, fleet.x_ND)]
        for name, bits in config.swarm.states():
            self._rows.append(Rows.of(name, bits, fleet.state_ND(name)))
        self.copy_ND, self.pending_ND = self._rows[0][3:]
        """Of the models; `x_ND` of the fleet are the live ones."""
        self._ids = list(range(config.nodes))
        self._past: list[VirtualNode] = []
        """Earlier lives of nodes that joined again."""
        self._lives: dict[int, int] = {}
        """The incarnation of each node that joined."""
        self._arriving: dict[int, Arrival] = {}
        """Nodes that have joined and have no model yet."""
        self._came: list[Arrival] = []
        self._over = False
        self._together = config.budget == "together"
        self._lock = threading.Lock()  # one for all: nobody waits for it in one thread
        fine = self._together  # the budget is all nodes': it must be exact at every step
        late = config.world.absent_at_start
        self._begin_alike = not late
        census = Census(config.nodes - len(late))
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
            census=census,
            stopped=self._stopped,
        )
        self._ways = Ways(
            self._agenda,
            self._network,
            self._stage.run,
            lambda rank: self._links.neighbours(rank),
            self._healed,
        )
        kernels.prepare()
        self.nodes = [self._make(rank, 0, absent=late) for rank in range(config.nodes)]
        for node in self.nodes:
            node.alive = node.rank not in late
        self._links = VirtualLinks(
            self._graph, self.nodes, self._agenda, self._network, census, census.live
        )

    def _make(self, rank: int, incarnation: int, absent: Set[int]) -> VirtualNode:
        machine = self._machine(rank, incarnation)
        for peer in absent & set(machine.membership.open) if absent else ():
            machine.membership.lost(peer)
        replica = Replica(
            [self._vector(rows, rank, incarnation) for rows in self._rows], self._lock
        )
        return VirtualNode(machine, replica, self._stage, self._ledger.recorder(rank))

    def _machine(self, rank: int, incarnation: int) -> Machine:
        neighbours = () if incarnation else self._neighbours(rank)  # a newcomer opens its links
        if self._rounds is not None:
            partner_of = self._rounds.partner_of(rank)
            return Matching(rank, neighbours, partner_of, incarnation=incarnation)
        pick = random_partner(stream("partners", self._config.seed, rank))
        return Node(rank, neighbours, pick, incarnation=incarnation)

    def _vector(self, rows: Rows, rank: int, incarnation: int) -> ExchangedVector:
        config = self._config
        code = make_code(
            self._fleet.dim,
            rows.bits,
            rotation=config.swarm.rotation,
            common_start=incarnation == 0 and self._begin_alike,
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
        for arrival in self._arriving.values():
            arrival.stop()
        for node in self.nodes:  # nobody starts an exchange any more
            while node.alive and node.endpoint.machine.held and self._agenda.step():
                pass
        self._settle_all()

    def live(self) -> list[int]:
        return [node.rank for node in self.nodes if node.alive]

    def _neighbours(self, rank: int) -> list[int]:
        """The neighbours; in a complete graph all nodes' lists hold the same number objects."""
        if isinstance(self._graph, Graph) and self._graph.stored_edges is None:
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
        for arrival in self._came:
            ledger.bytes_sent_N[arrival.rank] += arrival.traffic.bytes_sent
            ledger.bytes_received_N[arrival.rank] += arrival.traffic.bytes_received
        ledger.events = self._agenda.done
        traffics = [node.endpoint.traffic for node in self.nodes if node.alive]
        found = [gamma_of(self._graph, each.recent_sq, each.mixes) for each in traffics]
        known = [gamma for gamma in found if gamma is not None]
        ledger.gamma_estimate = sum(known) / len(known) if known else None

    # What happens.

    def _deliver(self, source: int, target: int, message: Bytes) -> None:
        arrival = self._arriving.get(target)
        (arrival or self.nodes[target]).received(source, message)

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
        arrival = self._arriving.pop(rank, None)
        if self._over or not (node.alive or arrival):
            return
        self._network.kill(rank)
        self._ledger.recorder(rank).write("event", what="killed", peer=rank, text="by the recipe")
        if arrival is not None:
            self._running -= 1
            arrival.stop()
            return
        node.advance(self._agenda.now)
        self._running -= not node.done
        node.stop()
        node.alive = False
        self._links.gone(rank, self._notice)
        for other in [a.rank for a in self._arriving.values() if a.asked == rank]:
            self._agenda.at(self._agenda.now + self._network.latency_s, self._notice, (other, rank))

    def _notice(self, who: tuple[int, int]) -> None:
        peer, dead = who
        self._links.count()
        self.nodes[peer].lost(dead)
        if peer in self._arriving:
            self._arriving[peer].lost(dead)

    def _join(self, rank: int) -> None:
        """A node is started: it asks a live neighbour for what it needs to take part."""
        if self.nodes[rank].alive or rank in self._arriving or self._over:
            return
        life = self._lives[rank] = self._lives.get(rank, 0) + 1
        self._network.revive(rank)
        self._running += 1
        self._ledger.recorder(rank).write("event", what="joined", peer=rank, text="by the recipe")
        fleet = self._fleet
        arrival = self._arriving[rank] = Arrival(
            rank,
            life,
            self._ways,
            vectors=len(self._rows),
            dim=fleet.dim,
            buffers=fleet.buffers_NB.shape[1],
        )
        self._came.append(arrival)
        arrival.begin()

    def _healed(self, arrival: Arrival) -> None:
        """It has a model: it takes its place among its neighbours."""
        rank = arrival.rank
        del self._arriving[rank]
        before = self.nodes[rank]
        self._past.append(before)
        self.nodes[rank] = node = self._make(rank, arrival.incarnation, absent=frozenset())
        place, progress = self._take_over(arrival, before)
        node.endpoint.progress.take_over(progress)
        if isinstance(node.endpoint.machine, Matching):
            node.endpoint.machine.begin_at(place.round)  # rounds go on where they are
        self._fleet.steps_N[rank] = place.steps  # its schedule goes on where they are
        self._speeds.begin_life(rank, arrival.incarnation)
        node.begin()
        self._links.came(rank)

    def _take_over(self, arrival: Arrival, before: VirtualNode) -> tuple[InSchedule, Total]:
        """Begin with what was given; without a live neighbour as the node was."""
        fleet, rank = self._fleet, arrival.rank
        fleet.states.reset(rank)
        for rows, vector in zip(self._rows, arrival.vectors, strict=True):
            rows.begin(rank, vector if arrival.of else None)
        write = self._ledger.recorder(rank).write
        if not arrival.of:
            write("event", what="healed", peer=rank, text="no neighbour lives: it is as it was")
            return before.place, before.endpoint.progress.now()
        fleet.buffers_NB[rank] = arrival.buffers
        of = ", ".join(map(str, arrival.of))
        write("event", what="healed", peer=arrival.of[-1], text=f"took over the model of node {of}")
        return arrival.place, arrival.healing.progress
