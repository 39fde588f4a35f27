"""How wide the cells of the next offer are: a prediction of each block's max-norm distance.

Nothing here is set by a user. Each of the last few exchanges, in either role, found a distance d of
a block, when bursts were b0 long (the largest |change| of the last few bursts); now they are b
long. With s = `_SPREAD` for a rotated code, else 1, the next distance is predicted as::

    max over the last few of   min(d b / b0, d + s (b - b0))    where b > b0 > 0
                               d + b                            where b0 = 0: nothing had moved
                               d                                else

and a margin comes on top. Before anything was found, nodes that began with equal models are taken
to be 2 b apart, one burst of either end; of others nothing is known, and the block goes as float32.

Bursts are measured in unrotated blocks, distances of a rotated code in rotated ones, where a
change can reach s times as far. Most reach less than that, so the first guess takes no account of
it; where all changes are of one size, as Adam's first, it fails.

Too narrow a cell costs one exchange of one block; too wide a one costs noise in the models, so the
prediction never grows on anything but what was seen. A cell that was too narrow is doubled. After
`PATIENCE` failures in a row, or the first one before anything was seen, the block goes as float32,
which always decodes.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt
from numba.core import types

from swarmsgd.codec.kernels.compiled import BYTES, VECTOR, kernel
from swarmsgd.codec.kernels.payloads import CODED, RAW
from swarmsgd.core.lattice import LARGEST_CELL
from swarmsgd.core.wire_code import Figures

PATIENCE = 2
_SPREAD = 5.0
"""The largest of 4,096 normal numbers in their standard deviations, and a little more: so large can
rotation make changes that are all of one size.
"""
_DISTANCES = 4
_BURSTS = 3
_MARGINS = {3: 1.15, 4: 1.25, 5: 1.4, 6: 1.5, 7: 1.75, 8: 2.0, 16: 8.0}
"""By bits: fewer leave less room, since the noise grows with the square of the margin."""

# The rows of what is known, one column a block: distances, newest first, with the burst of that
# time; bursts, newest first; failures in a row. A distance of -1 is for none yet, and with a burst
# of -1 all began equal.
_THEN = _DISTANCES
_BURST = _THEN + _DISTANCES
_FAILURES = _BURST + _BURSTS
_KNOWN = types.Array(types.float32, 2, "C")


class Cells:
    """What one node knows about the distances of one vector's blocks to other nodes."""

    def __init__(
        self, blocks: int, bits: int, *, rotated: bool = False, common_start: bool = False
    ) -> None:
        self._spread = _SPREAD if rotated else 1.0
        self._reach = ((1 << bits) - 1) / 2
        self._margin = _MARGINS[bits]
        self.known = np.zeros((_FAILURES + 1, blocks), np.float32)
        """[rows, P] all that it has learned."""
        self.known[:_DISTANCES] = -1
        if common_start:
            self.known[_THEN] = -1
        self._offered = np.zeros(blocks, np.float32)

    def choose(self) -> tuple[npt.NDArray[np.uint8], Figures]:
        """Forms and cells of the next offer: float32 for blocks of which nothing is known yet."""
        cells = self.predict()
        forms = np.empty(cells.size, np.uint8)
        _choose.compiled(self.known, self._margin / self._reach, forms, cells)
        return forms, cells

    def predict(self) -> Figures:
        """[P] the max-norm distance expected at the next exchange, without margin."""
        expected = np.empty(self.known.shape[1], np.float32)
        _predict.compiled(self.known, self._spread, expected)
        return expected

    def offered(self, cells: Figures) -> None:
        """The cells that the offer really has, as wide as float32 needs them."""
        self._offered = cells

    def burst(self, burst_max: Figures) -> None:
        """The largest |change| of the burst just ended."""
        _burst.compiled(self.known, burst_max)

    def saw(self, distance: Figures) -> None:
        """Max-norm distances that an exchange found; negative in blocks that were left out."""
        _saw.compiled(self.known, distance)

    def replied(self, distance: Figures) -> None:
        """As `saw`, for one's own offer: a block left out had too narrow a cell."""
        _replied.compiled(self.known, self._offered, self._reach / self._margin, distance)


@kernel(types.void(_KNOWN, types.float32, VECTOR))
def _predict(known, spread, expected):
    for block in range(expected.size):
        now = _largest_burst(known, block)
        largest = np.float32(2) * now if known[_THEN, block] < 0 else np.float32(0)
        for k in range(_DISTANCES):
            distance, then = known[k, block], min(known[_THEN + k, block], now)
            if distance >= 0:
                larger = distance + now  # as a first cell, where nothing had moved then
                if then > 0:
                    larger = np.fmin(distance + spread * (now - then), distance * (now / then))
                largest = np.maximum(largest, larger)
        expected[block] = largest


@kernel(types.void(_KNOWN, types.float32, BYTES, VECTOR))
def _choose(known, cells_in_distance, forms, cells):
    """Forms, and cells from the distances that are expected."""
    for block in range(cells.size):
        cell = cells[block] * cells_in_distance
        began_equal = known[_THEN, block] < 0 and cell > 0
        trusted = (known[0, block] >= 0 or began_equal) and known[_FAILURES, block] < PATIENCE
        coded = trusted and cell <= LARGEST_CELL
        forms[block] = CODED if coded else RAW
        cells[block] = cell if coded else np.float32(0)


@kernel(types.void(_KNOWN, VECTOR))
def _burst(known, burst_max):
    for block in range(burst_max.size):
        _push(known, _BURST, _BURSTS, block, burst_max[block])


@kernel(types.void(_KNOWN, VECTOR))
def _saw(known, distance):
    for block in range(distance.size):
        _remember(known, block, distance[block])


@kernel(types.void(_KNOWN, VECTOR, types.float32, VECTOR))
def _replied(known, offered, distance_in_cells, distance):
    for block in range(distance.size):
        if distance[block] < 0:
            if known[_THEN, block] < 0:  # a guess that failed: the next one would be no better
                known[_FAILURES, block] = PATIENCE
            elif offered[block] > 0:  # as float32 it fails for another reason than its cell
                _remember(known, block, np.float32(2) * offered[block] * distance_in_cells)
            known[_FAILURES, block] += np.float32(1)
        else:
            _remember(known, block, distance[block])
            known[_FAILURES, block] = 0


@nb.njit
def _largest_burst(known, block):
    largest = known[_BURST, block]
    for k in range(_BURST + 1, _BURST + _BURSTS):
        largest = max(largest, known[k, block])
    return largest


@nb.njit
def _remember(known, block, distance):
    if distance >= 0:
        _push(known, 0, _DISTANCES, block, distance)
        _push(known, _THEN, _DISTANCES, block, _largest_burst(known, block))


@nb.njit
def _push(known, first, count, block, value):
    """value on top of `count` rows; the last falls out."""
    for k in range(first + count - 1, first, -1):
        known[k, block] = known[k - 1, block]
    known[first, block] = value
