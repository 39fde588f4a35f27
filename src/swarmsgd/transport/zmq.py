"""The transport of a real run: links over ZeroMQ, all of a node over one port.

A link is one TCP connection, opened by either end. Who dials says in a HELLO which run it is of,
who it is and whom it wants; the other end answers WELCOME, or REFUSED and why. If two dial each
other, the connection that the lower rank dialled stays. Who leaves in order says GOODBYE behind its
last message and waits for a HEARD: the peer has read all. A connection that ends in another way is
a link that was lost.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from swarmsgd.errors import ConfigError, LinkClosed, PeerError
from swarmsgd.transport import lifetime
from swarmsgd.transport.base import IN_ORDER, Arrived, Buffer, LinkBackedUp, Lost, Opened
from swarmsgd.transport.descriptors import close_connections
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.link import QUEUED_BYTES, Link, check_message
from swarmsgd.transport.pool import BufferPool
from swarmsgd.transport.port import DATA, Full, NotConnected, Port, Received, port_of

LINK_VERSION = 3
"""Of how a link is opened and closed. Both ends must speak the same."""
_HELLO, _WELCOME, _REFUSED, _GOODBYE, _HEARD = b"H", b"W", b"R", b"G", b"A"
_SHORT = 4096
"""Bytes of a message that may wait behind others however long those are."""
_LOOK_S = 0.2


class ZmqTransport:
    """The links of node `rank`, which listens at `address`. See Transport. Without an address it is
    hidden: it only dials, and between two hidden nodes there is no link. With a `key` only who
    holds it too can have a link, and all is encrypted.

    `run` and where the others listen is told to `open`, or `run` set and `dial` called.
    """

    def __init__(
        self,
        rank: int,
        *,
        address: str | None,
        key: SwarmKey | None = None,
        max_message_bytes: int = 1 << 32,
        max_queued_bytes: int = QUEUED_BYTES,
        max_queued_messages: int = 1000,
    ) -> None:
        self.rank = rank
        self.run = ""
        """What all nodes of a run have alike, and no other run."""
        self._max_message_bytes = max_message_bytes
        self._max_queued = max_queued_bytes
        self._pool = BufferPool()
        self.take = self._pool.take
        self.give = self._pool.give
        self.tells_opened = False
        """Whether `poll` tells of links that open, or cannot be."""
        self.on_stranger: Callable[[str, str], None] = lambda who, why: None
        """Called, on the thread that polls, when somebody was refused who dialled; see Ended."""
        self._links: dict[int, Link] = {}
        self._by_id: dict[bytes, Link] = {}
        self._happened: deque[Arrived | Opened | Lost] = deque()
        """To be told before anything else."""
        self._ended: deque[tuple[Link, str]] = deque()
        """Connections that ended: to be told once all that came over them was read."""
        self._refused: dict[int, str] = {}
        """Whom we could not dial, and why."""
        self._turn = threading.Lock()
        """Held by who polls."""
        self._closed = False
        self._port = Port(
            address,
            key=key,
            message_bytes=max_message_bytes,
            queued_messages=max_queued_messages,
        )
        self.endpoint = self._port.endpoint
        """Where the others dial; "" if this node is hidden."""
        lifetime.begins(self)

    @property
    def peers(self) -> frozenset[int]:
        """Those whose link is open now."""
        return frozenset(p for p, link in list(self._links.items()) if link.is_open)

    # Opening links.

    def open(
        self,
        run: str,
        endpoints: Mapping[int, str],
        timeout_s: float,
        gone: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """Open the links to those who listen at `endpoints`; they must call this too.

        The lower rank dials, and a hidden one always (its endpoint is ""). `gone` is asked about
        who is missing, now and then. Raises PeerError naming who cannot be linked and why; the
        links to the others are open then.
        """
        self.run = run
        if self.rank in endpoints:
            raise ConfigError(f"node {self.rank} is not its own neighbour; leave it out")
        failed: dict[int, str] = {}
        kept: list[Arrived | Opened | Lost] = []
        give_up = time.monotonic() + timeout_s
        with self._turn:
            self._refuse_if_closed()
            for peer, endpoint in endpoints.items():
                if endpoint and (self.rank < peer or not self.endpoint):
                    self.dial(peer, endpoint)
            while True:
                self._refuse_if_closed()  # by another thread, when the interpreter ends
                if (event := self._next()) is not None:
                    kept.append(event)
                    continue
                missing = set(endpoints) - self.peers - failed.keys()
                late = time.monotonic() > give_up
                for peer in missing:
                    if peer in self._refused:
                        failed[peer] = self._refused.pop(peer)
                    elif gone(peer):
                        failed[peer] = "has ended"
                    elif late:
                        failed[peer] = f"did not appear within {timeout_s:.1f} s"
                if missing <= failed.keys():
                    break
                self._port.wait(_LOOK_S)
            self._happened.extendleft(reversed(kept))
            for peer in failed:
                self.drop(peer)
        if failed:
            raise PeerError(
                f"node {self.rank} has no link to {len(failed)} of {len(endpoints)} neighbours. "
                + ". ".join(f"Node {p} {failed[p]}" for p in sorted(failed)[:10])
            )

    def dial(self, peer: int, endpoint: str) -> None:
        """Begin to open the link to `peer`, if there is none. `peers` tells when it is open, and
        `refusal` if it cannot be. Raises ConfigError for no endpoint.
        """
        if peer in self._links:
            return
        self._refused.pop(peer, None)
        for former in [link for link in self._by_id.values() if link.endpoint == endpoint]:
            self._close(former)  # which parts; or hanging up one would hang up both
        link = Link(peer, self._port.dial(endpoint), endpoint)
        self._add(link)
        hello = {"version": LINK_VERSION, "run": self.run, "from": self.rank, "to": peer}
        self._say(link.id, _HELLO, json.dumps(hello).encode())

    def refusal(self, peer: int) -> str | None:
        """Why `peer` could not be dialled, if so."""
        return self._refused.get(peer)

    def _add(self, link: Link) -> None:
        self._links[link.peer] = self._by_id[link.id] = link

    def _forget(self, link: Link) -> None:
        self._by_id.pop(link.id, None)
        if self._links.get(link.peer) is link:
            del self._links[link.peer]

    def _say(self, to: bytes, kind: bytes, body: bytes = b"") -> None:
        with contextlib.suppress(
            Full, NotConnected
        ):  # it ended, which is seen later; or it never reads
            self._port.send(to, kind, body)

    def _greeted(self, got: Received) -> None:
        """Somebody dialled us."""
        try:
            hello = json.loads(bytes(got.body[:_SHORT]))
            theirs = [hello[name] for name in ("version", "run", "to")]
            sender = int(hello["from"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self._port.hang_up(got.fd)
            return
        ours = [LINK_VERSION, self.run, self.rank]
        for what, wanted, has in zip(("link version", "run", "node"), ours, theirs, strict=True):
            if wanted != has:
                why = f"refuses this node: it is {what} {wanted}, wanted was {has}"
                self._say(got.id, _REFUSED, why.encode())
                return
        self._settle()  # a link that ended before must not be in the way
        for link, reason in self._ended:
            if link.peer == sender:
                self._lose(link, reason)
        before = self._links.get(sender)
        if before is not None and before.endpoint and not before.is_open and sender < self.rank:
            self._close(before)  # they dialled us and we them: theirs stays
        elif (before is not None and before.is_open) or sender == self.rank:
            why = f"refuses this node: it has a link to node {sender} already"
            self._say(got.id, _REFUSED, why.encode())
            return
        elif before is not None:
            if self.tells_opened:  # or if they cannot: then they shall ask again
                self._say(got.id, _REFUSED, f"is dialled by node {self.rank} itself".encode())
            return  # ours stays: they will see it
        link = Link(sender, got.id, None)
        link.opened(got.fd)
        self._add(link)
        self._say(got.id, _WELCOME)
        self._tell(Opened(sender, "accepted"))

    # Messages.

    def send(self, peer: int, message: Buffer) -> None:
        """Queue one message: see Transport."""
        link = self._links.get(peer)
        if link is None or not link.is_open or self._closed:
            raise LinkClosed(
                f"node {self.rank} has no link to node {peer}, only to {sorted(self.peers)}"
            )
        check_message(peer, message, self._max_message_bytes)
        self._sweep(link)
        waiting = link.waiting_bytes() if link.waiting else 0
        # One message may always wait, however long it is, and behind it short ones.
        try:
            if waiting and len(message) > _SHORT and waiting + len(message) > self._max_queued:
                raise Full
            tracker = self._port.send(link.id, DATA, message)
        except Full:
            raise LinkBackedUp(
                f"node {peer} takes nothing in: {waiting} bytes and more wait for it. Send to "
                "others until it does, or drop it"
            ) from None
        except NotConnected:
            raise LinkClosed(f"the link to node {peer} has ended; other links go on") from None
        if tracker.done:
            self.give(message)
        else:
            link.waiting.append((tracker, message))

    def _sweep(self, link: Link) -> None:
        """Give back what was sent."""
        while link.waiting and link.waiting[0][0].done:
            self.give(link.waiting.popleft()[1])

    def poll(self, timeout_s: float | None) -> Arrived | Opened | Lost | None:
        """The next thing that happened: see Transport."""
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        with self._turn:
            while True:
                self._refuse_if_closed()
                if self._happened or self._ended:
                    return self._next()
                left_s = None if give_up is None else max(0.0, give_up - time.monotonic())
                woken = self._port.wait(left_s)
                event = self._next()
                if event is not None or woken or left_s == 0.0:
                    return event

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LinkClosed(f"the transport of node {self.rank} is closed; make a new one")

    def wake(self) -> None:
        """End a `poll`: see Transport."""
        self._port.wake()

    def _next(self) -> Arrived | Opened | Lost | None:
        for link in self._links.values():
            self._sweep(link)
        self._settle()
        while not self._happened and (got := self._port.receive()) is not None:
            self._take_in(got)
        if not self._happened:
            while self._ended:
                self._lose(*self._ended.popleft())
        return self._happened.popleft() if self._happened else None

    def _settle(self) -> None:
        """Find the links of connections that ended."""
        for ended in self._port.ended():
            fd, endpoint, reason, stranger = ended
            if stranger is not None:
                self.on_stranger(stranger, self._port.wants)
            for link in self._by_id.values():
                if link.endpoint == endpoint or (link.endpoint is None and link.fd == fd):
                    if link.endpoint is None:
                        link.fd = None  # closed, and perhaps another's by now
                    self._ended.append((link, reason))

    def _lose(self, link: Link, reason: str) -> None:
        if self._links.get(link.peer) is not link:
            self._by_id.pop(link.id, None)
            return  # told already, or our own doing
        if link.is_open:
            self._happened.append(Lost(link.peer, reason))
        else:
            self._refuse(link.peer, f"could not be reached at {link.endpoint}: {reason}")
        self._close(link)

    def _refuse(self, peer: int, reason: str) -> None:
        self._refused[peer] = reason
        self._tell(Lost(peer, reason))

    def _tell(self, event: Opened | Lost) -> None:
        if self.tells_opened:
            self._happened.append(event)

    def _take_in(self, got: Received) -> None:
        link = self._by_id.get(got.id)
        match got.kind:
            case b"M" if link is not None and link.is_open:
                self._happened.append(Arrived(link.peer, self._pool.received(got.body)))
            case b"H" if link is None:
                self._greeted(got)
            case b"W" if link is not None and not link.is_open:
                link.opened(got.fd)
                self._tell(Opened(link.peer, "dialled"))
            case b"R" if link is not None and not link.is_open:
                self._refuse(link.peer, bytes(got.body[:_SHORT]).decode(errors="replace"))
                self._close(link)
            case b"G" if link is not None and link.is_open:
                self._say(link.id, _HEARD)
                self._forget(link)  # the peer hangs up once it has that
                self._happened.append(Lost(link.peer, IN_ORDER))
            case b"G" if link is not None and link.parting:
                self._close(link)  # both part at once, and neither reads on
            case b"A" if link is not None:
                link.heard = True
                if link.parting:
                    self._close(link)
            case _:
                pass  # a stranger, or what a peer still sent that was dropped

    # Ending links.

    def drop(self, peer: int) -> None:
        """Close the link to one peer at once: see Transport."""
        link = self._links.get(peer)
        if link is not None:
            self._close(link)

    def part(self, peer: int) -> None:
        """Close the link to one peer once it has read all that was sent to it."""
        link = self._links.pop(peer, None)
        if link is None or not link.is_open:
            return
        self._say(link.id, _GOODBYE)
        link.is_open, link.parting = False, True

    def _close(self, link: Link) -> None:
        self._forget(link)
        if link.endpoint is not None:
            self._port.undial(link.endpoint)
        elif link.fd is not None:
            self._port.hang_up(link.fd)

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links: see Transport."""
        if self._closed:
            return
        self._closed = True  # ends another thread's poll
        self._port.wake()
        with self._turn:
            if drain_s > 0:
                self._part(drain_s)
            self._links.clear()
            self._port.close()
            lifetime.ends(self)

    def _part(self, drain_s: float) -> None:
        """Say goodbye behind all that was queued, and wait until the peers have heard it."""
        for link in self._links.values():
            self._say(link.id, _GOODBYE)
        give_up = time.monotonic() + drain_s
        while True:
            while self._next() is not None:  # what is told last is that a connection ended
                pass
            unheard = any(link.is_open and not link.heard for link in self._links.values())
            left_s = give_up - time.monotonic()
            if not unheard or left_s <= 0:
                return
            self._port.wait(left_s)

    def abandon(self) -> None:
        """In a forked child: the links are the parent's; hold nothing of them."""
        ports = {
            link.fd: port_of(link.endpoint or self.endpoint)
            for link in self._links.values()
            if link.fd is not None
        }
        close_connections(ports)
        self._closed = True
        self._links.clear()
        self._turn = threading.Lock()
