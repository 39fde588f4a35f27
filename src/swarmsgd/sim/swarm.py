"""SwarmSGD in virtual time: n nodes of the real machine, code and messages on one agenda."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

import numpy as np

from swarmsgd import graphs
from swarmsgd.codec import kernels, make_code
from swarmsgd.core import messages
from swarmsgd.core.code import Bytes
from swarmsgd.core.node import Node
from swarmsgd.graphs import random_partner
from swarmsgd.settings.swarm import LocalSteps
from swarmsgd.sim.agenda import Agenda
from swarmsgd.sim.network import Network
from swarmsgd.sim.speeds import Speeds
from swarmsgd.sim.virtual_node import Vectors, VirtualNode

if TYPE_CHECKING:
    from swarmsgd.sim.fleet import Fleet, Vector
    from swarmsgd.sim.ledger import Ledger

UNBOUNDED = 1 << 62


class Swarm:
    """The engine; see `swarmsgd.sim.algorithms.Algorithm`."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        config = fleet.config
        self._fleet = fleet
        self._ledger = ledger
        self._config = config
        self._graph = config.swarm.graph_of(config.nodes)
        self._agenda = ledger.clock = Agenda()
        self._network = Network(config.world, self._agenda, self._deliver)
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        self._lengths = LocalSteps.parse(config.swarm.local_steps)
        self._matchings = _Matchings(self._graph, config.seed)
        self._run = messages.fingerprint({"seed": config.seed, "nodes": config.nodes})
        self.copy_ND = fleet.x_ND.copy()
        self.pending_ND = np.zeros_like(fleet.x_ND)
        self._ids = list(range(config.nodes))
        self._past: list[VirtualNode] = []
        """Earlier lives of nodes that joined again."""
        self._over = False
        self._together = config.budget == "together"
        fine = self._together  # the budget is all nodes': it must be exact at every step
        self._pace = 1 if fine else max(1, fleet.total_steps // (4 * config.evals))
        kernels.prepare()
        late = config.world.absent_at_start
        self.nodes = [self._make(rank, 0, absent=late) for rank in range(config.nodes)]
        for node in self.nodes:
            node.alive = node.rank not in late

    def _make(self, rank: int, incarnation: int, absent: Set[int]) -> VirtualNode:
        config = self._config
        node = Node(
            rank,
            self._neighbours(rank),
            incarnation=incarnation,
            matching=config.swarm.mode == "matching",
        )
        for peer in absent & set(node.membership.open) if absent else ():
            node.membership.lost(peer)
        vectors = Vectors(
            self._fleet.x_ND[rank],
            self.copy_ND[rank],
            self.pending_ND[rank],
            make_code(
                self._fleet.dim,
                config.swarm.bits,
                rotation=config.swarm.rotation,
                common_start=incarnation == 0 and not config.world.absent_at_start,
            ),
        )
        matching = config.swarm.mode == "matching"
        return VirtualNode(
            node,
            vectors,
            mode=config.swarm.mode,
            run=self._run,
            bits=config.swarm.bits,
            lengths=self._lengths,
            seed=config.seed,
            pick=self._matchings.pick(rank) if matching else random_partner(config.seed, rank),
            budget=UNBOUNDED if self._together else self._fleet.total_steps,
            pace=self._pace,
            fleet=self._fleet,
            speeds=self._speeds,
            agenda=self._agenda,
            network=self._network,
            recorder=self._ledger.recorder(rank),
            stopped=self._stopped,
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
            while node.alive and node.endpoint.node.held and self._agenda.step():
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
            ledger.lost_N[rank] += node.endpoint.node.counts.lost
        ledger.events = self._agenda.done

    # What happens.

    def _deliver(self, source: int, target: int, message: Bytes) -> None:
        self.nodes[target].received(source, message)

    def _stopped(self, _node: VirtualNode) -> None:
        self._running -= 1

    def _settle_all(self) -> None:
        """The end: steps that are over are made, x += p; nobody computes any more."""
        for node in self.nodes:
            if node.alive:
                if not self._together:
                    node.advance(self._agenda.now)
                node.vectors.apply()
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
        incarnation = before.endpoint.node.incarnation + 1
        self._past.append(before)
        self.nodes[rank] = node = self._make(rank, incarnation, absent=dead)
        self._heal(node, self.nodes[neighbours[0]] if neighbours else before)
        self._network.revive(rank)
        self._speeds.begin_life(rank, incarnation)
        for peer in neighbours:
            self.nodes[peer].lost(rank)  # if the news of its death has not come yet
            self.nodes[peer].endpoint.node.membership.joined(rank)
        self._ledger.recorder(rank).write("event", what="joined", peer=rank, text="by the recipe")
        self._running += 1
        node.begin()

    def _heal(self, node: VirtualNode, other: VirtualNode) -> None:
        """Begin as `other` is now: a neighbour, or without one this node as it was."""
        other.advance(self._agenda.now)
        node.bursts = other.bursts  # rounds go on where they are
        fleet, rank = self._fleet, node.rank
        fleet.x_ND[rank] = fleet.x_ND[other.rank] + self.pending_ND[other.rank]
        fleet.v_ND[rank] = 0
        fleet.buffers_NB[rank] = fleet.buffers_NB[other.rank]
        fleet.steps_N[rank] = fleet.steps_N[other.rank]  # its schedule goes on where they are
        self.copy_ND[rank] = fleet.x_ND[rank]
        self.pending_ND[rank] = 0


class _Matchings:
    """The matching of a round, drawn once for all nodes."""

    def __init__(self, graph: graphs.Graph, seed: int) -> None:
        self._graph = graph
        self._seed = seed
        self._rounds: dict[int, dict[int, int]] = {}

    def pick(self, rank: int) -> graphs.Pick:
        return lambda burst, _candidates: self._partners(burst).get(rank)

    def _partners(self, round: int) -> dict[int, int]:
        found = self._rounds.get(round)
        if found is None:
            pairs = graphs.matching_schedule(self._graph, self._seed, round)
            found = {i: j for pair in pairs for i, j in (pair, pair[::-1])}
            self._rounds[round] = found
            self._rounds.pop(round - 64, None)
        return found
