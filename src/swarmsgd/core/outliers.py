"""A received model that is much farther away than those before is refused: a broken or lying peer.

Distances of honest models change with the learning rate, not from one exchange to the next. The
exchange machine is told before anything is mixed, so an answer that is refused leaves the sum of
copies as it was.
"""

from __future__ import annotations

import math

from swarmsgd.errors import ProtocolError

SEEN = 8
"""So many exchanges come first, which show what is usual."""
_KEEP = 0.9


class Outliers:
    """Refuses what is more than `most` times farther than usual."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._usual = 0.0
        self._seen = 0

    def check(self, distance_sq: float) -> None:
        """Raises ProtocolError for an outlier; others are learned from."""
        distance = math.sqrt(distance_sq)
        if self._seen >= SEEN and distance > self._most * self._usual:
            raise ProtocolError(
                f"its model is {distance / max(self._usual, 1e-30):.3g} times farther from this "
                f"node's than usual, more than {self._most:g} (refuse_beyond): not mixed"
            )
        self._seen += 1
        if self._seen <= SEEN:
            self._usual = max(self._usual, distance)
        else:
            self._usual = _KEEP * self._usual + (1 - _KEEP) * distance
