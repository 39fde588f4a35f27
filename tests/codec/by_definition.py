"""One exchange in the plain operations of `core`, and helpers to look into payloads with."""

from dataclasses import dataclass

import numpy as np
import torch

from swarmsgd.codec import packing
from swarmsgd.codec.kernels import CODED, RAW
from swarmsgd.core import arithmetic, lattice
from swarmsgd.core.wire_code import Code


def allocate(size: int) -> np.ndarray:
    return np.full(size, 0xA5, np.uint8)


def where(live: np.ndarray, cuts=()) -> tuple[np.ndarray, np.ndarray]:
    """Addresses and starts of a vector in segments that end at `cuts`."""
    inside = sorted(cut for cut in cuts if cut <= live.size)
    starts = np.array([0, *inside, live.size], np.int64)
    return live.ctypes.data + 4 * starts[:-1], starts


class Room:
    """An `allocate` that keeps what it gave."""

    payload: np.ndarray

    def __call__(self, size: int) -> np.ndarray:
        self.payload = allocate(size)
        return self.payload


class Node:
    """The vectors and the code of one node."""

    def __init__(self, model: np.ndarray, code: Code) -> None:
        self.copy = np.ascontiguousarray(model, np.float32)
        self.pending = np.zeros_like(self.copy)
        self.offered = self.copy
        self.code = code

    def offer(self, seed: int) -> np.ndarray:
        self.offered = self.copy.copy()
        room = Room()
        self.code.offer(self.copy, seed, room)
        return room.payload

    def answer(self, offer: np.ndarray, seed: int):
        room = Room()
        mixed = self.code.answer(offer, self.copy, self.pending, seed, room)
        return room.payload, mixed

    def mix(self, reply: np.ndarray):
        return self.code.mix(reply, self.offered, self.copy, self.pending)

    def state(self) -> bytes:
        return self.copy.tobytes() + self.pending.tobytes()


def sealed(payload: packing.Payload) -> np.ndarray:
    """Its bytes, whole."""
    packing.seal(payload)
    return payload.bytes


def spread(per_block: np.ndarray, dim: int) -> np.ndarray:
    return np.repeat(per_block, lattice.BLOCK)[:dim]


def unpack(body: np.ndarray, starts: np.ndarray, dim: int, bits: int) -> np.ndarray:
    """The colours of payloads whose blocks are all coded, bit by bit."""
    found = []
    for block, start in enumerate(starts[:-1]):
        size = min(lattice.BLOCK, dim - block * lattice.BLOCK)
        stream = np.unpackbits(body[start : starts[block + 1]], bitorder="little")
        found.append(stream[: size * bits].reshape(size, bits) @ (1 << np.arange(bits)))
    return np.concatenate(found)


@dataclass
class Coded:
    """One end's lattice points, and what is sent of them."""

    points: torch.Tensor
    colours: torch.Tensor
    checks: torch.Tensor
    cells: torch.Tensor
    forms: np.ndarray


def offer(form: packing.Format, forms, cells, copy, seed: int) -> Coded:
    x = _turned(form, copy)
    cells = torch.maximum(torch.from_numpy(cells), lattice.floor_cell(lattice.largest(x)))
    raw = torch.from_numpy(spread(forms == RAW, form.dim))
    offset = lattice.offsets(seed, form.blocks)
    k = lattice.encode(x, cells, offset)
    bits = torch.from_numpy(copy.copy()).view(torch.int32)
    return Coded(
        torch.where(raw, x, lattice.points(k, cells, offset)),
        lattice.colours(k, form.bits),
        torch.where(torch.from_numpy(forms == RAW), lattice.check(bits), lattice.check(k)),
        torch.where(torch.from_numpy(forms == RAW), 0, cells),
        forms,
    )


def answer(form: packing.Format, offered: Coded, offer_seed: int, copy, seed: int) -> Coded:
    """The reply to an offer that is in reach."""
    y = _turned(form, copy)
    offset = lattice.offsets(offer_seed, form.blocks)
    cells = torch.where(offered.cells > 0, offered.cells, 1)
    k = lattice.decode(offered.colours, y, cells, offset, form.bits)
    raw = torch.from_numpy(spread(offered.forms == RAW, form.dim))
    theirs = torch.where(raw, offered.points, lattice.points(k, cells, offset))
    assert torch.equal(theirs, offered.points)
    distance = lattice.largest(theirs - y)
    cells = lattice.cell_for(distance, lattice.largest(y) + distance, form.bits)
    offset = lattice.offsets(seed, form.blocks)
    k = lattice.encode(y, cells, offset)
    return Coded(
        lattice.points(k, cells, offset),
        lattice.colours(k, form.bits),
        lattice.check(k),
        cells,
        np.full(form.blocks, CODED, np.uint8),
    )


def change(form: packing.Format, mine: Coded, theirs: Coded) -> np.ndarray:
    """What the end that sent `mine` adds to its copy and pending."""
    turned = torch.from_numpy(arithmetic.change(mine.points.numpy(), theirs.points.numpy()))
    return (lattice.unrotate(turned) if form.rotated else turned).numpy()


def _turned(form: packing.Format, copy: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(copy.copy())
    return lattice.rotate(x) if form.rotated else x
