"""Collectives of a few nodes over links of their own: a broadcast, and a sum with the same bits for
all.

The members stand in a binary tree, by their order; those that nobody can dial hang below it, shared
out over those who can be, or above it if the first is one of them: every link has an end that
listens. All goes chunk by chunk, each with its number
and a checksum. A link that is lost breaks the tree, and who waits is told at once: whoever leaves
it then closes its links, so that within moments all have.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from swarmsgd.errors import PeerError
from swarmsgd.transport.base import Arrived, Buffer, LinkBackedUp, Lost, Transport
from swarmsgd.transport.zmq import ZmqTransport

CHUNK_BYTES = 1 << 23
_TAIL = struct.Struct("<QI")
"""Number of the chunk, and CRC-32 of it."""
TREE_MESSAGE_BYTES = CHUNK_BYTES + _TAIL.size
_AGAIN_S = 0.01

Meet = Callable[[str], Sequence[str]]
"""Tells the others a text; theirs, in the order of the members."""


class TreeBroken(RuntimeError):
    """A member was lost, or is silent."""


class Tree:
    """One member's part: `rank` of `members`, over a transport that has its `links` open.

    All members call the same methods in the same order, within `timeout_s` of each other. Each may
    raise TreeBroken; the tree is of no use then.
    """

    def __init__(
        self,
        rank: int,
        members: Sequence[int],
        transport: Transport,
        timeout_s: float,
        hidden: Collection[int] = (),
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._parent, self._children = places(rank, members, hidden)
        self._came: dict[int, deque[Buffer]] = {}
        self._lost: dict[int, str] = {}
        self._sent: dict[int, int] = {}
        self._read: dict[int, int] = {}

    @classmethod
    def open(
        cls,
        name: str,
        members: Sequence[int],
        transport: ZmqTransport,
        *,
        meet: Meet,
        gone: Callable[[int], bool],
        timeout_s: float,
    ) -> Self:
        """Meet the other members and open the links of `transport`, which is the tree's from here
        on. `name` is fresh for each tree; `gone` is asked about who is missing.
        """
        try:
            endpoints = dict(zip(members, meet(transport.endpoint), strict=True))
            hidden = [member for member in members if not endpoints[member]]
            parent, children = places(transport.rank, members, hidden)
            others = children if parent is None else [parent, *children]
            transport.open(name, {peer: endpoints[peer] for peer in others}, timeout_s, gone)
        except PeerError as error:
            transport.close()
            raise TreeBroken(str(error)) from None
        except BaseException:
            transport.close()
            raise
        return cls(transport.rank, members, transport, timeout_s, hidden)

    def close(self) -> None:
        """Close the links; not before all members have got what they wait for."""
        self._transport.close()

    def broadcast(self, values: Buffer) -> None:
        """Overwrite `values`, 1-d uint8, with those of the first member."""
        for start in range(0, len(values), CHUNK_BYTES):
            self._down(values[start : start + CHUNK_BYTES])

    def sum(self, values: npt.NDArray[np.float64]) -> None:
        """Overwrite `values`, 1-d, at most CHUNK_BYTES of them, with the sum of the members'."""
        for child in self._children:
            values += self._receive(child, values.nbytes).view(np.float64)
        if self._parent is not None:
            self._send(self._parent, values.view(np.uint8))
        self._down(values.view(np.uint8))

    def _down(self, chunk: Buffer) -> None:
        if self._parent is not None:
            chunk[:] = self._receive(self._parent, len(chunk))
        for child in self._children:
            self._send(child, chunk)

    def _send(self, peer: int, chunk: Buffer) -> None:
        message = self._transport.take(len(chunk) + _TAIL.size)
        message[: len(chunk)] = chunk
        number = self._sent[peer] = self._sent.get(peer, 0) + 1
        _TAIL.pack_into(message.data, len(chunk), number, zlib.crc32(chunk.data))
        give_up = time.monotonic() + self._timeout_s
        while True:
            try:
                self._transport.send(peer, message)
                return
            except LinkBackedUp:
                self._hear(peer, give_up, _AGAIN_S)
            except PeerError as error:
                raise TreeBroken(self._lost.get(peer, str(error))) from None

    def _receive(self, peer: int, nbytes: int) -> Buffer:
        """The next chunk of `peer`, which is valid until the next call."""
        give_up = time.monotonic() + self._timeout_s
        while not self._came.get(peer):
            self._hear(peer, give_up)
        message = self._came[peer].popleft()
        chunk, number = message[: -_TAIL.size], self._read.get(peer, 0) + 1
        self._read[peer] = number
        if len(message) < _TAIL.size or len(chunk) != nbytes:
            raise TreeBroken(f"node {peer} sent {len(message)} bytes, wanted {nbytes} and a tail")
        if _TAIL.unpack_from(message.data, nbytes) != (number, zlib.crc32(chunk.data)):
            raise TreeBroken(f"chunk {number} of node {peer} fails its checksum")
        return chunk.copy() if chunk.ctypes.data % 8 else chunk

    def _hear(self, peer: int, give_up: float, most_s: float = 1.0) -> None:
        """Take in what comes next. Raises TreeBroken if `peer` is lost, or after `give_up`."""
        if peer in self._lost:
            raise TreeBroken(f"node {peer} was lost: {self._lost[peer]}")
        if time.monotonic() > give_up:
            raise TreeBroken(f"node {peer} says nothing for {self._timeout_s:.0f} s")
        event = self._transport.poll(most_s)
        if isinstance(event, Lost):
            self._lost[event.peer] = event.reason
        elif isinstance(event, Arrived):
            self._came.setdefault(event.peer, deque()).append(event.message)


def places(
    rank: int, members: Sequence[int], hidden: Collection[int] = ()
) -> tuple[int | None, list[int]]:
    """The parent (None for the first member) and the children of `rank` in the tree of `members`;
    nobody can dial the `hidden` ones. Raises PeerError if that leaves nobody to dial.

    >>> places(7, [3, 5, 7, 8, 9, 11]), places(7, [3, 5, 7, 8, 9, 11], hidden=[3, 5, 9])
    ((3, [11]), (3, [8, 11, 5]))
    """
    trunk = [member for member in members if member not in hidden]
    leaves = [member for member in members if member in hidden]
    if not trunk and len(members) > 1:
        raise PeerError(none_listens(members))
    parents = {member: trunk[(at - 1) // 2] for at, member in enumerate(trunk) if at}
    if trunk and members[0] in hidden:
        parents[trunk[0]] = leaves.pop(0)
    parents |= {member: trunk[at % len(trunk)] for at, member in enumerate(leaves) if trunk}
    return parents.get(rank), [member for member, above in parents.items() if above == rank]


def none_listens(nodes: Sequence[int]) -> str:
    """Why there is no way between these."""
    return (
        f"none of the nodes {', '.join(map(str, nodes))} listens (listen=False), so that none can "
        "be dialled: let at least one listen"
    )
