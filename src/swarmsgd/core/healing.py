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
from typing import NamedTuple

import numpy as np

from swarmsgd.core.messages import Draft, ExchangeId, Message
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ProtocolError

OTHERS = 0xFFFF
PART_BYTES = 1 << 20
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
