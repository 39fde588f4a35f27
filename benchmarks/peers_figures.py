"""What the lines of the nodes of `peers.py` tell: figures, and a row of the table."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from bench import median

NODES, VICTIM = 4, 3
SURVIVORS = range(VICTIM)
SILENT_S = 15.0
"""A survivor that made no step for so long at the end of the watch is held for dead."""
FULL = 0.9
"""The share of the calm throughput that counts as full, over windows of WINDOW_S."""
WINDOW_S = 1.0


def figures(
    said: list[dict[str, Any]], calm: float, killed: float, returns: float, end: float
) -> dict[str, Any]:
    """What the lines of the nodes tell; None stands for never, times are in seconds.

    Throughput is full where each survivor makes FULL of its steps of the calm. A dip is a stretch
    below that is longer than any of the calm: some tools stall at every averaging.
    """
    steps = [line for line in said if line.get("at", 0.0) >= calm]
    of = [np.array([s["at"] for s in steps if s["slot"] == slot]) for slot in SURVIVORS]
    lives = all(len(at) and end - at[-1] < SILENT_S for at in of)
    gaps = [pair for at in of for pair in pairwise([*at, end] if lives else at)]
    usual, dips = 0.0, []
    for at in of:
        rate = (at < killed).sum() / (killed - calm)
        usual = max([usual, *(b - a for a, b in slow(at, calm, killed, rate))])
        dips += slow(at, killed, end, rate)
    dips = [(a, b) for a, b in dips if b - a > usual + WINDOW_S / 2]
    full = max((b for a, b in dips if a < returns), default=killed)
    before = {s["pid"] for s in steps if s["at"] < killed}
    came = [s["at"] for s in steps if s["slot"] == VICTIM and s["pid"] not in before]
    return {
        "steps_s": sum(float((at < killed).sum()) for at in of) / (killed - calm),
        "step_s": median(b - a for a, b in gaps if b < killed),
        "longest_calm_s": max(b - a for a, b in gaps if b < killed),
        "longest_s": max((b - a for a, b in gaps if b >= killed and a < returns), default=None),
        "longest_return_s": max((b - a for a, b in gaps if a >= returns), default=None),
        "full_s": full - killed if lives and full < end - WINDOW_S else None,
        "lives": lives,
        "trains_again_s": min(came) - returns if came else None,
        "counted_s": counted(steps, returns),
        "dip_in_calm_s": usual,
        "members": changes(steps, killed),
    }


def slow(steps: np.ndarray, begin: float, end: float, rate: float) -> list[tuple[float, float]]:
    """The stretches whose windows hold less than FULL of `rate` steps a second: when the first
    such window begins, and when the first full one does, or `end`."""
    starts = np.arange(begin, end - WINDOW_S, 0.05)
    held = np.searchsorted(steps, starts + WINDOW_S) - np.searchsorted(steps, starts)
    below = np.flatnonzero(np.diff(np.r_[0, held < FULL * WINDOW_S * rate, 0]))
    starts = np.r_[starts, end]
    return [(float(starts[a]), float(starts[b])) for a, b in below.reshape(-1, 2)]


def counted(steps: list[dict[str, Any]], returns: float) -> float | None:
    """From the start of the new process to when each survivor counts one more than before; the dead
    one may still be among them. None where one never does, or nobody counts."""
    times = []
    for slot in SURVIVORS:
        seen = [(s["at"], s["members"]) for s in steps if s["slot"] == slot and "members" in s]
        before = [members for at, members in seen if at < returns]
        more = [at for at, members in seen if at >= returns and members > before[-1]]
        if not more:
            return None
        times.append(more[0])
    return max(times) - returns


def changes(steps: list[dict[str, Any]], killed: float) -> list[tuple[float, int]]:
    """When, since the kill, the first survivor counted how many nodes, where that changed."""
    seen = [(s["at"] - killed, s["members"]) for s in steps if s["slot"] == 0 and "members" in s]
    return [after for before, after in pairwise([(0.0, 0), *seen]) if after[1] != before[1]]


HEAD = [
    "tool", "step, ms", "longest in calm, s", "longest after the kill, s", "full throughput, s",
    "job lives", "dead trains again, s", "counted again, s", "longest at its return, s",
]  # fmt: skip


def row(name: str, f: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if "error" in f:
        return [name, "failed, see below", *["-"] * (len(HEAD) - 2)]

    def seconds(key: str, none: str = "never") -> str:
        return none if f[key] is None else f"{f[key]:.2f}"

    lives = "yes" if f["lives"] else "no"
    cells = [name, f"{1000 * f['step_s']:.1f}", seconds("longest_calm_s")]
    cells += [seconds("longest_s", "ended") if f["lives"] else "ended", seconds("full_s"), lives]
    cells += [seconds("trains_again_s"), seconds("counted_s", "-")]
    return [*cells, seconds("longest_return_s", "-")]
