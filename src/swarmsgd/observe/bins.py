"""Figures over a time that nobody knows the end of, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple


class Bin(NamedTuple):
    """What fell into one stretch of time."""

    middle_s: float
    weight: float
    total: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Of the values."""
        return self.total / self.weight


class Bins:
    """Sums of values over stretches of equal length: when time outruns them, each two become one.

    Times are seconds >= 0; earlier ones count as 0.
    """

    __slots__ = ("_count", "_high", "_low", "_most", "_total", "width_s")

    def __init__(self, most: int = 240, width_s: float = 0.05) -> None:
        self.width_s = width_s
        self._most = most
        self._count: list[float] = []
        self._total: list[float] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def add(self, t: float, value: float = 1.0, weight: float = 1.0) -> None:
        """`value`, `weight` times, at time t."""
        at = int(t / self.width_s) if t > 0 else 0
        while at >= self._most:
            self._halve()
            at = int(t / self.width_s)
        while at >= len(self._count):
            self._count.append(0.0)
            self._total.append(0.0)
            self._low.append(math.inf)
            self._high.append(-math.inf)
        self._count[at] += weight
        self._total[at] += weight * value
        self._low[at] = min(self._low[at], value)
        self._high[at] = max(self._high[at], value)

    def _halve(self) -> None:
        self.width_s *= 2
        self._count = [sum(self._count[i : i + 2]) for i in range(0, len(self._count), 2)]
        self._total = [sum(self._total[i : i + 2]) for i in range(0, len(self._total), 2)]
        self._low = [min(self._low[i : i + 2]) for i in range(0, len(self._low), 2)]
        self._high = [max(self._high[i : i + 2]) for i in range(0, len(self._high), 2)]

    def __iter__(self) -> Iterator[Bin]:
        """Those that hold anything, in order."""
        rows = zip(self._count, self._total, self._low, self._high, strict=True)
        for i, (count, total, low, high) in enumerate(rows):
            if count:
                yield Bin((i + 0.5) * self.width_s, count, total, low, high)

    def totals(self, width_s: float, length: int) -> list[float]:
        """The sums over `length` stretches of `width_s`, no shorter than these: 0 where nothing
        fell.
        """
        found = [0.0] * length
        for one in self:
            found[min(length - 1, int(one.middle_s / width_s))] += one.total
        return found
