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
block's bytes, lowest first; then zero bits. A block LEFT_OUT of a reply keeps its place, as zeros,
so that the size of a reply is known before the offer is decoded.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarmsgd.codec.kernels import CODED, LEFT_OUT, RAW, possible
from swarmsgd.core.lattice import BLOCK, blocks_of
from swarmsgd.core.wire_code import Allocate, Bytes
from swarmsgd.errors import ProtocolError

PAYLOAD_MAGIC = b"SWL1"
OFFER, REPLY = 1, 2

_HEAD = struct.Struct("<4sBBBBIIQQ")
_CRC = struct.Struct("<I")
_CRC_AT = 12
_CHECK, _CELL = np.dtype("<u4"), np.dtype("<f4")
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
    def usual_forms(self) -> npt.NDArray[np.uint8]:
        """[P] the forms of blocks that all go in the bits of the format."""
        forms = np.full(self.blocks, CODED if self.bits else RAW, np.uint8)
        forms.setflags(write=False)
        return forms

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
        if not self.bits or RAW not in forms.tobytes():
            return self._usual_starts
        coded = (self.lengths * self.bits + 7) // 8
        return _ends(np.where(forms == RAW, 4 * self.lengths, coded))


def _ends(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where parts of these sizes begin, one after another, and where the last one ends."""
    ends = np.zeros(sizes.size + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends


class Payload(NamedTuple):
    """The parts of one payload; the first six are what kernels take. `seal` writes the figures of
    one that was made by `new`.
    """

    seed: int
    """Of the block offsets."""
    body: Bytes
    starts: npt.NDArray[np.int64]
    forms: npt.NDArray[np.uint8]
    cells: npt.NDArray[np.float32]
    checks: npt.NDArray[np.uint32]
    figures: Bytes
    """What lies before the body, copied, with a CRC of 0; `forms`, `cells`, `checks` lie in it."""
    bytes: Bytes


def new(
    form: Format, kind: int, seed: int, forms: npt.NDArray[np.uint8], allocate: Allocate
) -> Payload:
    """A payload with room for blocks of these forms. Fill figures and body, then `seal` it."""
    starts = form.starts(forms)
    size = form.figures_size
    data = allocate(size + int(starts[-1]))
    seed &= 0xFFFFFFFFFFFFFFFF
    figures = np.zeros(size, np.uint8)
    _HEAD.pack_into(
        figures.data, 0, PAYLOAD_MAGIC, kind, form.bits, form.rotated, 0, BLOCK, 0, form.dim, seed
    )
    checks, cells, own = _parts(form, figures)
    own[:] = forms
    return Payload(seed, data[size:], starts, own, cells, checks, figures, data)


def seal(payload: Payload) -> None:
    """Write the figures and the head's CRC: its bytes are whole then."""
    figures = payload.figures
    payload.bytes[: figures.size] = figures
    _CRC.pack_into(payload.bytes.data, _CRC_AT, zlib.crc32(figures.data))


def _parts(
    form: Format, figures: Bytes
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Checks, cells and forms."""
    cells_at = _HEAD.size + 4 * form.blocks
    forms_at = cells_at + 4 * form.blocks
    return (
        figures[_HEAD.size : cells_at].view(_CHECK),
        figures[cells_at:forms_at].view(_CELL),
        figures[forms_at : forms_at + form.blocks],
    )


def parse_payload(form: Format, kind: int, data: Bytes) -> Payload:
    """A payload that came in. ProtocolError if no peer of this run can have sent it."""
    size = form.figures_size
    if data.size < size:
        raise _refused(kind, f"has {data.size} bytes, its figures alone take {size}")
    magic, got_kind, bits, rotated, zero, block, crc, dim, seed = _HEAD.unpack_from(data.data)
    if magic != PAYLOAD_MAGIC:
        raise _refused(kind, f"begins with {magic!r}, wanted {PAYLOAD_MAGIC!r}")
    wanted = (kind, form.bits, int(form.rotated), BLOCK, form.dim)
    got = (got_kind, bits, rotated, block, dim)
    if got != wanted or zero:
        raise _refused(kind, f"has (kind, bits, rotated, block, dim) {got}, wanted {wanted}")
    figures = data[:size].copy()  # which also begins where figures may begin
    _CRC.pack_into(figures.data, _CRC_AT, 0)
    if zlib.crc32(figures.data) != crc:
        raise _refused(kind, "has a head that fails its CRC")
    checks, cells, forms = _parts(form, figures)
    starts = form.starts(forms)
    whole = size + int(starts[-1])
    if data.size != whole:
        raise _refused(kind, f"has {data.size} bytes, its head says {whole}")
    if not possible.compiled(forms, cells, *form.forms(kind)):
        raise _refused(kind, "has a form or a cell that no block can have")
    return Payload(seed, data[size:], starts, forms, cells, checks, figures, data)


def _refused(kind: int, what: str) -> ProtocolError:
    return ProtocolError(
        f"this {_NAMES[kind]} {what}; close the link, "
        "and check that all nodes run one version and config"
    )
