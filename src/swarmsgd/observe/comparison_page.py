"""The page that compares algorithms in one simulated world, and the plots of curves on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis
from swarmsgd.observe.bars import Bar, bars
from swarmsgd.observe.colours import MUTED, looks
from swarmsgd.observe.curves import Band, RunCurve, band
from swarmsgd.observe.finals import (
    digits,
    final_table,
    judge,
    mean,
    percent,
    step_split,
)
from swarmsgd.observe.lines import Series, any_point, line_plot
from swarmsgd.observe.page import Legend, PagePart, Row, Table, page
from swarmsgd.scores import METRICS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STRONG = "swarm"
"""The group whose lines are thicker."""

LOG_TIMES = 6.0
"""The time axis is logarithmic if the slowest run takes so many times the fastest's time."""

TIME = Axis(title="virtual time (s)", unit="seconds")
EPOCHS = Axis(title="training samples of all nodes (epochs)")
TRAFFIC = Axis(title="sent by all nodes", log=True, unit="bytes")
GAMMA = Axis(title="Γ, sum over nodes of ‖model − mean‖²", log=True)


class View(NamedTuple):
    """A plot of one field of the curve against another."""

    title: str
    x_name: str
    x: Axis
    y_name: str
    y: Axis


def compare_page(
    runs: Sequence[RunCurve],
    title: str,
    notes: str = "",
    tables: Sequence[Table] = (),
) -> str:
    """The page that compares algorithms: score against time, samples and bytes, the final figures,
    the nodes' disagreement, and where a step's time goes.

    Several seeds of a run are drawn as their mean, with a band from the lowest to the highest.
    `notes` is Markdown. Raises ConfigError if there are no runs, or two of one label.
    """
    _check(runs, title)
    score = score_of(runs)
    parts: list[PagePart] = [notes] if notes else []
    parts += [runs_legend(runs), Row(score_panels(runs, score)), final_table(runs, score)]
    parts += [part for part in (gamma_figure(runs), step_figure(runs)) if part is not None]
    return page(title, [*parts, *tables])


def score_of(runs: Sequence[RunCurve]) -> str:
    """What the runs are judged by: what their summaries say, or the first of `METRICS` that all
    have.
    """
    told = {s["score"] for run in runs for s in run.summaries if s.get("score")}
    names = (*told, *METRICS) if len(told) == 1 else METRICS
    return next((name for name in names if all(run.has(name) for run in runs)), "loss")


def score_name(runs: Sequence[RunCurve], score: str) -> str:
    """The score's name, to begin a title with."""
    title = judge(runs, score).title
    return title[0].upper() + title[1:]


def _axis(runs: Sequence[RunCurve], score: str) -> Axis:
    if score == "accuracy":
        return Axis(title="test accuracy of the mean model", unit="percent")
    metric = judge(runs, score)
    return Axis(title=f"{metric.title} of the mean model", log=metric.log)


def score_panels(runs: Sequence[RunCurve], score: str) -> list[Figure]:
    """The score against virtual time, samples and bytes."""
    higher = judge(runs, score).higher
    axis = _zoomed(runs, score) if higher else score_axis(runs, score)
    name = score_name(runs, score)
    silent = any(_sends_nothing(run) for run in runs)
    levels = replace(axis, title=f"{axis.title}; dotted: sends nothing") if silent else axis
    views = (
        View(f"{name} over time", "time_s", time_axis(runs), score, axis),
        View(f"{name} over samples", "epoch", EPOCHS, score, axis),
        View(f"{name} over bytes sent", "bytes_sent", TRAFFIC, score, levels),
    )
    panels = [view_figure(runs, view) for view in views]
    return [panel for panel in panels if panel is not None]


def gamma_figure(runs: Sequence[RunCurve]) -> Figure | None:
    """How far the nodes' models are apart, over time; None if no run has two nodes apart."""
    apart = [run for run in runs if any(value > 0 for value in run.values("gamma"))]
    view = View("Disagreement of the nodes", "time_s", time_axis(apart), "gamma", GAMMA)
    return view_figure(runs, view, named=True)


def loss_figure(run: RunCurve) -> Figure | None:
    """Test and training loss of one run over its samples; None if it has neither."""
    pieces = (
        ("loss", "test", looks([run.group])[0]),
        ("train_loss", "training", (MUTED, "solid")),
    )
    series = [
        replace(_series(run, look, band(run, "epoch", name)), label=label)
        for name, label, look in pieces
    ]
    title = "mean model on test data; own models while training"
    y = Axis(title=title, log=_all_positive([run], "loss") and _all_positive([run], "train_loss"))
    if not any_point(series, EPOCHS, y):
        return None
    return line_plot(series, title="Loss over samples", x=EPOCHS, y=y)


def step_figure(runs: Sequence[RunCurve]) -> Figure | None:
    """Virtual time of a local step, computing and waiting; None if no summary says it."""
    rows: list[Bar] = []
    for run, (colour, _) in _with_looks(runs):
        split = step_split(run)
        if split is not None:
            waiting = percent(split[1] / sum(split), 0)
            text = f"{digits(run.figure('step_ms') or 0)} ms, {waiting} waiting"
            rows.append(
                Bar(label=run.label, first=split[0], second=split[1], text=text, colour=colour)
            )
    if not rows:
        return None
    return bars(
        rows,
        title="Virtual time of a local step",
        subtitle="solid: computing; pale: waiting for others; who has finished does neither",
        x_title="ms a step, mean over nodes",
        pieces=("computing (ms)", "waiting (ms)"),
    )


def view_figure(runs: Sequence[RunCurve], view: View, named: bool = False) -> Figure | None:
    """A line for each run; None if there is nothing to draw."""
    bands = [band(run, view.x_name, view.y_name, positive_x=view.x.log) for run in runs]
    reach = [value for b in bands for value in b.x]
    series = [
        _level(run, look, reach, view.y_name)
        if view.x_name == "bytes_sent" and _sends_nothing(run) and reach
        else _series(run, look, b)
        for (run, look), b in zip(_with_looks(runs), bands, strict=True)
    ]
    if not any_point(series, view.x, view.y):
        return None
    return line_plot(series, title=view.title, x=view.x, y=view.y, named=named)


def time_axis(runs: Sequence[RunCurve]) -> Axis:
    """Virtual time; logarithmic if the runs take very different times."""
    ends = [end for run in runs if (end := mean(run.finals("time_s")))]
    if len(ends) > 1 and max(ends) > LOG_TIMES * min(ends):
        return replace(TIME, title="virtual time (s), logarithmic", log=True)
    return TIME


def _check(runs: Sequence[RunCurve], title: str) -> None:
    if not runs:
        raise ConfigError(f"{title!r}: no runs to compare; give one at least")
    labels = [run.label for run in runs]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(
            f"{title!r}: two runs are labelled {twice[0]!r}; seeds of one run go into one "
            "RunCurve, other runs need labels of their own"
        )


def runs_legend(runs: Sequence[RunCurve]) -> Legend:
    """A page's legend of these runs."""
    return Legend([_series(run, look, Band()) for run, look in _with_looks(runs)])


def _with_looks(runs: Sequence[RunCurve]) -> list[tuple[RunCurve, tuple[str, str]]]:
    return list(zip(runs, looks([run.group for run in runs]), strict=True))


def _series(run: RunCurve, look: tuple[str, str], b: Band) -> Series:
    several = len(run.seeds) > 1
    return Series(
        label=run.label,
        x=b.x,
        y=b.mean,
        low=b.low if several else None,
        high=b.high if several else None,
        colour=look[0],
        dash=look[1],
        strong=run.group == STRONG,
        note=f"mean of {len(run.seeds)} seeds" if several else "",
        ended="no finite value from here on" if b.broke_off else "",
    )


def _sends_nothing(run: RunCurve) -> bool:
    return not any(value > 0 for value in run.values("bytes_sent"))


def _level(run: RunCurve, look: tuple[str, str], reach: Sequence[float], y_name: str) -> Series:
    """The final value of a run that sends no bytes, across the plot."""
    end = mean(run.finals(y_name))
    x = [] if end is None else [min(reach), max(reach)]
    return Series(
        label=run.label,
        x=x,
        y=[end] * len(x),
        colour=look[0],
        dash="dot",
        reference=True,
        note="final value; sends nothing",
    )


def _zoomed(runs: Sequence[RunCurve], score: str) -> Axis:
    """The axis of a score of which more is better; it begins below the worst end, where the runs
    can be told apart.
    """
    values = _values(runs, score)
    ends = [end for run in runs for end in run.finals(score)] or values
    spread = max(values) - min(ends)
    least = 0.06 if score == "accuracy" else 0.06 * max(values)
    low = max(min(values), min(ends) - max(least, 1.2 * spread))
    high = max(values) + 0.06 * (max(values) - low or 0.01)
    limits = (low, min(1.0, high) if score == "accuracy" else high)
    return replace(_axis(runs, score), limits=limits)


def score_axis(runs: Sequence[RunCurve], score: str) -> Axis:
    """The axis of a score, logarithmic where that tells more."""
    axis = _axis(runs, score)
    positive = _all_positive(runs, score)
    return replace(axis, log=positive and (axis.log or score == "loss"))


def _all_positive(runs: Sequence[RunCurve], name: str) -> bool:
    return all(value > 0 for value in _values(runs, name))


def _values(runs: Sequence[RunCurve], name: str) -> list[float]:
    return [value for run in runs for value in run.values(name)]
