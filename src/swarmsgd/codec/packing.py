"""The bytes of an offer or reply: a head, three figures a block, then the blocks one by one.

::

    0   magic     4 bytes  b"SWL1"
    4   kind      u8       1 offer, 2 reply
    5   bits      u8       bits a coordinate; 0: every block in float32
    6   rotated   u8       1 if blocks are rotated before they are coded
    7   -         u8       0
    8   block     u32      coordinates a block
    12  crc       u32      CRC-32 of everything before the body, with this field as 0
    16  dim       u64      coordinates of the vector
    24  seed      u64      of the block offsets
    32  checks    u32[P]   of the integers of each block, or of the bits of its floats
        cells     f32[P]   0 where a block has none
        forms     u8[P]    CODED, RAW or LEFT_OUT; then zeros up to a multiple of 4
        body               for a block of n coordinates ceil(n bits / 8) bytes if CODED, 4 n if RAW

All little-endian. Coordinate t of a coded block has the bits t * bits ... (t + 1) * bits - 1 of the
block's bytes, lowest first. A block LEFT_OUT of a reply keeps its place, as zeros, so that the size
of a reply is known before the offer is decoded.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from swarmsgd.codec.kernels import CODED, LEFT_OUT, RAW
from swarmsgd.core.code import Allocate, Bytes
from swarmsgd.core.lattice import BLOCK, LARGEST_CELL, SMALLEST_CELL, blocks_of
from swarmsgd.errors import ProtocolError

MAGIC = b"SWL1"
OFFER, REPLY = 1, 2

_HEAD = struct.Struct("<4sBBBBIIQQ")
_CRC = slice(12, 16)
_NAMES = {OFFER: "offer", REPLY: "reply"}


@dataclass(frozen=True)
class Format:
    """What both ends of a run must agree on. One value serves all virtual nodes of a process: make
    it by `shared`.
    """

    dim: int
    bits: int
    rotated: bool = False

    @staticmethod
    @cache
    def shared(dim: int, bits: int, rotated: bool = False) -> Format:
        """The Format of these values, with what it works out from them."""
        return Format(dim, bits, rotated)

    @cached_property
    def blocks(self) -> int:
        return blocks_of(self.dim)

    @cached_property
    def figures_size(self) -> int:
        """Bytes before the body."""
        return _HEAD.size + 8 * self.blocks + -(-self.blocks // 4) * 4

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[P] coordinates of each block."""
        lengths = np.full(self.blocks, BLOCK, np.int64)
        lengths[-1] = self.dim - BLOCK * (self.blocks - 1)
        lengths.setflags(write=False)
        return lengths

    @cached_property
    def _usual_starts(self) -> npt.NDArray[np.int64]:
        starts = _ends((self.lengths * (self.bits or 32) + 7) // 8)
        starts.setflags(write=False)
        return starts

    def forms(self, kind: int) -> tuple[int, int]:
        """What a block of an offer or reply may be."""
        usual = CODED if self.bits else RAW
        return (usual, RAW) if kind == OFFER else (usual, LEFT_OUT)

    def starts(self, forms: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """[P + 1] where each block of these forms begins in the body, then the body's size."""
        raw = forms == RAW
        if not self.bits or not raw.any():
            return self._usual_starts
        coded = (self.lengths * self.bits + 7) // 8
        return _ends(np.where(raw, 4 * self.lengths, coded))


def _ends(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, and where each of these sizes ends that lie one after another."""
    ends = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends


@dataclass(frozen=True, slots=True)
class Payload:
    """The parts of one payload; `seal` writes the figures of one that was made by `new`."""

    bytes: Bytes
    seed: int
    checks: npt.NDArray[np.uint32]
    cells: npt.NDArray[np.float32]
    forms: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    body: Bytes


def new(
    form: Format, kind: int, seed: int, forms: npt.NDArray[np.uint8], allocate: Allocate
) -> Payload:
    """A payload with room for blocks of these forms. Fill figures and body, then `seal` it."""
    starts = form.starts(forms)
    size = form.figures_size
    data = allocate(size + int(starts[-1]))
    seed &= 0xFFFFFFFFFFFFFFFF
    head = _HEAD.pack(MAGIC, kind, form.bits, form.rotated, 0, BLOCK, 0, form.dim, seed)
    data[: _HEAD.size] = np.frombuffer(head, np.uint8)
    return Payload(
        data,
        seed,
        np.zeros(form.blocks, np.uint32),
        np.zeros(form.blocks, np.float32),
        forms,
        starts,
        data[size:],
    )


def seal(payload: Payload) -> Bytes:
    """Write the figures and the head's CRC; the payload's bytes."""
    figures = _figures(payload)
    end = _HEAD.size + figures.size
    payload.bytes[_HEAD.size : end] = figures
    crc = zlib.crc32(payload.bytes[:end].data)
    payload.bytes[_CRC] = np.frombuffer(crc.to_bytes(4, "little"), np.uint8)
    return payload.bytes


def _figures(payload: Payload) -> Bytes:
    blocks = payload.forms.size
    return np.concatenate(
        [
            payload.checks.astype("<u4").view(np.uint8),
            payload.cells.astype("<f4").view(np.uint8),
            payload.forms,
            np.zeros(-blocks % 4, np.uint8),
        ]
    )


def parse(form: Format, kind: int, data: Bytes) -> Payload:
    """Views of a payload that came in. ProtocolError if no peer of this run can have sent it."""
    if data.size < form.figures_size:
        raise _refused(kind, f"has {data.size} bytes, its figures alone take {form.figures_size}")
    magic, got_kind, bits, rotated, zero, block, crc, dim, seed = _HEAD.unpack(
        data[: _HEAD.size].tobytes()
    )
    figures = data[: form.figures_size].copy()
    figures[_CRC] = 0
    if magic != MAGIC:
        raise _refused(kind, f"begins with {magic!r}, wanted {MAGIC!r}")
    wanted = (kind, form.bits, int(form.rotated), BLOCK, form.dim)
    got = (got_kind, bits, rotated, block, dim)
    if got != wanted or zero:
        raise _refused(kind, f"has (kind, bits, rotated, block, dim) {got}, wanted {wanted}")
    if zlib.crc32(figures.data) != crc:
        raise _refused(kind, "has a head that fails its CRC")
    blocks = form.blocks
    cells_at = _HEAD.size + 4 * blocks
    forms_at = cells_at + 4 * blocks
    forms = figures[forms_at : forms_at + blocks]
    starts = form.starts(forms)
    if data.size != form.figures_size + starts[-1]:
        size = form.figures_size + starts[-1]
        raise _refused(kind, f"has {data.size} bytes, its head says {size}")
    cells = figures[cells_at:forms_at].view("<f4")
    coded = forms == CODED
    in_reach = (cells >= SMALLEST_CELL) & (cells <= LARGEST_CELL)
    usual, other = form.forms(kind)
    known = (forms == usual) | (forms == other)
    if not known.all() or not (in_reach | ~coded).all():
        raise _refused(kind, "has a form or a cell that no block can have")
    return Payload(
        data,
        seed,
        figures[_HEAD.size : cells_at].view("<u4"),
        cells,
        forms,
        starts,
        data[form.figures_size :],
    )


def _refused(kind: int, what: str) -> ProtocolError:
    return ProtocolError(
        f"this {_NAMES[kind]} {what}; close the link, "
        "and check that all nodes run one version and config"
    )
