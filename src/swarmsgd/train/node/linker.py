"""The links of a node whose neighbours come and go: dialled, tried again, closed when not wanted.

It lives on the exchange thread, between the meeting place's news, the transport and the endpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from swarmsgd.core.endpoint import Endpoint
from swarmsgd.core.links import WantedLinks
from swarmsgd.errors import ConfigError

Neighbours = Callable[[Iterable[int], Collection[int]], Iterable[int]]
"""Of the ids of all live nodes but this one, and of those (this one, too) that are hidden: to whom
this node shall have links. To none between two hidden ones.
"""


class Dials(Protocol):
    """What of a transport opens and closes single links."""

    tells_opened: bool
    endpoint: str

    @property
    def peers(self) -> frozenset[int]:
        """Those whose link is open now."""
        ...

    def dial(self, peer: int, endpoint: str) -> None:
        """Begin to open a link."""
        ...

    def part(self, peer: int) -> None:
        """Close one in order."""
        ...

    def drop(self, peer: int) -> None:
        """Close one at once."""
        ...


class Linker:
    """Sees to it that there are links to `neighbours` of those that live.

    Whoever lives is told by `joined` and `gone`; the links by `opened` and `lost`. `ticks` is
    called after each of them and when `deadline` is over.
    """

    def __init__(self, rank: int, transport: Dials, neighbours: Neighbours) -> None:
        self.live: dict[int, tuple[int, str]] = {}
        """The other nodes that live: incarnation, and where they listen ("": nowhere)."""
        self._rank = rank
        self._links = WantedLinks(rank, listens=bool(transport.endpoint))
        self._transport = transport
        self._neighbours = neighbours
        transport.tells_opened = True

    @property
    def deadline(self) -> float:
        """When to call `tick` at the latest."""
        return self._links.deadline

    def start(self, live: Mapping[int, tuple[int, str]], endpoint: Endpoint, now: float) -> None:
        """These live, and some links to them may be open."""
        self.live = dict(live) | self.live  # news may have come first
        self._want(now)
        for peer in self._transport.peers:
            self.opened(peer, endpoint, now)

    def joined(
        self, peer: int, incarnation: int, address: str, endpoint: Endpoint, now: float
    ) -> None:
        """A node is live (again), in this life of its."""
        known = self.live.get(peer)
        if known is not None and known[0] > incarnation:
            return
        self.live[peer] = incarnation, address
        endpoint.machine.membership.lives(peer, incarnation)
        if peer in self._transport.peers:
            endpoint.opened(peer, incarnation)
        else:
            self._links.lost(peer, now)
        self._want(now)
        self._links.fresh(peer, now)

    def visit(self, peer: int, address: str) -> None:
        """A node without a model wants parts of this one's, and cannot dial it."""
        with contextlib.suppress(ConfigError):  # what it told is no address
            self._transport.dial(peer, address)

    def gone(self, peer: int, incarnation: int, now: float) -> None:
        """A node has left or is dead."""
        known = self.live.get(peer)
        if known is not None and known[0] <= incarnation:
            del self.live[peer]
            self._want(now)

    def opened(self, peer: int, endpoint: Endpoint, now: float) -> None:
        """There is a link, whoever dialled. Who is not live yet only asks for parts."""
        self._links.opened(peer, now)
        if peer in self.live:
            endpoint.opened(peer, self.live[peer][0])

    def lost(self, peer: int, now: float) -> None:
        """There is none any more, or could not be one."""
        self._links.lost(peer, now)

    def tick(self, endpoint: Endpoint, now: float) -> None:
        """Dial and close what it is time for."""
        for peer in self._links.due(now):
            if peer in self._transport.peers:
                self._links.opened(peer, now)
                continue
            address = self.live[peer][1]
            if not address:  # it dials us
                continue
            try:
                self._transport.dial(peer, address)
            except ConfigError:  # what it told is no address
                self._links.lost(peer, now)
        for peer in self._links.surplus(now):
            visits = peer in self._transport.peers and peer not in endpoint.machine.membership.open
            if visits or endpoint.waits_for(peer):
                self._links.keep(peer, now)
            else:
                end = self._transport.drop if endpoint.owes(peer) else self._transport.part
                endpoint.unlinked(peer, now)
                end(peer)
                self._links.lost(peer, now)

    def _want(self, now: float) -> None:
        hidden = {peer for peer, (_, address) in self.live.items() if not address}
        if not self._transport.endpoint:
            hidden.add(self._rank)
        self._links.want(self._neighbours(self.live, hidden), now)
