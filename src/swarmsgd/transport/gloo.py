"""The transport of a real run: every edge its own two-rank Gloo group, all over one Gloo device.

Nothing here needs or touches `torch.distributed.init_process_group`. What was learned about Gloo,
and is relied on (torch 2.6 to 2.13):

* `abort()` and `shutdown()` do not end a `wait()`. A receive that times out does: it breaks the
  group at both ends. That is how a link is closed, and why no other receive has a timeout.
* A break does not wake who waits for a message that is half done: see `GlooChannel`.
* A connect that times out leaves a callback to freed memory behind, which a late connection then
  runs. So Gloo is only asked to connect what is known to be there and to be reachable.
* Every connection to a device's port that is not a link's costs a descriptor for as long as the
  device lives, and the process aborts when they run out. So the port is deaf when no link is due.
* A forked child holds copies of the sockets, and with them the links of a dead parent open.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

from swarmsgd.errors import ConfigError, LinkClosed, PeerError
from swarmsgd.transport.base import Buffer, OnLost, OnMessage
from swarmsgd.transport.group import GlooChannel, Port, make_group, open_group, torch_said
from swarmsgd.transport.link import Limits, Link
from swarmsgd.transport.meeting import Meeting, MeetingPlace, NotMet, store_opener
from swarmsgd.transport.pool import BufferPool
from swarmsgd.transport.sockets import SocketAddress, descriptors, route_address

__all__ = ["GlooTransport", "open_group", "route_address"]

_LEAST_S, _MOST_S = 10.0, 60.0
"""How long to wait for a peer that was there and reachable: it may be slow, or have died since."""
_JOIN_S = 10.0

_log = logging.getLogger("swarmsgd")


class GlooTransport:
    """Links of node `rank` to its `neighbours`, who are met in a store.

    `store` opens a client of the store, each call a new one (a client serialises its callers); a
    store that can be cloned will do. `address` is where others reach this machine, usually
    `route_address(store_host, store_port)`. All nodes must use the same `prefix`, fresh for a run.

    Nothing is opened before `connect`, which `start` calls if nobody did. A link that is lost can
    be opened again by `connect`, at both ends, under a new tag.
    """

    def __init__(
        self,
        rank: int,
        neighbours: Iterable[int],
        store: Store | Callable[[], Store],
        *,
        address: str,
        prefix: str = "swarmsgd",
        connect_timeout_s: float = 300.0,
        max_message_bytes: int = Limits().message_bytes,
        max_queued_bytes: int = Limits().queued_bytes,
        max_queued_messages: int = Limits().queued_messages,
        pool: BufferPool | None = None,
    ) -> None:
        self.rank = rank
        self.neighbours = tuple(sorted(set(neighbours)))
        if rank in self.neighbours:
            raise ConfigError(f"node {rank} is not its own neighbour; leave it out of {neighbours}")
        self._open_store = store_opener(store)
        self._address = address
        self._prefix = prefix
        self._connect_timeout_s = connect_timeout_s
        self._limits = Limits(max_message_bytes, max_queued_bytes, max_queued_messages)
        self._pool = pool or BufferPool()
        self.take = self._pool.take
        self.give = self._pool.give
        self._links: dict[int, Link] = {}
        self._remote: dict[int, SocketAddress] = {}
        self._port: Port | None = None
        self._callbacks: tuple[OnMessage, OnLost] | None = None
        self._connected = False
        self._closed = False
        self._stop = threading.Event()
        self._connecting = threading.Lock()
        self._changing = threading.Lock()
        """Guards links, callbacks and whether we are closed; not held while anything blocks."""

    @property
    def peers(self) -> frozenset[int]:
        """The neighbours whose link is open now."""
        return frozenset(peer for peer, link in list(self._links.items()) if link.is_open)

    def connect(
        self,
        peers: Collection[int] | None = None,
        *,
        tag: str = "",
        timeout_s: float | None = None,
    ) -> None:
        """Open the links to `peers` (all neighbours, if not said) that are not open.

        Both ends must call this with one `tag`, which an edge uses once: a link to a node that
        came back needs a new one. Raises PeerError naming who did not appear within `timeout_s`;
        the links to the others are open then, and can be used or closed.
        """
        timeout_s = self._connect_timeout_s if timeout_s is None else timeout_s
        if self.rank in (peers or ()):
            raise ConfigError(f"node {self.rank} is not its own neighbour; leave it out of peers")
        with self._connecting:
            if self._closed:
                raise LinkClosed(f"the transport of node {self.rank} is closed; make a new one")
            self._connected = True
            wanted = sorted(set(self.neighbours if peers is None else peers) - self.peers)
            failed = self._open(wanted, tag, timeout_s) if wanted else {}
        if failed:
            raise PeerError(
                f"node {self.rank} has no link to {len(failed)} of {len(wanted)} neighbours. "
                + ". ".join(f"Node {p} {failed[p]}" for p in sorted(failed)[:10])
            )

    def _open(self, peers: list[int], tag: str, timeout_s: float) -> dict[int, str]:
        for old in [self._links[peer] for peer in peers if peer in self._links]:
            old.join(_JOIN_S)  # its last callback comes before the first of the new link
        _live.add(self)
        give_up = time.monotonic() + timeout_s
        port = self._port = self._port or Port(self._address)

        def open_link(met: Meeting) -> None:
            try:
                side = int(self.rank > met.peer)
                patience_s = min(max(give_up - time.monotonic(), _LEAST_S), _MOST_S)
                patience = timedelta(seconds=patience_s)
                group = make_group(met.key, met.store, side, 2, port.device, patience, threads=0)
            except RuntimeError as error:
                raise NotMet(
                    f"was there, but the link to it could not be opened: {torch_said(error)}. "
                    "Start it again, or go on without it"
                ) from None
            self._remote[met.peer] = (met.card.address, met.card.port)
            self._add(Link(met.peer, GlooChannel(group, 1 - side), self._pool, self._limits))

        place = MeetingPlace(
            self.rank,
            self._open_store,
            self._address,
            port.endpoint[1],
            self._prefix,
            tag,
            self._stop,
        )
        with port.listening():
            failed = place.meet(peers, open_link, timeout_s)
        for fd in self._descriptors():
            os.set_inheritable(fd, False)  # or a program that the user starts holds links open
        return failed

    def _descriptors(self) -> list[int]:
        if self._port is None or not self._port.endpoint[1]:
            return []
        return descriptors({self._port.endpoint}, set(self._remote.values()))

    def _add(self, link: Link) -> None:
        with self._changing:
            closed = self._closed
            if not closed:
                self._links[link.peer] = link
                if self._callbacks:
                    link.start(*self._callbacks)
        if closed:
            link.close()

    def start(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """Begin to deliver: see Transport. Raises PeerError as `connect` does, if not connected."""
        if not self._connected:
            self.connect()
        with self._changing:
            self._callbacks = (on_message, on_lost)
            for link in self._links.values():
                link.start(on_message, on_lost)

    def send(self, peer: int, message: Buffer) -> None:
        """Queue one message: see Transport."""
        link = self._links.get(peer)
        if link is None:
            raise LinkClosed(
                f"node {self.rank} has no link to node {peer}, only to {sorted(self.peers)}"
            )
        link.send(message)

    def drop(self, peer: int) -> None:
        """Close the link to one peer at once: see Transport. Takes up to 30 ms."""
        link = self._links.get(peer)
        if link is not None:
            link.close()

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links: see Transport."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
        self._stop.set()
        give_up = time.monotonic() + drain_s
        links = list(self._links.values())
        if drain_s > 0:
            for link in links:
                link.finish()
            for link in links:
                link.wait_closed(max(0.0, give_up - time.monotonic()))
        for link in links:
            link.close()
        stuck = [link.peer for link in links if not link.join(_JOIN_S)]
        if stuck:
            _log.warning("node %d closed, but a callback of node %s does not end", self.rank, stuck)
        with self._connecting:
            if self._port is not None:
                self._port.sweep()
            self._port = None
        _live.discard(self)

    def _abandon(self) -> None:
        """In a forked child: the links are the parent's; hold nothing of them."""
        for fd in self._descriptors():
            os.close(fd)
        self._closed = True
        for link in self._links.values():
            link.abandon()
            if isinstance(link.channel, GlooChannel):
                link.channel.leak()
        if self._port is not None:
            self._port.leak()


_live: set[GlooTransport] = set()
"""Transports with native threads, which must end before the interpreter does."""


@atexit.register
def _close_all() -> None:
    for transport in list(_live):
        transport.close()


def _abandon_all() -> None:
    for transport in list(_live):
        transport._abandon()
    _live.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)
