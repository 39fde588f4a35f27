"""Which virtual nodes have links to each other, while nodes come and go.

News of who lives takes one latency. A graph of a fixed list has links between those of its nodes
that live. `cycles` in a run with deaths and arrivals is the graph over those that live, one for all
nodes; a link that it has no more is kept for a while and closed when no exchange is under way on
it, as in a real run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarmsgd.core.links import KEEP_S
from swarmsgd.graphs import Graph
from swarmsgd.graphs.changing import Cycles
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.swarm.virtual_node import Census, VirtualNode

if TYPE_CHECKING:
    from swarmsgd.sim.command.config import SimConfig

Notice = Callable[[tuple[int, int]], None]
"""Told (peer, dead): the peer's link to a node that died breaks."""


@dataclass(slots=True)
class VirtualLinks:
    """`graph` is over a fixed list, `Cycles` over those that live. `nodes` is the engine's."""

    graph: Graph | Cycles
    nodes: list[VirtualNode]
    agenda: Agenda
    network: Network
    census: Census
    num_live: int

    def neighbours(self, rank: int) -> list[int]:
        """Of a node's neighbours those that live."""
        return [peer for peer in self.graph.neighbours(rank) if self.nodes[peer].alive]

    def came(self, rank: int) -> None:
        """A node lives now, and has no links yet."""
        self.num_live += 1
        beside: Iterable[int] = ()
        if isinstance(self.graph, Cycles):
            self.graph.add(rank)
            beside = self.graph.neighbours(rank)
        self._soon(self._relink, (rank, *beside))

    def gone(self, rank: int, notice: Notice) -> None:
        """A node has died. `notice` is called for each peer that had a link to it."""
        self.num_live -= 1
        if not isinstance(self.graph, Cycles):
            self._soon(notice, [(peer, rank) for peer in self.graph.neighbours(rank)])
            return
        peers = self.nodes[rank].endpoint.machine.membership.open
        beside = self.graph.neighbours(rank)
        self.graph.remove(rank)
        self._soon(notice, [(peer, rank) for peer in peers])
        self._soon(self._relink, beside)

    def count(self) -> None:
        """News has come round: all know how many live."""
        self.census.live = self.num_live

    def _soon(self, call: Callable[..., None], arguments: Sequence[object]) -> None:
        for argument in arguments:
            self.agenda.at(self.agenda.now + self.network.latency_s, call, argument)

    def _relink(self, rank: int) -> None:
        """Open what links `rank` shall have, and see to those that it shall have no more."""
        self.count()
        node = self.nodes[rank]
        if not node.alive:
            return
        wanted = self.neighbours(rank)
        before = node.endpoint.machine.membership.open
        for peer in wanted:
            if peer not in before:
                self._open(rank, peer)
                self._open(peer, rank)
        for peer in sorted(set(before).difference(wanted)):
            self.agenda.at(self.agenda.now + KEEP_S, self._close, (rank, peer))

    def _open(self, rank: int, peer: int) -> None:
        self.nodes[rank].endpoint.opened(peer, self.nodes[peer].endpoint.machine.incarnation)

    def _close(self, link: tuple[int, int]) -> None:
        """If it is still wanted by nobody; later, if an exchange is under way."""
        one, other = (self.nodes[rank] for rank in link)
        is_open = other.rank in one.endpoint.machine.membership.open
        if not (one.alive and other.alive and is_open) or link[1] in self.neighbours(link[0]):
            return
        if one.endpoint.waits_for(other.rank) or other.endpoint.waits_for(one.rank):
            self.agenda.at(self.agenda.now + KEEP_S, self._close, link)
            return
        one.endpoint.unlinked(other.rank, self.agenda.now)
        other.endpoint.unlinked(one.rank, self.agenda.now)
        self.network.close(*link)


def graph_of(config: SimConfig) -> Graph | Cycles:
    """Cycles over those that live, where nodes come and go; else the run's graph of all nodes."""
    graph, world = config.swarm.graph_of(config.nodes), config.world
    comes_and_goes = any(h.what != "cut" for h in world.happenings)
    name, _, degree = config.swarm.graph_name.partition(":")
    if name != "cycles" or not comes_and_goes or config.swarm.mode == "matching":
        return graph
    live = set(range(config.nodes)) - world.absent_at_start
    return Cycles(int(degree), config.swarm.seed, live)
