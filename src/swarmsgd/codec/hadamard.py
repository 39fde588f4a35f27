"""`core.lattice.rotate` and its inverse for one block, compiled and in place."""

from __future__ import annotations

import numba as nb
import numpy as np

from swarmsgd.codec.blocks import hash_of
from swarmsgd.codec.intrinsics import borrowed, move, times_sign


@nb.njit(inline="never")
def _flip(values, block):
    """Times the random signs of this block."""
    for t in range(values.size):
        sign = np.uint32(hash_of(block, t) & np.uint32(0x80000000))
        values[t] = times_sign(values[t], sign)


@nb.njit(inline="never")
def _step(values, sums, differences):
    for t in range(sums.size):
        even, odd = values[2 * t], values[2 * t + 1]
        sums[t] = even + odd
        differences[t] = even - odd


@nb.njit(inline="never")
def _two_steps(values, first, second, third, fourth):
    for t in range(first.size):
        a, b, c, d = values[4 * t], values[4 * t + 1], values[4 * t + 2], values[4 * t + 3]
        first[t] = (a + b) + (c + d)
        second[t] = (a - b) + (c - d)
        third[t] = (a + b) - (c + d)
        fourth[t] = (a - b) - (c - d)


@nb.njit(inline="never")
def _hadamard(values, spare):
    """In place, for a power of two; each step puts sums in the first half, differences after."""
    size = values.size
    here, there = values, spare
    passes = 0
    left = size
    while left > 1:
        if left > 2:
            q = size // 4
            _two_steps(
                here,
                borrowed(there, 0, q),
                borrowed(there, q, 2 * q),
                borrowed(there, 2 * q, 3 * q),
                borrowed(there, 3 * q, size),
            )
            left //= 4
        else:
            half = size // 2
            _step(here, borrowed(there, 0, half), borrowed(there, half, size))
            left //= 2
        here, there = there, here
        passes += 1
    if passes % 2:
        move(values, 0, spare, 0, 4 * size)
    scale = np.float32(1 / np.sqrt(np.float64(size)))
    for t in range(size):
        values[t] *= scale


@nb.njit(inline="never")
def _hadamard_parts(values, spare):
    at = 0
    while at < values.size:
        size = 1
        while 2 * size <= values.size - at:
            size *= 2
        _hadamard(borrowed(values, at, at + size), spare)
        at += size


@nb.njit
def rotate(values, block, spare):
    """In place."""
    _flip(values, block)
    _hadamard_parts(values, spare)


@nb.njit
def unrotate(values, block, spare):
    _hadamard_parts(values, spare)
    _flip(values, block)
