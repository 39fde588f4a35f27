"""`core.lattice.rotate` and its inverse for one block, compiled.

Both take `ahead`, the start of the next block, and prefetch it while they compute: the strides of a
transform are too long for the processor to foresee what is read next.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import torch

from swarmsgd.codec.kernels.butterflies import compact, compact_flip, strided, strided_flip
from swarmsgd.codec.kernels.intrinsics import borrowed, fetch, times_sign
from swarmsgd.core import lattice
from swarmsgd.core.lattice import BLOCK

_COMPACT, _STRIDED = 256, 4096
"""Coordinates that `compact` transforms in one go, and that `strided` brings down to that."""

_MINUS = (lattice.signs(torch.arange(BLOCK)) < 0).numpy()
_FLIPS = np.packbits(_MINUS, bitorder="little").view(np.uint16)
"""Bit t of word w: whether coordinate 16 w + t of a block changes its sign."""
_SCALE = np.float32(_STRIDED**-0.5)


@nb.njit(inline="never")
def _flip(values):
    for t in range(values.size):
        minus = np.uint32(_FLIPS[t >> 4] >> np.uint16(t & 15)) << np.uint32(31)
        values[t] = times_sign(values[t], minus)


@nb.njit(inline="never")
def _step(first, second):
    for t in range(first.size):
        a, b = first[t], second[t]
        first[t], second[t] = a + b, a - b


@nb.njit(inline="never")
def _hadamard(values):
    """In place, for a power of two: the longest strides first."""
    size = values.size
    half = size // 2
    while half > 0:
        for start in range(0, size, 2 * half):
            middle = start + half
            _step(borrowed(values, start, middle), borrowed(values, middle, middle + half))
        half //= 2
    scale = np.float32(1 / np.sqrt(np.float64(size)))
    for t in range(size):
        values[t] *= scale


@nb.njit(inline="never")
def _hadamard_parts(values):
    at = 0
    while at < values.size:
        size = 1
        while 2 * size <= values.size - at:
            size *= 2
        _hadamard(borrowed(values, at, at + size))
        at += size


@nb.njit
def _ask_for(ahead, at):
    for line in range(at, at + _COMPACT, 16):
        fetch(ahead, line)


@nb.njit(inline="never")
def rotate(source, target, ahead):
    """target = source, rotated; they are of one block and may be one array."""
    if source.size == _STRIDED:
        for at in range(0, _COMPACT, 16):
            strided_flip(source, _FLIPS, target, at)
        for at in range(0, _STRIDED, _COMPACT):
            _ask_for(ahead, at)
            compact(target, _FLIPS, at, _SCALE)
        return
    for t in range(source.size):
        target[t] = source[t]
    _flip(target)
    _hadamard_parts(target)


@nb.njit(inline="never")
def unrotate(values, ahead):
    """In place."""
    if values.size == _STRIDED:
        for at in range(0, _COMPACT, 16):
            strided(values, _FLIPS, values, at)
        for at in range(0, _STRIDED, _COMPACT):
            _ask_for(ahead, at)
            compact_flip(values, _FLIPS, at, _SCALE)
        return
    _hadamard_parts(values)
    _flip(values)
