"""The figures of a payload's blocks, compiled: a model may have just one block, and a numpy call
takes a microsecond however little it has to do.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types

from swarmsgd.codec.kernels.blocks import FINITE
from swarmsgd.codec.kernels.compiled import BYTES, PLACES_IN, VECTOR, kernel
from swarmsgd.codec.kernels.intrinsics import from_bits, size_bits
from swarmsgd.codec.kernels.payloads import CHANGED, CODED, LEFT, RAW, WRONG
from swarmsgd.core.lattice import LARGEST_CELL, SMALLEST_CELL

_COUNT = types.int64


@kernel(types.boolean(BYTES, VECTOR, types.int64, types.int64))
def possible(forms, cells, usual, other):
    """Whether all blocks have one of two forms, and those that are coded a cell they can have."""
    for block in range(forms.size):
        form = forms[block]
        if form != usual and form != other:
            return False
        if form == CODED and not SMALLEST_CELL <= cells[block] <= LARGEST_CELL:
            return False
    return True


@kernel(
    types.Tuple((_COUNT, _COUNT, _COUNT, _COUNT, types.float64, types.float64))(
        BYTES, VECTOR, VECTOR, PLACES_IN
    )
)
def tally(forms, cells, seen, lengths):
    """How many blocks were CHANGED, WRONG and LEFT, and how many came in RAW; of those that came in
    coded and were not left out the sum of s^2 / 12 over their coordinates, and the median cell.
    """
    changed, wrong, left, raw, coded = 0, 0, 0, 0, 0
    noise_sq = 0.0
    widths = np.empty(forms.size, np.float32)
    for block in range(forms.size):
        changed += seen[block] == CHANGED
        wrong += seen[block] == WRONG
        left += seen[block] == LEFT
        raw += forms[block] == RAW
        if forms[block] == CODED and seen[block] != LEFT:
            cell = np.float64(cells[block])
            noise_sq += lengths[block] * (cell * cell)
            widths[coded] = cells[block]
            coded += 1
    median = np.float64(_middle(widths, coded)) if coded else 0.0
    return changed, wrong, left, raw, noise_sq / 12, median


@nb.njit
def _middle(widths, count):
    """The median of the first `count`, bit by bit: numbers above 0 are in the order of their bits.
    (numpy's takes six seconds to compile.)
    """
    low, high = 0, FINITE
    while low < high:
        bits = (low + high) // 2
        within = 0
        for at in range(count):
            within += size_bits(widths[at]) <= bits
        if within > count // 2:
            high = bits
        else:
            low = bits + 1
    return from_bits(np.int32(low))
