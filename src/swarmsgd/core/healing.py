"""How a node that arrives takes over a neighbour's model: it asks for parts, the neighbour answers.

::

    newcomer -> neighbour   WANT  vector (its number, or OTHERS), first byte, how many
    neighbour -> newcomer   PART  the same, and those bytes with a checksum

A vector's parts are read from the copy c as each is asked for, while the neighbour goes on: each
part is what partners average with at that moment. So parts of several neighbours fit together as
well as those of one, and if one dies the next is asked for what is missing. OTHERS are buffers,
frozen parameters and the like, one block of bytes that the neighbour's training thread lays out at
its next step.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from swarmsgd.core.messages import Draft, ExchangeId, Kind, Message
from swarmsgd.core.progress import Total
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ProtocolError

OTHERS = 0xFFFF
PART_BYTES = 1 << 20
AHEAD = 4
"""Parts that are asked for before the first of them is there."""
GIVER_SILENT_S = 10.0
"""A neighbour that has answered nothing for so long is left for another."""
_ASK = struct.Struct("<HQQ")
_ANSWER = struct.Struct("<QQI")
"""First byte, bytes of the whole vector, and CRC-32 of what follows."""


class Want(NamedTuple):
    """What is asked for."""

    vector: int
    start: int
    nbytes: int


class Part(NamedTuple):
    """What is answered."""

    vector: int
    start: int
    whole: int
    """Bytes of the whole vector."""
    data: Bytes


def write_want(draft: Draft, want: Want) -> None:
    """As the one section of a WANT."""
    draft.allocator(want.vector, 0)(_ASK.size)[:] = np.frombuffer(_ASK.pack(*want), np.uint8)


def read_want(message: Message) -> Want:
    """Raises ProtocolError."""
    if len(message.sections) == 1 and len(message.sections[0].payload) == _ASK.size:
        want = Want(*_ASK.unpack(message.sections[0].payload.tobytes()))
        if want.nbytes <= PART_BYTES:
            return want
    raise ProtocolError("a node asked for a part in a way that none of this version does")


def write_part(draft: Draft, part: Part) -> None:
    """As the one section of a PART."""
    payload = draft.allocator(part.vector, 0)(_ANSWER.size + len(part.data))
    head = _ANSWER.pack(part.start, part.whole, zlib.crc32(part.data.tobytes()))
    payload[: _ANSWER.size] = np.frombuffer(head, np.uint8)
    payload[_ANSWER.size :] = part.data


def read_part(message: Message) -> Part:
    """Raises ProtocolError for one that is damaged."""
    if len(message.sections) == 1 and len(message.sections[0].payload) >= _ANSWER.size:
        section = message.sections[0]
        start, whole, crc = _ANSWER.unpack(section.payload[: _ANSWER.size].tobytes())
        data = section.payload[_ANSWER.size :]
        if crc == zlib.crc32(data.tobytes()):
            return Part(section.vector, start, whole, data)
    raise ProtocolError("a part of a neighbour's model fails its checksum: damaged on the way")


ID = ExchangeId(0, 0, 0)
"""Parts belong to no exchange."""


class Healing:
    """What a newcomer has still to get. It asks one neighbour at a time, for all that is missing:
    `wants` says what to ask for now, `take_in` is given what comes, and `leave` says that this
    neighbour will answer no more.

    `vectors`, as bytes, and `others` are filled in.
    """

    def __init__(self, vectors: Sequence[Bytes], others: Bytes) -> None:
        self.progress = Total()
        """Of the whole swarm, as the neighbours know it."""
        self.of: list[int] = []
        """Whose parts they are."""
        self._into = dict(enumerate(vectors)) | {OTHERS: others}
        self._missing = deque(
            Want(vector, start, min(PART_BYTES, len(into) - start))
            for vector, into in self._into.items()
            for start in range(0, len(into), PART_BYTES)
        )
        self._asked: deque[Want] = deque()

    @property
    def done(self) -> bool:
        """Whether all is there."""
        return not self._missing and not self._asked

    def wants(self) -> Iterator[Want]:
        """What to ask for now; it counts as asked."""
        while self._missing and len(self._asked) < AHEAD:
            self._asked.append(self._missing.popleft())
            yield self._asked[-1]

    def take_in(self, peer: int, message: Message) -> bool:
        """Whether it was a part that was asked for. Raises ProtocolError for a wrong one."""
        if message.kind != Kind.PART or not self._asked:
            return False
        part, want = read_part(message), self._asked[0]
        into = self._into[want.vector]
        if part[:2] != want[:2] or part.whole != len(into) or len(part.data) != want.nbytes:
            raise ProtocolError(
                f"it sent bytes {part.start} of {part.whole} of vector {part.vector}, wanted "
                f"{want.start} of {len(into)} of vector {want.vector}"
            )
        into[want.start : want.start + want.nbytes] = part.data
        self._asked.popleft()
        self.progress = Total(*map(max, self.progress, message.progress))
        if peer not in self.of:
            self.of.append(peer)
        return True

    def leave(self) -> None:
        """What was asked for is missing again."""
        self._missing.extendleft(reversed(self._asked))
        self._asked.clear()


def message_of(
    want: Want, take: Callable[[int], Bytes], run: int, rank: int, incarnation: int
) -> Bytes:
    """A whole WANT, in a buffer of `take`."""
    draft = Draft(1, take)
    write_want(draft, want)
    return draft.finish(Kind.WANT, run, rank, incarnation, ID)


def in_turn(ids: Iterable[int], rank: int) -> list[int]:
    """Whom to ask, one after the other: newcomers that come at once begin with different ones."""
    found = sorted(ids)
    first = rank % len(found) if found else 0
    return found[first:] + found[:first]
