"""The end of a burst in fused passes: what `core.arithmetic.publish` says, at memory speed."""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types

from swarmsgd.codec.kernels.blocks import PUBLISHED, magnitude_bits
from swarmsgd.codec.kernels.compiled import PLACES_IN, VECTOR, kernel
from swarmsgd.codec.kernels.intrinsics import borrowed, from_bits, lying_at, move, size_bits
from swarmsgd.core.lattice import BLOCK


@nb.njit
def _all_zero(values):
    return magnitude_bits(values) == 0


@nb.njit(inline="never")
def _largest(live, copy):
    """The bits of max|live| and of max|live - copy|."""
    largest = np.int32(0)
    change = np.int32(0)
    for t in range(live.size):
        largest = max(largest, size_bits(live[t]))
        change = max(change, size_bits(live[t] - copy[t]))
    return largest, change


@nb.njit(inline="never")
def _land(live, pending, copy):
    """live += pending; pending = 0; then as `_largest`."""
    largest = np.int32(0)
    change = np.int32(0)
    for t in range(live.size):
        value = live[t] + pending[t]
        live[t] = value
        pending[t] = np.float32(0)
        largest = max(largest, size_bits(value))
        change = max(change, size_bits(value - copy[t]))
    return largest, change


@nb.njit(inline="never")
def _largest_sum(fresh, pending, copy):
    """As `_largest` of fresh + pending."""
    largest = np.int32(0)
    change = np.int32(0)
    for t in range(fresh.size):
        value = fresh[t] + pending[t]
        largest = max(largest, size_bits(value))
        change = max(change, size_bits(value - copy[t]))
    return largest, change


@nb.njit(inline="never")
def _take_over(fresh, pending, copy):
    """copy = fresh + pending; fresh = 0."""
    for t in range(fresh.size):
        copy[t] = fresh[t] + pending[t]
        fresh[t] = np.float32(0)


@nb.njit(inline="never")
def _add_and_clear(live, pending):
    for t in range(live.size):
        live[t] += pending[t]
        pending[t] = np.float32(0)


@kernel(types.void(PLACES_IN, PLACES_IN, VECTOR))
def apply_pending(addresses, starts, pending):
    """x += pending; pending = 0. Segment k of x, from place starts[k], lies at addresses[k]."""
    for k in range(addresses.size):
        start = starts[k]
        while start < starts[k + 1]:
            stop = min(start + BLOCK, starts[k + 1])
            coming = borrowed(pending, start, stop)
            if not _all_zero(coming):
                live = lying_at(addresses[k] + 4 * (start - starts[k]), stop - start)
                _add_and_clear(live, coming)
            start = stop


@kernel(types.boolean(PLACES_IN, PLACES_IN, VECTOR, VECTOR, VECTOR))
def apply_and_publish(addresses, starts, pending, copy, burst_max):
    """x += pending; pending = 0; burst_max[block] = max|x - copy|; copy = x; True. x lies as for
    `apply_pending`.

    False if any value of x is then NaN or beyond `lattice.PUBLISHED`, with copy left as it was: all
    blocks are checked before the first byte of copy is written, which costs a second pass over x.
    Blocks in which nothing is pending, the usual case, are only read in the first pass.
    """
    bad = False
    burst_max[:] = np.float32(0)
    for k in range(addresses.size):
        start = starts[k]
        while start < starts[k + 1]:  # a block may have parts of several segments
            block = start // BLOCK
            stop = min((block + 1) * BLOCK, starts[k + 1])
            live = lying_at(addresses[k] + 4 * (start - starts[k]), stop - start)
            coming, old = borrowed(pending, start, stop), borrowed(copy, start, stop)
            if _all_zero(coming):
                largest, change = _largest(live, old)
            else:
                largest, change = _land(live, coming, old)
            burst_max[block] = max(burst_max[block], from_bits(change))
            bad |= largest > PUBLISHED
            start = stop
    if bad:
        return False
    for k in range(addresses.size):
        size = starts[k + 1] - starts[k]
        move(copy, 4 * starts[k], lying_at(addresses[k], size), 0, 4 * size)
    return True


@kernel(types.boolean(VECTOR, VECTOR, VECTOR, VECTOR))
def land(fresh, pending, copy, burst_max):
    """burst_max[block] = max|fresh + pending - copy|; copy = fresh + pending; fresh = 0; True.

    The end of a publish whose live vector was read, as `fresh`, before some of what is pending came
    in. False if any value of the sum is NaN or beyond `lattice.PUBLISHED`, with fresh and copy left
    as they were.
    """
    bad = False
    for block in range(burst_max.size):
        start = block * BLOCK
        stop = min(start + BLOCK, fresh.size)
        largest, change = _largest_sum(
            borrowed(fresh, start, stop),
            borrowed(pending, start, stop),
            borrowed(copy, start, stop),
        )
        burst_max[block] = from_bits(change)
        bad |= largest > PUBLISHED
    if bad:
        return False
    for start in range(0, fresh.size, BLOCK):
        stop = min(start + BLOCK, fresh.size)
        _take_over(
            borrowed(fresh, start, stop),
            borrowed(pending, start, stop),
            borrowed(copy, start, stop),
        )
    return True
