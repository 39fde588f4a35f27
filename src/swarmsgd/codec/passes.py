"""One offer, answer or mix: check what came in, make a payload, run a kernel over the vectors."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swarmsgd.codec import figures, kernels, packing
from swarmsgd.codec.packing import Format, Payload
from swarmsgd.codec.vectors import empty
from swarmsgd.core.code import Allocate, Bytes, Mixed, Vector
from swarmsgd.core.lattice import BLOCK, EXCHANGEABLE, cells_in_reach
from swarmsgd.errors import ModelError, ProtocolError

Figures = npt.NDArray[np.float32]
"""[P] one value a block."""

_LOCAL = threading.local()


class Seen(NamedTuple):
    """What a mix tells about each block."""

    mixed: Mixed
    distance: Figures
    """[P] max-norm distance of the two ends, -1 where the block was left out."""


class Offered(NamedTuple):
    """What is kept of an offer: its lattice point can be made again, and proved to be the same."""

    stream: int
    forms: npt.NDArray[np.uint8]
    cells: Figures
    checks: npt.NDArray[np.uint32]


def offer(
    form: Format,
    forms: npt.NDArray[np.uint8],
    cells: Figures | float,
    copy: Vector,
    seed: int,
    allocate: Allocate,
) -> tuple[Bytes, Offered]:
    """Encode `copy` in blocks of these forms and cells, which are raised to what float32 allows.

    Raises ModelError for a value that cannot be exchanged.
    """
    _require(form.dim, copy)
    out = packing.new(form, packing.OFFER, seed, forms, allocate)
    out.cells[:] = cells
    if not kernels.offer(form.bits, form.rotated, _scratch(), copy, *_arguments(out)):
        raise _not_exchangeable(copy, form)
    return packing.seal(out), Offered(out.stream, out.forms, out.cells, out.checks)


def answer(
    form: Format, offer: Bytes, copy: Vector, pending: Vector, seed: int, allocate: Allocate
) -> tuple[Bytes, Seen]:
    """Decode an offer next to `copy`, encode the reply, add (Q_i - Q_j)/2 to copy and pending."""
    _require(form.dim, copy, pending)
    got = packing.parse(form, packing.OFFER, offer)
    out = packing.new(form, packing.REPLY, seed, form.usual_forms, allocate)
    seen = np.empty(form.blocks, np.float32)
    reach = np.float32(cells_in_reach(form.bits) if form.bits else 0)
    distance_sq = kernels.answer(
        form.bits,
        form.rotated,
        _scratch(),
        reach,
        *_arguments(got),
        copy,
        pending,
        *_arguments(out),
        seen,
    )
    _, _, *rest = figures.tally(got.forms, got.cells, seen, form.lengths)
    return packing.seal(out), Seen(Mixed(distance_sq, form.blocks, *rest), seen)


def mix(
    form: Format,
    ours: Offered | None,
    reply: Bytes,
    offered: Vector,
    copy: Vector,
    pending: Vector,
) -> Seen:
    """Decode a reply next to Q_i, made from `offered`; add (Q_j - Q_i)/2 to copy and pending.

    Blocks that fail a check are left as they were, and raise a ProtocolError in the end.
    """
    _require(form.dim, offered, copy, pending)
    got = packing.parse(form, packing.REPLY, reply)
    if ours is None:
        raise ProtocolError("this reply answers no offer: nothing was offered; close the link")
    seen = np.empty(form.blocks, np.float32)
    distance_sq = kernels.mix(
        form.bits,
        form.rotated,
        _scratch(),
        ours.stream,
        ours.forms,
        ours.cells,
        ours.checks,
        *_arguments(got),
        offered,
        copy,
        pending,
        seen,
    )
    changed, wrong, *rest = figures.tally(got.forms, got.cells, seen, form.lengths)
    if changed:
        raise ProtocolError(
            f"{changed} of {form.blocks} blocks of the model that was offered changed before the "
            "reply was mixed, so those were not mixed: a bug of ours, please report it"
        )
    if wrong:
        raise ProtocolError(
            f"{wrong} of {form.blocks} blocks of this reply do not decode next to what was "
            "offered, though a partner chooses them so that they do; close the link"
        )
    return Seen(Mixed(distance_sq, form.blocks, *rest), seen)


def _arguments(payload: Payload) -> tuple[object, ...]:
    return (
        payload.stream,
        payload.body,
        payload.starts,
        payload.forms,
        payload.cells,
        payload.checks,
    )


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


def _not_exchangeable(vector: Vector, form: Format) -> ModelError:
    limit = EXCHANGEABLE / (BLOCK if form.rotated else 1)
    wrong = np.flatnonzero(~(np.abs(vector) <= limit))
    first = int(wrong[0])
    return ModelError(
        f"{wrong.size} of {vector.size} parameters cannot be exchanged, the first is "
        f"{vector[first]} at {first}; wanted finite values of at most {limit:.1e}: "
        "lower the learning rate or clip gradients"
    )
