"""One block, compiled: `core.lattice` says what these compute, operation for operation.

What keeps it at memory speed: LLVM vectorises every loop over coordinates. That takes arithmetic in
int32 alone (numba widens unless each result is cast back), reductions over integers, since float
ones must keep their order, and few enough arrays a loop that they can be told apart at run time.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from swarmsgd.codec.kernels.intrinsics import from_bits, loose_squares, loose_sum, size_bits
from swarmsgd.core import lattice

FINITE = 0x7F7FFFFF
"""The bits of the largest finite float32: above them, without the sign, are Inf and NaN."""

PUBLISHED = int(np.float32(lattice.PUBLISHED).view(np.int32))
"""The bits of the largest value that is published."""

LARGEST = int(np.float32(lattice.EXCHANGEABLE).view(np.int32))
"""The bits of the largest value that is exchanged."""

LARGEST_TURNED = int(np.float32(lattice.EXCHANGEABLE / lattice.BLOCK**0.5).view(np.int32))
"""The same in a rotated block: then no value of it is larger than that before it is rotated."""

FARTHEST = int(np.float32(2 * lattice.EXCHANGEABLE).view(np.int32))
"""The bits of the largest distance of two values that are mixed: what a liar sends can be anywhere,
and half of it must not overflow what it is added to.
"""

FARTHEST_TURNED = int(np.float32(2 * lattice.EXCHANGEABLE / lattice.BLOCK).view(np.int32))
"""The same in a rotated block, whose differences are added up before they are scaled."""

_COUNTS = np.float32(2.0**-80)
_SMALLEST_CELL = np.float32(lattice.SMALLEST_CELL)
_FINEST = np.float32(lattice.FINEST)
_scramble: Any = nb.njit(lattice.scramble)


@nb.njit(inline="never")
def magnitude_bits(values):
    """The bits of max|values|."""
    largest = np.int32(0)
    for t in range(values.size):
        largest = max(largest, size_bits(values[t]))
    return largest


@nb.njit
def hash_of(integer, t):
    key = np.uint32(np.uint32(0x9E3779B1) + np.uint32(np.uint32(t) * np.uint32(0x0BD794D6)))
    z = np.uint32(np.uint32(integer) * key)
    return np.uint32(np.uint32(z ^ (z >> np.uint32(16))) * key)


@nb.njit(inline="never")
def check_of(integers):
    total = np.uint32(0)
    for t in range(integers.size):
        total = np.uint32(total + hash_of(integers[t], t))
    return total


@nb.njit
def stream_of(seed):
    """`lattice.offset_stream` of a uint64."""
    low = np.int64(seed & np.uint64(0xFFFFFFFF))
    high = np.int64(seed >> np.uint64(32))
    return _scramble(low ^ _scramble(high))


@nb.njit
def offset_of(stream, block):
    word = _scramble((stream + block * 0x9E3779B9) & 0xFFFFFFFF)
    return np.float32(word >> 9) * np.float32(2.0**-23)


@nb.njit
def floor_cell(magnitude):
    return max(magnitude * _FINEST, _SMALLEST_CELL)


@nb.njit
def cell_for(distance, magnitude, cells_in_reach):
    reach = (distance + magnitude * np.float32(2.0**-20)) * cells_in_reach
    return max(reach, floor_cell(magnitude))


@nb.njit
def _nearest(colour, value, inverse, above, half, mask):
    """The k of this colour nearest to value.

    A place out of int32's range converts to an arbitrary int32. The check rejects it; if a sender
    has forged a check that fits, the distance is too large to be mixed.
    """
    lowest = np.int32(np.int32(np.floor(value * inverse + above)) - half)
    return np.int32(lowest + (np.int32(np.int32(colour) - lowest) & mask))


@nb.njit(inline="never")
def encode(values, cell, offset, colours):
    """Colours (with higher bits of k, as many as fit) of values.

    Returns their check and, to rounding, the sum of their squares, from which `at_most` bounds the
    largest value: if that is too large for the cell, what was made means nothing.
    """
    inverse = np.float32(1) / cell
    check = np.uint32(0)
    squares = np.float32(0)
    for t in range(values.size):
        k = np.int32(np.floor(values[t] * inverse + offset))
        colours[t] = k
        check = np.uint32(check + hash_of(k, t))
        squares = loose_squares(squares, values[t])
    return check, squares


@nb.njit
def at_most(squares):
    """A bound of max|values| from the sum of their squares; Inf where squares may underflow."""
    return np.sqrt(squares) * np.float32(1.001) if squares > _COUNTS else np.float32(np.inf)


@nb.njit(inline="never")
def points_of(values, cell, offset, points):
    """Lattice points of values; returns their check, as `encode` does."""
    inverse = np.float32(1) / cell
    shift = np.float32(0.5) - offset
    check = np.uint32(0)
    for t in range(values.size):
        place = np.floor(values[t] * inverse + offset)
        points[t] = (place + shift) * cell
        check = np.uint32(check + hash_of(np.int32(place), t))
    return check


@nb.njit(inline="never")
def encode_and_add(own, theirs, pending, cell, offset, colours):
    """Encode own; then own and pending += (theirs - points of own) / 2.

    Returns the check and ||theirs - points of own||^2.
    """
    inverse = np.float32(1) / cell
    shift = np.float32(0.5) - offset
    half = np.float32(0.5)
    check = np.uint32(0)
    total = np.float32(0)
    for t in range(own.size):
        place = np.floor(own[t] * inverse + offset)
        k = np.int32(place)
        colours[t] = k
        check = np.uint32(check + hash_of(k, t))
        apart = theirs[t] - (place + shift) * cell
        own[t] += apart * half
        pending[t] += apart * half
        cells = apart * inverse
        total = loose_sum(total, np.float32(cells * cells))
    return check, _norm_sq(total, cell)


@nb.njit(inline="never")
def encode_change(own, theirs, cell, offset, colours):
    """As `encode_and_add`, but theirs = (theirs - points of own) / 2 instead."""
    inverse = np.float32(1) / cell
    shift = np.float32(0.5) - offset
    half = np.float32(0.5)
    check = np.uint32(0)
    total = np.float32(0)
    for t in range(own.size):
        place = np.floor(own[t] * inverse + offset)
        k = np.int32(place)
        colours[t] = k
        check = np.uint32(check + hash_of(k, t))
        apart = theirs[t] - (place + shift) * cell
        theirs[t] = apart * half
        cells = apart * inverse
        total = loose_sum(total, np.float32(cells * cells))
    return check, _norm_sq(total, cell)


@nb.njit
def _norm_sq(total, cell):
    return np.float64(total) * np.float64(cell) * np.float64(cell)


@nb.njit(inline="never")
def decode(colours, values, cell, offset, bits, points, coming):
    """Lattice points next to values.

    Returns their check, max|points - values|, max|values| and the bits of max|coming|: reading
    what is pending here, where there is much to compute, has it at hand when it is added to.
    """
    inverse = np.float32(1) / cell
    above = offset + np.float32(0.5)
    shift = np.float32(0.5) - offset
    half = np.int32(1 << (bits - 1))
    mask = np.int32((1 << bits) - 1)
    check = np.uint32(0)
    distance = np.int32(0)
    magnitude = np.int32(0)
    due = np.int32(0)
    for t in range(values.size):
        k = _nearest(colours[t], values[t], inverse, above, half, mask)
        point = (np.float32(k) + shift) * cell
        points[t] = point
        check = np.uint32(check + hash_of(k, t))
        distance = max(distance, size_bits(point - values[t]))
        magnitude = max(magnitude, size_bits(values[t]))
        due = max(due, size_bits(coming[t]))
    return check, from_bits(distance), from_bits(magnitude), due


@nb.njit(inline="never")
def decode_change(colours, points, cell, offset, bits, coming):
    """points = (lattice points next to points - points) / 2.

    Returns the check of what was decoded, max|Q_j - Q_i| and ||Q_j - Q_i||^2 of the two points, and
    the bits of max|coming|, for the sake of reading it.
    """
    inverse = np.float32(1) / cell
    above = offset + np.float32(0.5)
    shift = np.float32(0.5) - offset
    half = np.int32(1 << (bits - 1))
    mask = np.int32((1 << bits) - 1)
    halved = np.float32(0.5)
    check = np.uint32(0)
    distance = np.int32(0)
    total = np.float32(0)
    largest = np.int32(0)
    for t in range(points.size):
        own = points[t]
        k = _nearest(colours[t], own, inverse, above, half, mask)
        check = np.uint32(check + hash_of(k, t))
        apart = (np.float32(k) + shift) * cell - own
        distance = max(distance, size_bits(apart))
        points[t] = apart * halved
        cells = apart * inverse
        total = loose_sum(total, np.float32(cells * cells))
        largest = max(largest, size_bits(coming[t]))
    return check, from_bits(distance), _norm_sq(total, cell), largest


@nb.njit(inline="never")
def distance_of(theirs, own):
    distance = np.int32(0)
    for t in range(theirs.size):
        distance = max(distance, size_bits(theirs[t] - own[t]))
    return from_bits(distance)


@nb.njit(inline="never")
def add_to(own, theirs, pending):
    """own and pending += (theirs - own) / 2; returns ||theirs - own||^2."""
    half = np.float32(0.5)
    total = 0.0
    for t in range(own.size):
        apart = theirs[t] - own[t]
        own[t] += apart * half
        pending[t] += apart * half
        total = loose_sum(total, np.float64(apart) * np.float64(apart))
    return total


@nb.njit(inline="never")
def half_change(theirs, own):
    """own = (theirs - own) / 2; returns max|theirs - own| and ||theirs - own||^2."""
    half = np.float32(0.5)
    distance = np.int32(0)
    total = 0.0
    for t in range(own.size):
        apart = theirs[t] - own[t]
        distance = max(distance, size_bits(apart))
        own[t] = apart * half
        total = loose_sum(total, np.float64(apart) * np.float64(apart))
    return from_bits(distance), total


@nb.njit(inline="never")
def add_change(change, copy, pending):
    for t in range(change.size):
        copy[t] += change[t]
        pending[t] += change[t]
