"""The lattice code once more, in exact integers and float64, from its description alone.

Shares no arithmetic with the package but the rotation, which is tested on its own: payloads are cut
as the layout in `codec.packing` says, each float32 operation is a float64 one that is then rounded
(the same, as 53 >= 2 * 24 + 2 bits), and which integer a colour stands for is found by whole steps
of q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swarmsgd.core import lattice

BLOCK = 4096
HEAD = 32
CODED, RAW, LEFT_OUT = 0, 1, 2
WORD = 1 << 32


def single(values: np.ndarray | float) -> np.ndarray:
    """Rounded to float32, as float64."""
    return np.asarray(values, np.float64).astype(np.float32).astype(np.float64)


def scramble(word: int) -> int:
    word ^= word >> 16
    word = word * 0x85EBCA6B % WORD
    word ^= word >> 13
    word = word * 0xC2B2AE35 % WORD
    return word ^ word >> 16


def offset(seed: int, block: int) -> float:
    """u of a block: a multiple of 2**-23."""
    stream = scramble(seed % WORD ^ scramble(seed // WORD % WORD))
    return (scramble((stream + block * 0x9E3779B9) % WORD) >> 9) / 2**23


@dataclass(frozen=True)
class Lattice:
    """The lattice of one block of one payload."""

    cell: float
    offset: float

    def integers(self, x: np.ndarray) -> np.ndarray:
        """k of float32 values."""
        return np.floor(single(single(x * single(1 / self.cell)) + self.offset)).astype(np.int64)

    def points(self, k: np.ndarray) -> np.ndarray:
        """What k stands for."""
        return single(single(k + (0.5 - self.offset)) * self.cell)

    def decode(self, colours: np.ndarray, y: np.ndarray, bits: int) -> np.ndarray:
        """For each colour the integer of it that is nearest to y."""
        q = 1 << bits
        near = np.floor(single(single(y * single(1 / self.cell)) + (self.offset + 0.5)))
        lowest = near.astype(np.int64) - q // 2
        return lowest + (colours - lowest) % q


@dataclass(frozen=True)
class Sent:
    """One payload, read by its layout."""

    forms: np.ndarray
    lattices: list[Lattice]
    bodies: list[bytes]
    bits: int

    @classmethod
    def read(cls, payload: np.ndarray, dim: int) -> Sent:
        data = payload.tobytes()
        bits, seed = data[5], int.from_bytes(data[24:HEAD], "little")
        blocks = -(-dim // BLOCK)
        cells_at, forms_at = HEAD + 4 * blocks, HEAD + 8 * blocks
        forms = np.frombuffer(data[forms_at : forms_at + blocks], np.uint8)
        cells = np.frombuffer(data[cells_at:forms_at], "<f4").astype(np.float64)
        at, bodies = forms_at + -(-blocks // 4) * 4, []
        for block, form in enumerate(forms):
            size = min(BLOCK, dim - block * BLOCK)
            nbytes = 4 * size if form == RAW else -(-size * bits // 8)
            bodies.append(data[at : at + nbytes])
            at += nbytes
        assert at == len(data)
        lattices = [Lattice(float(s), offset(seed, block)) for block, s in enumerate(cells)]
        return cls(forms, lattices, bodies, bits)

    def colours(self, block: int, size: int) -> np.ndarray:
        stream = np.unpackbits(np.frombuffer(self.bodies[block], np.uint8), bitorder="little")
        places = stream[: size * self.bits].reshape(size, self.bits).astype(np.int64)
        return places @ (1 << np.arange(self.bits))


def parts(dim: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, dim)) for start in range(0, dim, BLOCK)]


def turned(vector: np.ndarray, rotated: bool) -> np.ndarray:
    """As float64, rotated if the code does."""
    x = torch.from_numpy(np.ascontiguousarray(vector, np.float32))
    return (lattice.rotate(x) if rotated else x).numpy().astype(np.float64)


def expected(
    offer: np.ndarray, reply: np.ndarray, x: np.ndarray, y: np.ndarray, rotated: bool
) -> tuple[np.ndarray, list[bool]]:
    """What the initiator must add for an offer of model x that met model y, and which blocks.

    The partner must add the opposite. Fails if the reply cannot be decoded where it must be.
    """
    dim = x.size
    sent, came = Sent.read(offer, dim), Sent.read(reply, dim)
    x_64, y_64 = turned(x, rotated), turned(y, rotated)
    half = np.zeros(dim)
    mixed = []
    for block, part in enumerate(parts(dim)):
        theirs = _offered_point(sent, block, x_64[part], y_64[part])
        mixed.append(theirs is not None)
        if theirs is not None:
            half[part] = single(_replied_point(came, block, theirs, y_64[part]) - theirs) / 2
    delta = single(half).astype(np.float32)
    if rotated:
        delta = lattice.unrotate(torch.from_numpy(delta)).numpy()
    return delta, mixed


def _offered_point(sent: Sent, block: int, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Q_i, or None if y is too far away to tell which of its colours was meant."""
    if sent.forms[block] == RAW:
        return x
    here = sent.lattices[block]
    k, colours = here.integers(x), sent.colours(block, x.size)
    assert (colours == k % (1 << sent.bits)).all(), "the offer is not that of this model"
    return here.points(k) if (here.decode(colours, y, sent.bits) == k).all() else None


def _replied_point(came: Sent, block: int, theirs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Q_j, which must decode next to Q_i."""
    here = came.lattices[block]
    k, colours = here.integers(y), came.colours(block, y.size)
    assert (colours == k % (1 << came.bits)).all(), "the reply is not that of this model"
    assert (here.decode(colours, theirs, came.bits) == k).all(), "the reply is out of reach"
    return here.points(k)
