"""What a step costs the training thread."""

from __future__ import annotations

import numpy as np

KEPT = 1 << 16
"""Steps whose times are kept for the percentiles; the longest and the sums cover all."""


class StepTimes:
    """Seconds per step: work done in the hook, and waiting for an exchange (blocking modes
    only).
    """

    def __init__(self) -> None:
        self._work_s = np.zeros(KEPT, np.float32)
        self._count = 0
        self._longest_s = 0.0
        self._total_s = 0.0
        self.blocked_s = 0.0
        self.last_s = 0.0
        """The last step's work."""

    def add(self, work_s: float, waited_s: float) -> None:
        """One step's times."""
        self.last_s = work_s
        self._work_s[self._count % KEPT] = work_s
        self._count += 1
        self._total_s += work_s
        self._longest_s = max(self._longest_s, work_s)
        self.blocked_s += waited_s

    def figures(self) -> dict[str, float]:
        """Median, 99th percentile (of the last 65,536 steps), longest and sum, in seconds."""
        kept = self._work_s[: min(self._count, KEPT)]
        p50, p99 = np.percentile(kept, [50, 99]) if len(kept) else (0.0, 0.0)
        return {
            "hook_s_p50": float(p50),
            "hook_s_p99": float(p99),
            "hook_s_max": self._longest_s,
            "hook_s_total": self._total_s,
            "blocked_s": self.blocked_s,
        }
