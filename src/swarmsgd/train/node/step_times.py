"""How long steps take, and what of it is this package's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

KEPT = 1 << 16
"""Steps whose times are kept for the percentiles; the longest and the sums cover all."""


class StepTimes:
    """Seconds per step: from one to the next, work done in the hook, and waiting for an exchange
    (blocking modes only).
    """

    def __init__(self) -> None:
        self._count = 0
        self._began = 0.0
        self._steps, self._work = np.zeros((2, KEPT), np.float32)
        self._longest_step = self._longest_work = self._all_work = 0.0
        self.blocked_s = 0.0
        self.last_s = 0.0
        """The last step's work."""

    def add(self, began: float, work_s: float, waited_s: float) -> None:
        """One step's times; at `began` it was made, and the work began."""
        at = self._count % KEPT
        if self._count:
            self._steps[at] = step_s = began - self._began
            self._longest_step = max(self._longest_step, step_s)
        self._work[at] = work_s
        self._longest_work = max(self._longest_work, work_s)
        self._all_work += work_s
        self._count += 1
        self._began, self.last_s = began, work_s
        self.blocked_s += waited_s

    def so_far(self) -> dict[str, float]:
        """What of the figures costs nothing."""
        return {"blocked_s": self.blocked_s, "step_s_max": self._longest_step}

    def figures(self) -> dict[str, float]:
        """Of steps, of the work in them, and the waiting, in seconds. Median and 99th percentile
        are of the last 65,536.
        """
        first = int(self._count <= KEPT)  # nothing was before the first step
        return {
            **_figures("step_s", self._steps[first : self._count], self._longest_step),
            **_figures("hook_s", self._work[: self._count], self._longest_work),
            "hook_s_total": self._all_work,
            "blocked_s": self.blocked_s,
        }


def _figures(name: str, kept: npt.NDArray[np.float32], longest: float) -> dict[str, float]:
    p50, p99 = np.percentile(kept, [50, 99]) if len(kept) else (0.0, 0.0)
    return {f"{name}_p50": float(p50), f"{name}_p99": float(p99), f"{name}_max": longest}
