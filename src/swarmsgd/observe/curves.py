"""The curve of a simulated run, read from its folders, and the mean of several seeds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.folder import CURVE, SUMMARY
from swarmsgd.observe.records import Record, read_records


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One algorithm's runs in one world: a list of records of kind "curve" for each seed, their
    `scores` as fields of their own, and what each seed's `summary.json` says.

    `label` names it on the page, `group` is the algorithm that gives the colour.
    """

    label: str
    group: str
    seeds: Sequence[Sequence[Record]]
    summaries: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        if not any(self.seeds):
            raise ConfigError(
                f"run {self.label!r} has no points: give the records of kind 'curve' of one seed "
                "at least"
            )

    def has(self, name: str) -> bool:
        """Whether any point of any seed has a finite value there."""
        return bool(self.values(name))

    def values(self, name: str) -> list[float]:
        """All finite values, of all points of all seeds."""
        found = (point.get(name) for points in self.seeds for point in points)
        return [float(value) for value in found if _finite(value)]

    def finals(self, name: str) -> list[float]:
        """The last value of each seed; seeds that broke off are left out."""
        last = (points[-1].get(name) for points in self.seeds if points)
        return [float(value) for value in last if _finite(value)]

    def broken(self, name: str) -> int:
        """Seeds whose last point has no finite value, though earlier ones have (diverged)."""
        return sum(_breaks_off(points, name) for points in self.seeds)

    def figure(self, name: str) -> float | None:
        """Mean over the seeds of a figure of their summaries; None where none has it."""
        values = [s[name] for s in self.summaries if _finite(s.get(name))]
        return float(np.mean(values)) if values else None


def read_run(label: str, group: str, folders: Sequence[str | os.PathLike[str]]) -> RunCurve:
    """The runs in these folders, one a seed. A missing `summary.json` (a run that was ended early)
    counts as an empty one.

    Raises DataError for a missing or damaged file, ConfigError if no folder holds a point.
    """
    seeds = [
        [
            {**(point.get("scores") or {}), **point}
            for point in read_records(Path(folder) / CURVE)
            if point["kind"] == "curve"
        ]
        for folder in folders
    ]
    summaries = [_summary(Path(folder) / SUMMARY) for folder in folders]
    return RunCurve(label=label, group=group, seeds=seeds, summaries=summaries)


def _summary(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the summary {path}: {error}; run it again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, not an object; run it again")
    return found


@dataclass(frozen=True)
class Band:
    """A curve over the seeds of a run: mean, lowest and highest, all of one length."""

    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    broke_off: bool = False
    """A seed's values ended (diverged) before its run did; the curve ends with it."""


def band(run: RunCurve, x: str, y: str, *, positive_x: bool = False) -> Band:
    """y against x over the seeds of the run, linearly interpolated at every seed's points.

    Points where either is null are left out, with `positive_x` also those with x <= 0 (for a
    logarithmic axis). The band starts where the last seed starts and ends where the last one ends;
    a seed that ends sooner keeps its last value, so the mean's last value is the mean of theirs.
    Once a seed breaks off there is no mean any more. Empty if a seed has no points.
    """
    broken = run.broken(y) > 0
    pairs = [_pairs(points, x, y, positive_x) for points in run.seeds if points]
    if not all(len(xs) for xs, _ in pairs):
        return Band(broke_off=broken)
    first = max(xs[0] for xs, _ in pairs)
    ends = [xs[-1] for xs, _ in pairs]
    last = max(first, min(ends) if broken else max(ends))
    every = np.unique(np.concatenate([xs for xs, _ in pairs]))
    grid = np.unique([first, *every[(every > first) & (every < last)], last])
    values = np.stack([np.interp(grid, xs, ys) for xs, ys in pairs])
    rows = (grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0))
    x_list, middle, low, high = (row.tolist() for row in rows)
    return Band(x_list, middle, low, high, broken)


def first_reach(
    run: RunCurve, x: str, y: str, target: float, *, higher: bool = True
) -> float | None:
    """Mean over the seeds of the first x at which y is at least the target (at most, if less is
    better); None if a seed never gets there.
    """
    found: list[float] = []
    for points in run.seeds:
        xs, ys = _pairs(points, x, y, False)
        there = np.flatnonzero(ys >= target if higher else ys <= target)
        if len(there) == 0:
            return None
        found.append(float(xs[there[0]]))
    return float(np.mean(found))


def _pairs(
    points: Sequence[Record], x: str, y: str, positive_x: bool
) -> tuple[np.ndarray, np.ndarray]:
    pairs = [
        (float(point[x]), float(point[y]))
        for point in points
        if _finite(point.get(x)) and _finite(point.get(y)) and (point[x] > 0 or not positive_x)
    ]
    table = np.array(sorted(pairs, key=lambda pair: pair[0]), dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _breaks_off(points: Sequence[Record], y: str) -> bool:
    """A point that does not tell y says nothing of it; one that has it as null does."""
    has = [_finite(point[y]) for point in points if y in point]
    return any(has) and not has[-1]


def _finite(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
