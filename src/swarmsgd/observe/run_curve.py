"""Any run as a curve of the whole, real or simulated, so that all can be drawn in one plot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from swarmsgd.observe.colours import ALGORITHM_COLOURS
from swarmsgd.observe.curves import RunCurve
from swarmsgd.observe.records import Record
from swarmsgd.observe.sources import Run
from swarmsgd.observe.story import Story, finite
from swarmsgd.observe.summary import FIGURES

SCORES = ("loss", "accuracy")


def run_curves(runs: Sequence[Run]) -> list[RunCurve]:
    """A curve of each run that has a point; algorithms give the colours if they differ."""
    found = [(run, clean_summary(run.summary), _points_of(run)) for run in runs]
    algorithms = [summary.get("algorithm") for _, summary, _ in found]
    by_algorithm = len(set(algorithms)) == len(runs) and set(algorithms) <= set(ALGORITHM_COLOURS)
    return [
        RunCurve(
            label=run.label,
            group=str(summary["algorithm"]) if by_algorithm else run.label,
            seeds=[points],
            summaries=[summary],
        )
        for run, summary, points in found
        if points
    ]


def _points_of(run: Run) -> list[Record]:
    """Points with fields as in records of kind "curve"; a real run's are made from its nodes'
    records, with Gamma as they estimate it and the mean model's score at the end.
    """
    if run.story.curve:
        return [_clean_point(point) for point in run.story.curve]
    points = _points(run.story, finite(run.summary.get("samples")), run.summary.get("epochs"))
    mean = next(
        (node.last["eval mean"] for node in run.story.nodes.values() if "eval mean" in node.last),
        None,
    )
    if points and mean is not None:
        points[-1] |= {name: finite(mean.get(name)) for name in SCORES}
    return points


def _points(story: Story, samples: float | None, epochs: Any) -> list[Record]:
    filled = story.samples, story.traffic, story.mixing, story.losses, story.estimates
    width = max(bins.width_s for bins in filled)
    # Not up to the last record of all: an event may be from long after, or of a foreign clock.
    length = 1 + max((int(one.middle_s / width) for bins in filled for one in bins), default=0)
    sums = {
        "samples": _sums(story.samples.totals(width, length)),
        "bytes_sent": _sums(story.traffic.totals(width, length)),
        "exchanges": _sums(story.mixing.totals(width, length)),
    }
    means = {"train_loss": story.losses, "gamma": story.estimates}
    by_time = {
        name: {int(one.middle_s / width): one.mean for one in bins} for name, bins in means.items()
    }
    epoch = finite(epochs)
    scale = epoch / samples if epoch and samples else None
    kept = sorted({at for found in by_time.values() for at in found if at < length})
    return [
        {
            "time_s": (at + 0.5) * width,
            **{name: totals[at] for name, totals in sums.items()},
            **{name: found[at] for name, found in by_time.items() if at in found},
            "epoch": scale * sums["samples"][at] if scale else None,
        }
        for at in kept
    ]


def _sums(values: list[float]) -> list[float]:
    return list(accumulate(values))


def _clean_point(point: Record) -> Record:
    scores = point.get("scores")
    own = scores if isinstance(scores, dict) else {}
    return {str(name): finite(value) for name, value in {**own, **point}.items()}


def clean_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that are what they should be; a file may hold anything."""
    kinds: dict[str, tuple[type, ...]] = {
        "text": (str,),
        "flag": (bool,),
        "list": (list,),
        "object": (dict,),
    }
    found = {
        name: value
        for name, value in summary.items()
        if name in FIGURES
        and (
            isinstance(value, kinds[FIGURES[name].unit])
            if FIGURES[name].unit in kinds
            else finite(value) is not None
        )
    }
    scores = found.get("scores", {})
    return found | {"scores": {str(k): v for k, v in scores.items() if finite(v) is not None}}


def safe_label(text: str) -> str:
    """A name for a run that no page takes for markup."""
    return re.sub(r"[^\w .,()/+=@-]", "·", text)[:60] or "run"
