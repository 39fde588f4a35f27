"""Virtual time: what is to happen when. Ties happen in the order they were put down."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Agenda:
    """A heap of (time, order, call, argument)."""

    __slots__ = ("_heap", "_order", "done", "now")

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the start; never goes back."""
        self.done = 0
        """Entries carried out."""
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = 0

    def at(self, time_s: float, call: Callable[[Any], None], argument: Any) -> None:
        """`call(argument)` at `time_s`, or now if that is past."""
        self._order += 1
        heapq.heappush(self._heap, (max(time_s, self.now), self._order, call, argument))

    def step(self) -> bool:
        """Do the next thing; whether there was one."""
        if not self._heap:
            return False
        self.now, _, call, argument = heapq.heappop(self._heap)
        self.done += 1
        call(argument)
        return True
