"""The wire code: a vector as blocks, each coded next to the other end's model, or as float32.

An offer, an answer or a mix is three things here: check what came in, make a payload, run a kernel
over the vectors.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarmsgd.codec import kernels, packing
from swarmsgd.codec.cells import Cells
from swarmsgd.codec.packing import Format
from swarmsgd.codec.vectors import empty
from swarmsgd.core.lattice import BLOCK, CODED_BITS, EXCHANGEABLE, cells_in_reach
from swarmsgd.core.wire_code import Allocate, Bytes, Figures, Mixed, Vector
from swarmsgd.errors import ConfigError, ModelError, ProtocolError

_LOCAL = threading.local()


class KeptOffer(NamedTuple):
    """What is kept of an offer: its lattice point can be made again, and proved to be the same."""

    seed: int
    forms: npt.NDArray[np.uint8]
    cells: Figures
    checks: npt.NDArray[np.uint32]


class BlockCode:
    """The `core.wire_code.Code` of `bits` bits a coordinate (0: float32, and Q = c), with a check
    for each block.

    The error of a coded block depends on the distance of the two models only, not on their size;
    blocks of which nothing is known yet go as float32. An offered block that the partner cannot
    decode is left out by both ends. `rotation` spreads heavy-tailed or sparse differences over
    their block, for some time per coordinate: worth it at 6 bits and less. With a `common_start`
    the models are equal but for their first bursts, so what these changed is coded from the first
    offer on.

    No two calls of one object, or with the same vector, may overlap.
    """

    __slots__ = ("_cells", "_format", "_offered", "_reach", "bits")

    def __init__(
        self, dim: int, bits: int, *, rotation: bool = False, common_start: bool = False
    ) -> None:
        if dim < 1:
            raise ConfigError(f"a code needs at least one coordinate, got {dim}")
        if bits and bits not in CODED_BITS:
            raise ConfigError(f"got {bits} bits a coordinate, wanted one of {CODED_BITS}, or none")
        self.bits = bits
        self._format = Format.shared(dim, bits, rotation)
        self._reach = np.float32(cells_in_reach(bits) if bits else 0)
        self._cells: Cells | None = None
        if bits:
            blocks = self._format.blocks
            self._cells = Cells(blocks, bits, rotated=rotation, common_start=common_start)
        self._offered: KeptOffer | None = None
        kernels.prepare()

    def published(self, burst_max: Figures) -> None:
        """Told at each publish: the largest |change| of the burst just ended, one value a block."""
        if self._cells is not None:
            self._cells.burst(burst_max)

    def learned(self) -> Figures | None:
        """As `Cells.known`, in memory of its own."""
        return None if self._cells is None else self._cells.known.copy()

    def learn(self, learned: Figures) -> None:
        """Know what another code `learned`; nothing changes if that was of other blocks."""
        if self._cells is not None and self._cells.known.shape == learned.shape:
            self._cells.known[:] = learned

    def offer(self, copy: Vector, seed: int, allocate: Allocate) -> None:
        """Encode `copy`, in cells that are raised to what float32 allows.

        Raises ModelError for a value that cannot be exchanged.
        """
        form = self._format
        _require(form.dim, copy)
        self._offered = None
        forms, cells = form.usual_forms, np.float32(0)
        if self._cells is not None:
            forms, cells = self._cells.choose()
        out = packing.new(form, packing.OFFER, seed, forms, allocate)
        out.cells[:] = cells
        if not kernels.offer.compiled(form.bits, form.rotated, _scratch(), copy, *out[:6]):
            raise _not_exchangeable(copy, form)
        packing.seal(out)
        self._offered = KeptOffer(out.seed, out.forms, out.cells, out.checks)
        if self._cells is not None:
            self._cells.offered(out.cells)

    def check_offer(self, offer: Bytes) -> None:
        """Raises the ProtocolError that `answer` would, and changes nothing."""
        packing.parse_payload(self._format, packing.OFFER, offer)

    def answer(
        self, offer: Bytes, copy: Vector, pending: Vector, seed: int, allocate: Allocate
    ) -> Mixed:
        """Decode an offer next to `copy`, encode the reply in cells that surely decode, add
        (Q_i - Q_j)/2 to copy and pending.
        """
        form = self._format
        _require(form.dim, copy, pending)
        got = packing.parse_payload(form, packing.OFFER, offer)
        out = packing.new(form, packing.REPLY, seed, form.usual_forms, allocate)
        distance = np.empty(form.blocks, np.float32)
        distance_sq = kernels.answer.compiled(
            form.bits,
            form.rotated,
            _scratch(),
            self._reach,
            *got[:6],
            copy,
            pending,
            *out[:6],
            distance,
        )
        packing.seal(out)
        if self._cells is not None:
            self._cells.saw(distance)
        _, _, *rest = kernels.tally.compiled(got.forms, got.cells, distance, form.lengths)
        return Mixed(distance_sq, form.blocks, *rest)

    def mix(self, reply: Bytes, offered: Vector, copy: Vector, pending: Vector) -> Mixed:
        """Decode a reply next to Q_i, made from `offered`; add (Q_j - Q_i)/2 to copy and pending;
        learn which cells were too narrow.

        Blocks that fail a check are left as they were, and raise a ProtocolError in the end.
        """
        form, ours = self._format, self._offered
        _require(form.dim, offered, copy, pending)
        got = packing.parse_payload(form, packing.REPLY, reply)
        if ours is None:
            raise ProtocolError("this reply answers no offer: nothing was offered; close the link")
        distance = np.empty(form.blocks, np.float32)
        distance_sq = kernels.mix.compiled(
            form.bits,
            form.rotated,
            _scratch(),
            *ours,
            *got[:6],
            offered,
            copy,
            pending,
            distance,
        )
        seen = kernels.tally.compiled(got.forms, got.cells, distance, form.lengths)
        changed, wrong, *rest = seen
        if changed or wrong:
            raise _spoiled(form, changed, wrong)
        if self._cells is not None:
            self._cells.replied(distance)
        return Mixed(distance_sq, form.blocks, *rest)


def _scratch() -> Vector:
    """Room for a kernel to work in: one for each thread, since a call uses it alone."""
    scratch = getattr(_LOCAL, "scratch", None)
    if scratch is None:
        scratch = _LOCAL.scratch = empty(kernels.SCRATCH)
    return scratch


def _require(dim: int, *vectors: Vector) -> None:
    for vector in vectors:
        if vector.dtype != np.float32 or vector.shape != (dim,) or not vector.flags.c_contiguous:
            raise TypeError(
                f"got {vector.dtype}{list(vector.shape)}, wanted a contiguous float32[{dim}]"
            )


def _spoiled(form: Format, changed: int, wrong: int) -> ProtocolError:
    if changed:
        return ProtocolError(
            f"{changed} of {form.blocks} blocks of the model that was offered changed before the "
            "reply was mixed, so those were not mixed: a bug of ours, please report it"
        )
    return ProtocolError(
        f"{wrong} of {form.blocks} blocks of this reply do not decode next to what was "
        "offered, though a partner chooses them so that they do; close the link"
    )


def _not_exchangeable(vector: Vector, form: Format) -> ModelError:
    limit = EXCHANGEABLE / (BLOCK if form.rotated else 1)
    wrong = np.flatnonzero(~(np.abs(vector) <= limit))
    first = int(wrong[0])
    return ModelError(
        f"{wrong.size} of {vector.size} parameters cannot be exchanged, the first is "
        f"{vector[first]} at {first}; wanted finite values of at most {limit:.1e}: "
        "lower the learning rate or clip gradients"
    )
