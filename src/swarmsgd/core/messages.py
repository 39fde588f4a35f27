"""Messages between nodes: a fixed little-endian header, a table of sections, the sections' bytes.

::

    offset  bytes  field
    0       4      magic "SWRM"
    4       2      version of this layout
    6       1      kind (Kind)
    7       1      number of sections
    8       8      run: fingerprint of what both ends must agree on (`fingerprint`)
    16      4      sender's node id
    20      4      sender's incarnation
    24      4      exchange: initiator's node id
    28      4      exchange: initiator's incarnation
    32      8      exchange: initiator's counter (the round, in matching mode)
    40      8      bytes of the body (everything behind the section table and its padding)
    48      6      steps that all nodes have made, as the sender knows it (`core.progress`)
    54      6      samples, likewise
    60      4      CRC-32 of bytes 0 to 59 and of the section table
    64      16 s   section table: vector (u16), bits (u8), zero (u8), zero (u32), bytes (u64)
    ...            zero padding to a multiple of 64, then the sections' bytes, each padded to 64

A section's own bytes are covered by the checks of its code. The size of a message is
`len(message)`.
"""

from __future__ import annotations

import enum
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np

from swarmsgd.core.progress import MOST, Total
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ProtocolError

VERSION = 3
MAGIC = b"SWRM"
ALIGN = 64
_COVERED = struct.Struct("<4sHBBQIIIIQQ6s6s")
"""The part of the header that its CRC is of, which follows."""
_HEADER = struct.Struct(_COVERED.format + "I")
_SECTION = struct.Struct("<HBxIQ")
_SEED = struct.Struct("<IIQB")
_READABLE = 1000


class Kind(enum.IntEnum):
    """What a message is."""

    OFFER = 1
    """Initiator to partner: an encoded copy. Answered by REPLY or REFUSE."""
    REPLY = 2
    """Partner to initiator: the partner's encoded copy; the partner has mixed."""
    REFUSE = 3
    """Partner to initiator: nothing was mixed; the body is the reason in UTF-8."""
    DONE = 4
    """To all: the sender starts no exchange any more in the phase that the counter names; it
    answers.
    """
    BYE = 5
    """To all: the sender leaves and closes the link."""
    WANT = 6
    """A node that arrives asks for a part of what a neighbour has (`core.healing`)."""
    PART = 7
    """The answer."""


_KINDS = {kind.value: kind for kind in Kind}


class ExchangeId(NamedTuple):
    """Names one exchange for good: several of one node may overlap."""

    initiator: int
    incarnation: int
    counter: int


NO_EXCHANGE = ExchangeId(0, 0, 0)


class Section(NamedTuple):
    """One encoded vector: its index in the run's list of vectors, its bits (0: float32), its
    bytes.
    """

    vector: int
    bits: int
    payload: Bytes


class Message(NamedTuple):
    """A parsed message; section payloads are views into the buffer it was parsed from."""

    kind: Kind
    run: int
    sender: int
    incarnation: int
    exchange: ExchangeId
    progress: Total = Total()
    sections: tuple[Section, ...] = ()


def fingerprint(settings: Mapping[str, object]) -> int:
    """64 bits that are equal iff the settings are (as canonical JSON)."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def explain_difference(mine: Mapping[str, object], theirs: Mapping[str, object]) -> str:
    """Name what differs between two nodes' settings, most telling first; "" if nothing does."""
    missing = "(absent)"
    lines: list[str] = []
    for key in [*mine, *(k for k in theirs if k not in mine)]:
        here, there = mine.get(key, missing), theirs.get(key, missing)
        if here != there:
            here, there = _apart(here, there)
            lines.append(f"{key}: {_shorten(here)} here, {_shorten(there)} there")
    return "; ".join(lines)


def _apart(here: object, there: object) -> tuple[object, object]:
    """Of two lists only what the other has not, unless they differ in order alone."""
    both: tuple[object, object] = here, there
    if not (isinstance(here, list) and isinstance(there, list)):
        return both
    mine, theirs = cast(list[object], here), cast(list[object], there)
    only_here = [item for item in mine if item not in theirs]
    only_there = [item for item in theirs if item not in mine]
    return (only_here, only_there) if only_here or only_there else both


def _shorten(value: object, limit: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Draft:
    """A message being built: codes write their sections straight into its buffer.

    `take` gives a uint8 buffer of a wanted length (a transport's pool). Nothing is copied if all
    sections are as long as the first one.
    """

    __slots__ = ("_buffer", "_end", "_sections", "_start", "_table", "_take")

    def __init__(self, sections: int, take: Callable[[int], Bytes]) -> None:
        self._take = take
        self._start = -(-(_HEADER.size + sections * _SECTION.size) // ALIGN) * ALIGN
        self._sections = sections
        self._table: list[tuple[int, int, int, int]] = []
        self._buffer: Bytes | None = None
        self._end = self._start

    def allocator(self, vector: int, bits: int) -> Callable[[int], Bytes]:
        """The `allocate` to hand to a code for its one call of `offer` or `answer`."""

        def allocate(nbytes: int) -> Bytes:
            size = -(-nbytes // ALIGN) * ALIGN
            begin, end = self._end, self._end + size
            if self._buffer is None or len(self._buffer) < end:
                left = self._sections - len(self._table)
                grown = self._take(begin + left * size)
                if self._buffer is not None:
                    grown[self._start : begin] = self._buffer[self._start : begin]
                self._buffer = grown
            self._buffer[begin + nbytes : end] = 0
            self._table.append((vector, bits, 0, nbytes))
            self._end = end
            return self._buffer[begin : begin + nbytes]

        return allocate

    def finish(
        self,
        kind: Kind,
        run: int,
        sender: int,
        incarnation: int,
        exchange: ExchangeId,
        progress: Total = Total(),  # noqa: B008
    ) -> Bytes:
        """Write header and table; the whole message as one uint8 array."""
        if len(self._table) != self._sections:
            raise ProtocolError(
                f"a draft for {self._sections} sections got {len(self._table)}: "
                "every section must be allocated before the message is finished"
            )
        buffer = self._take(self._end) if self._buffer is None else self._buffer
        head = _COVERED.pack(
            MAGIC,
            VERSION,
            kind,
            self._sections,
            run,
            sender,
            incarnation,
            *exchange,
            self._end - self._start,
            min(progress.steps, MOST).to_bytes(6, "little"),
            min(progress.samples, MOST).to_bytes(6, "little"),
        )
        table = b"".join([_SECTION.pack(*row) for row in self._table])
        head += zlib.crc32(table, zlib.crc32(head)).to_bytes(4, "little") + table
        buffer.data[: self._start] = head + bytes(self._start - len(head))
        return buffer if len(buffer) == self._end else buffer[: self._end]


def control(
    kind: Kind,
    run: int,
    sender: int,
    incarnation: int,
    exchange: ExchangeId = NO_EXCHANGE,
    text: str = "",
) -> Bytes:
    """A message without vectors (REFUSE, DONE, BYE); `text` travels as one section."""
    body = text.encode()
    draft = Draft(1 if body else 0, lambda nbytes: np.zeros(nbytes, np.uint8))
    if body:
        draft.allocator(0, 0)(len(body))[:] = np.frombuffer(body, np.uint8)
    return draft.finish(kind, run, sender, incarnation, exchange)


def text_of(message: Message) -> str:
    """The text of a control message, in one line; no more of it than a person would read."""
    if not message.sections:
        return ""
    return " ".join(bytes(message.sections[0].payload[:_READABLE]).decode(errors="replace").split())


def parse_message(buffer: Bytes) -> Message:
    """Read a message. Raises ProtocolError that says what was got and wanted; reads only
    `buffer`.
    """
    if len(buffer) < _HEADER.size:
        raise ProtocolError(
            f"message of {len(buffer)} bytes is shorter than a header of {_HEADER.size}: torn"
        )
    data = buffer.data
    magic, version, kind, count, run, sender, incarnation, *exchange, body, steps, samples, crc = (
        _HEADER.unpack_from(data)
    )
    if magic != MAGIC:
        raise ProtocolError(f"message starts with {magic!r}, wanted {MAGIC!r}: not a swarmsgd peer")
    if version != VERSION:
        raise ProtocolError(
            f"peer speaks protocol version {version}, this node speaks {VERSION}: "
            "install the same swarmsgd version on all nodes"
        )
    table_end = _HEADER.size + count * _SECTION.size
    start = -(-table_end // ALIGN) * ALIGN
    if len(buffer) < start or len(buffer) != start + body:
        raise ProtocolError(
            f"message of {len(buffer)} bytes, its header announces {start + body}: torn"
        )
    if crc != zlib.crc32(data[_HEADER.size : table_end], zlib.crc32(data[: _COVERED.size])):
        raise ProtocolError("message header fails its checksum: damaged on the way")
    if kind not in _KINDS:
        raise ProtocolError(f"message of unknown kind {kind}, wanted 1 to {max(Kind)}")
    sections: list[Section] = []
    at = start
    for offset in range(_HEADER.size, table_end, _SECTION.size):
        vector, bits, zero, nbytes = _SECTION.unpack_from(data, offset)
        end = at + -(-nbytes // ALIGN) * ALIGN
        if zero or end > len(buffer):
            raise ProtocolError(f"section {len(sections)} does not fit its message: damaged")
        sections.append(Section(vector, bits, buffer[at : at + nbytes]))
        at = end
    progress = Total(int.from_bytes(steps, "little"), int.from_bytes(samples, "little"))
    return Message(
        _KINDS[kind], run, sender, incarnation, ExchangeId(*exchange), progress, tuple(sections)
    )


def offset_seed(exchange: ExchangeId, kind: Kind) -> int:
    """The 32-bit seed of the code's offsets in one leg of one exchange: the same in every
    driver.
    """
    return zlib.crc32(_SEED.pack(*exchange, kind))
