"""A network inside one process, with loss, delay, reordering, death and silence at will.

One implementation runs in two ways. Stepped: nothing happens until `step` delivers the next due
message, on the caller's thread and in virtual time, so a seed decides everything. Threaded: one
thread a link end delivers in real time, as a real transport does.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from swarmsgd.errors import ConfigError, LinkClosed
from swarmsgd.graphs import Edge
from swarmsgd.transport.base import Arrived, Buffer, LinkBackedUp, Lost
from swarmsgd.transport.pool import BufferPool


@dataclass(slots=True)
class _Wire:
    """What is on its way from one node to another: (due, number, message or reason of a loss)."""

    items: list[tuple[float, int, Buffer | str]] = field(default_factory=list)
    latest: float = 0.0


class MemoryNetwork:
    """`num_nodes` nodes, linked along `edges` (all pairs, if not said).

    Each message takes a delay drawn uniformly from `delay_s` and is lost with probability `loss`,
    both drawn from `rng`. Messages of one link keep their order unless `reorder`. A link takes up
    to `max_queued_messages` that are not delivered.

    >>> network = MemoryNetwork(2)
    >>> a, b = network.transport(0), network.transport(1)
    >>> message = a.take(2)
    >>> message[:] = b"hi"[0], b"hi"[1]
    >>> a.send(1, message)
    >>> network.step()
    True
    >>> peer, message = b.poll(0.0)
    >>> peer, bytes(message)
    (0, b'hi')
    """

    def __init__(
        self,
        num_nodes: int,
        edges: Iterable[Edge] | None = None,
        rng: np.random.Generator | None = None,
        *,
        loss: float = 0.0,
        delay_s: tuple[float, float] = (0.0, 0.0),
        reorder: bool = False,
        threaded: bool = False,
        max_queued_messages: int = 4096,
    ) -> None:
        if rng is None and (loss or delay_s[1]):
            raise ConfigError("loss and delay are random: pass rng, a numpy Generator")
        self.num_nodes = num_nodes
        self.threaded = threaded
        self._rng = rng
        self._loss = loss
        self._delay_s = delay_s
        self._reorder = reorder
        self._max_queued = max_queued_messages
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._now = 0.0
        self._silent: set[int] = set()
        pairs = itertools.combinations(range(num_nodes), 2) if edges is None else edges
        self._open = {end for i, j in pairs for end in ((i, j), (j, i))}
        """(i, j): node i's end of the link to j is open."""
        self._wires = {end: _Wire() for end in self._open}
        self._transports = [MemoryTransport(self, rank) for rank in range(num_nodes)]

    def transport(self, rank: int) -> MemoryTransport:
        """Node `rank`'s end of the network."""
        return self._transports[rank]

    @property
    def now(self) -> float:
        """The time in seconds: virtual if stepped, the monotonic clock if threaded."""
        return time.monotonic() if self.threaded else self._now

    # Faults.

    def kill(self, rank: int) -> None:
        """End node `rank` as a crash would: what it sent is lost, its neighbours notice."""
        with self._changed:
            self._transports[rank]._closed = True
            for peer in self._peers(rank):
                self._hang_up(rank, peer, f"node {rank} died", lose=True)

    def cut(self, i: int, j: int) -> None:
        """Break the link between two nodes; both notice."""
        with self._changed:
            for a, b in ((i, j), (j, i)):
                if (a, b) in self._open:
                    self._clear(a, b)
                    self._put(b, a, "the link broke", lose=True)

    def stop(self, rank: int) -> None:
        """Make node `rank` silent: nothing reaches it or leaves it until `resume`; links stay."""
        with self._changed:
            self._silent.add(rank)

    def resume(self, rank: int) -> None:
        """End the silence of node `rank`; what was held is delivered."""
        with self._changed:
            self._silent.discard(rank)
            self._changed.notify_all()

    # Stepped delivery.

    def step(self) -> bool:
        """Deliver the next due message or loss; False if there is none that can be delivered."""
        with self._changed:
            due = [
                (wire.items[0], end) for end, wire in self._wires.items() if self._can_deliver(*end)
            ]
            if not due:
                return False
            (at, _, _), (source, target) = min(due, key=lambda entry: entry[0][:2])
            self._now = max(self._now, at)
            self._transports[target]._keep(source, self._pop(source, target))
        return True

    def settle(self, max_steps: int = 1_000_000) -> int:
        """Step until nothing is left to deliver; returns how many steps that took."""
        for steps in range(max_steps):
            if not self.step():
                return steps
        raise RuntimeError(
            f"still not settled after {max_steps} steps: do nodes answer each other?"
        )

    # Both. Called with the lock held, if nothing else is said.

    def _peers(self, rank: int) -> list[int]:
        return sorted(j for i, j in self._open if i == rank)

    def _can_deliver(self, source: int, target: int) -> bool:
        return bool(self._wires[source, target].items) and not self._silent & {source, target}

    def _send(self, source: int, target: int, message: Buffer) -> None:
        """Put a copy on the wire. Raises LinkClosed, LinkBackedUp. Called without the lock."""
        receiver = self._transports[target] if (target, source) in self._open else None
        copy = None
        if receiver is not None:
            copy = receiver.take(len(message))
            copy[:] = message
        with self._changed:
            if (source, target) not in self._open or self._transports[source]._draining:
                raise LinkClosed(
                    f"node {source} has no open link to node {target}, only to "
                    f"{self._peers(source)}"
                )
            waiting = len(self._wires[source, target].items)
            if waiting >= self._max_queued:
                raise LinkBackedUp(
                    f"node {target} takes nothing in: {waiting} messages wait for it, at most "
                    f"{self._max_queued} may. Send to others until it does, or drop it"
                )
            lost = self._loss > 0 and self._rng is not None and self._rng.random() < self._loss
            if copy is not None and not lost and (target, source) in self._open:
                self._put(source, target, copy)
        self._transports[source].give(message)

    def _put(self, source: int, target: int, item: Buffer | str, *, lose: bool = False) -> None:
        wire = self._wires[source, target]
        if lose:
            self._clear_wire(wire, self._transports[target])
        low, high = self._delay_s
        delay_s = low if self._rng is None or high <= low else self._rng.uniform(low, high)
        due = self.now + delay_s
        if not self._reorder or isinstance(item, str):  # a loss is noticed last
            due = max(due, wire.latest)
        wire.latest = max(due, wire.latest)
        heapq.heappush(wire.items, (due, next(self._numbers), item))
        self._changed.notify_all()

    def _hang_up(self, rank: int, peer: int, reason: str, *, lose: bool) -> None:
        """Close `rank`'s end of a link; the other end will notice."""
        self._clear(rank, peer)
        self._open.discard((rank, peer))
        if (peer, rank) in self._open:
            self._put(rank, peer, reason, lose=lose)
        elif lose:
            self._clear_wire(self._wires[rank, peer], self._transports[peer])
        self._changed.notify_all()

    def _drain(self, rank: int, drain_s: float) -> None:
        """Wait until the peers have all of `rank`; those that drain too want nothing more."""
        peers = self._peers(rank)
        self._transports[rank]._draining = True
        for peer in peers:
            if (peer, rank) in self._open:
                self._put(rank, peer, "closed by the peer")

        def drained() -> bool:
            return not any(
                self._wires[rank, peer].items and not self._transports[peer]._draining
                for peer in peers
            )

        self._changed.notify_all()
        self._changed.wait_for(drained, drain_s)

    def _clear(self, rank: int, peer: int) -> None:
        """Forget what is on its way to `rank`."""
        self._clear_wire(self._wires[peer, rank], self._transports[rank])

    @staticmethod
    def _clear_wire(wire: _Wire, target: MemoryTransport) -> None:
        for _, _, item in wire.items:
            if not isinstance(item, str):
                target.give(item)
        wire.items.clear()

    def _pop(self, source: int, target: int) -> Buffer | str:
        _, _, item = heapq.heappop(self._wires[source, target].items)
        if isinstance(item, str):
            self._clear(target, source)
            self._open.discard((target, source))
        self._changed.notify_all()
        return item

    def _poll(self, target: int, timeout_s: float | None) -> None:
        """Threaded: wait until something is due for `target`, or its poll shall end; then keep
        that.
        """
        node = self._transports[target]
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while not (node._arrived or node._woken or node._closed):
            due = [
                (wire.items[0][:2], end)
                for end, wire in self._wires.items()
                if end[1] == target and self._can_deliver(*end)
            ]
            first = min(due, default=None)
            if first is not None and first[0][0] <= self.now:
                node._keep(first[1][0], self._pop(*first[1]))
                return
            ends = [at for at in (first and first[0][0], give_up) if at is not None]
            if give_up is not None and give_up <= self.now:
                return
            self._changed.wait(min(ends) - self.now if ends else None)


class MemoryTransport:
    """One node's end of a `MemoryNetwork`. Made by it."""

    def __init__(self, network: MemoryNetwork, rank: int) -> None:
        self.rank = rank
        self._network = network
        self._pool = BufferPool()
        self._draining = False
        self._closed = False
        self._woken = False
        self._arrived: deque[Arrived | Lost] = deque()

    @property
    def peers(self) -> frozenset[int]:
        """The neighbours whose link is open now."""
        with self._network._changed:
            return frozenset(() if self._draining else self._network._peers(self.rank))

    def poll(self, timeout_s: float | None) -> Arrived | Lost | None:
        """The next thing that happened: see Transport. Stepped, what steps brought; no waiting."""
        with self._network._changed:
            if self._network.threaded:
                self._network._poll(self.rank, timeout_s)
            if self._closed:
                raise LinkClosed(f"the transport of node {self.rank} is closed; make a new one")
            self._woken = False
            return self._arrived.popleft() if self._arrived else None

    def wake(self) -> None:
        """End a `poll`: see Transport."""
        with self._network._changed:
            self._woken = True
            self._network._changed.notify_all()

    def _keep(self, source: int, item: Buffer | str) -> None:
        if not isinstance(item, str):
            self._arrived.append(Arrived(source, item))
        elif not self._draining:
            self._arrived.append(Lost(source, item))

    def send(self, peer: int, message: Buffer) -> None:
        """Queue one message: see Transport."""
        self._network._send(self.rank, peer, message)

    def take(self, nbytes: int) -> Buffer:
        """A buffer from the pool: see Transport."""
        return self._pool.take(nbytes)

    def give(self, buffer: Buffer) -> None:
        """Hand a buffer back: see Transport."""
        self._pool.give(buffer)

    def drop(self, peer: int) -> None:
        """Close the link to one peer at once: see Transport."""
        with self._network._changed:
            if (self.rank, peer) in self._network._open:
                self._network._hang_up(self.rank, peer, "closed by the peer", lose=True)

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links: see Transport. Stepped, a drain keeps what is queued for later steps."""
        network = self._network
        with network._changed:
            if not self._closed:
                if network.threaded and drain_s > 0:
                    network._drain(self.rank, drain_s)
                self._closed = True
                keep = drain_s > 0 and not network.threaded
                for peer in network._peers(self.rank):
                    network._hang_up(self.rank, peer, "closed by the peer", lose=not keep)
