"""How long steps take, and what of it is this package's."""

from __future__ import annotations

import numpy as np

KEPT = 1 << 16
"""Steps whose times are kept for the percentiles; the longest and the sums cover all."""


class _Times:
    """Seconds, many of them."""

    def __init__(self) -> None:
        self._kept = np.zeros(KEPT, np.float32)
        self._count = 0
        self._longest = 0.0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._kept[self._count % KEPT] = seconds
        self._count += 1
        self.total += seconds
        self._longest = max(self._longest, seconds)

    def figures(self, name: str) -> dict[str, float]:
        """Median and 99th percentile of the last 65,536, and the longest, under such names."""
        kept = self._kept[: min(self._count, KEPT)]
        p50, p99 = np.percentile(kept, [50, 99]) if len(kept) else (0.0, 0.0)
        found = {"p50": float(p50), "p99": float(p99), "max": self._longest}
        return {f"{name}_{which}": seconds for which, seconds in found.items()}


class StepTimes:
    """Seconds per step: from one to the next, work done in the hook, and waiting for an exchange
    (blocking modes only).
    """

    def __init__(self) -> None:
        self._steps, self._work = _Times(), _Times()
        self._stepped_at: float | None = None
        self.blocked_s = 0.0
        self.last_s = 0.0
        """The last step's work."""

    def stepped(self, now: float) -> None:
        """A step was made at `now`."""
        if self._stepped_at is not None:
            self._steps.add(now - self._stepped_at)
        self._stepped_at = now

    def add(self, work_s: float, waited_s: float) -> None:
        """One step's times."""
        self.last_s = work_s
        self._work.add(work_s)
        self.blocked_s += waited_s

    def figures(self) -> dict[str, float]:
        """Of steps, of the work in them, and the waiting, in seconds."""
        return {
            **self._steps.figures("step_s"),
            **self._work.figures("hook_s"),
            "hook_s_total": self._work.total,
            "blocked_s": self.blocked_s,
        }
