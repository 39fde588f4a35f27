"""How wide the cells of the next offer are: a prediction of each block's max-norm distance.

Nothing here is set by a user. A block's distance to the next partner is taken to be the largest of
the last few that exchanges found, in either role. If bursts have grown since one of them was found,
it counts for more: as many times as the bursts have, but at most by the difference of the bursts,
which is how much further one of them carries a model. A margin comes on top.

Too narrow a cell costs one exchange of one block; too wide a one costs noise in the models, so the
prediction never grows on anything but what was seen. A cell that was too narrow is doubled, and
after `PATIENCE` failures in a row the block goes as float32, which always decodes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swarmsgd.codec.kernels import CODED, RAW
from swarmsgd.core.lattice import LARGEST_CELL

Figures = npt.NDArray[np.float32]
"""[P] one value a block."""

PATIENCE = 2
_DISTANCES = 4
_BURSTS = 3
_MARGINS = {3: 1.15, 4: 1.25, 5: 1.4, 6: 1.5, 7: 1.75, 8: 2.0, 16: 8.0}
"""By bits: fewer leave less room, since the noise grows with the square of the margin."""


class Cells:
    """What one node knows about the distances of one vector's blocks to other nodes."""

    def __init__(self, blocks: int, bits: int) -> None:
        self._reach = ((1 << bits) - 1) / 2
        self._margin = _MARGINS[bits]
        # Newest first, with the burst of that time; -1 is for none yet.
        self._distances = np.full((_DISTANCES, blocks), -1, np.float32)
        self._burst_then = np.zeros((_DISTANCES, blocks), np.float32)
        self._bursts = np.zeros((_BURSTS, blocks), np.float32)
        self._failures = np.zeros(blocks, np.uint8)
        self._offered = np.zeros(blocks, np.float32)

    def choose(self) -> tuple[npt.NDArray[np.uint8], Figures]:
        """Forms and cells of the next offer: float32 for blocks of which nothing is known yet."""
        cells = self.predict() * np.float32(self._margin / self._reach)
        known = (self._distances[0] >= 0) & (self._failures < PATIENCE) & (cells <= LARGEST_CELL)
        return np.where(known, CODED, RAW).astype(np.uint8), np.where(known, cells, 0)

    def predict(self) -> Figures:
        """[P] the max-norm distance expected at the next exchange, without margin."""
        now = self._bursts.max(0)
        then = np.minimum(self._burst_then, now)
        further = self._distances + (now - then)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            larger = np.fmin(self._distances * (now / then), further)
        return np.where(self._distances >= 0, larger, 0).max(0)

    def offered(self, cells: Figures) -> None:
        """The cells that the offer really has, as wide as float32 needs them."""
        self._offered = cells

    def burst(self, burst_max: Figures) -> None:
        """The largest |change| of the burst just ended."""
        self._bursts = np.concatenate([burst_max[None], self._bursts[:-1]])

    def saw(self, distance: Figures) -> None:
        """Max-norm distances that an exchange found; negative in blocks that were left out."""
        seen = distance >= 0
        now = self._bursts.max(0)
        self._distances = _push(self._distances, distance, seen)
        self._burst_then = _push(self._burst_then, now, seen)

    def replied(self, distance: Figures) -> None:
        """As `saw`, for one's own offer: a block left out had too narrow a cell."""
        failed = distance < 0
        wider = 2 * self._offered * np.float32(self._reach / self._margin)
        self.saw(np.where(failed & (wider > 0), wider, distance))
        self._failures = np.where(failed, self._failures + 1, 0).astype(np.uint8)


def _push(newest_first: Figures, value: Figures, where: npt.NDArray[np.bool_]) -> Figures:
    pushed = np.concatenate([value[None], newest_first[:-1]])
    return np.where(where, pushed, newest_first)
