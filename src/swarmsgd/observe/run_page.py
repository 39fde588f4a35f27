"""The page of runs from their folders: one run, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis
from swarmsgd.observe.bars import Bar, bars
from swarmsgd.observe.bins import Bins
from swarmsgd.observe.comparison_page import (
    EPOCHS,
    GAMMA,
    View,
    loss_figure,
    runs_legend,
    score_axis,
    score_name,
    score_of,
    view_figure,
)
from swarmsgd.observe.curves import RunCurve
from swarmsgd.observe.event_table import events_table
from swarmsgd.observe.finals import digits, seeds_table
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.network import network_figure
from swarmsgd.observe.page import PagePart, Row, page, write_page
from swarmsgd.observe.run_curve import run_curves, safe_label
from swarmsgd.observe.run_tables import (
    environment_table,
    first_figures,
    headline,
    nodes_table,
    settings_table,
)
from swarmsgd.observe.sources import Run, read_whole
from swarmsgd.observe.story import NodeStory, Story
from swarmsgd.observe.timeline import meetings_figure, timeline_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_RUNS = 12
MOST_BARS = 16
COLOUR = "#3B6EA8"


def report_of(folders: Sequence[Path], out: Path) -> Path:
    """Write the page of the runs in these folders. Raises as `page_of`, and ConfigError if it
    cannot be written.
    """
    return write_page(out, page_of(folders))


def page_of(folders: Sequence[Path]) -> str:
    """The page of the runs in these folders. Raises DataError for what is no run's folder,
    ConfigError for too many.
    """
    if len(folders) > MOST_RUNS:
        raise ConfigError(
            f"{len(folders)} runs on one page, wanted at most {MOST_RUNS}; make several pages"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("a run is named twice: name each folder once")
    runs = [
        read_whole(folder, label) for folder, label in zip(folders, labels(folders), strict=True)
    ]
    return runs_page(runs)


def labels(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with as much of the path before it as tells them apart."""
    paths = [folder.resolve() for folder in folders]
    found: list[str] = []
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        found = [safe_label("/".join(path.parts[-depth:])) for path in paths]
        if len(set(found)) == len(found):
            return found
    return [f"{name} ({i})" for i, name in enumerate(found, 1)]


def runs_page(runs: Sequence[Run]) -> str:
    """The HTML."""
    title = "Run " + runs[0].label if len(runs) == 1 else f"{len(runs)} runs side by side"
    parts: list[PagePart] = ["\n\n".join(headline(run) for run in runs)]
    curves = run_curves(runs)
    if len(curves) > 1:
        parts.append(runs_legend(curves))
    if figures := overview(curves, time_title(runs)):
        parts.append(Row(figures))
    parts.append(first_figures(runs))
    for run in runs:
        if len(runs) > 1:
            parts.append(f"## {run.label}")
        parts += details(run)
    parts += [seeds_table(curve) for curve in curves if any(curve.summaries)]
    return page(title, parts)


def time_title(runs: Sequence[Run]) -> str:
    """What the time of these runs is called."""
    kinds = {bool(run.story.curve) for run in runs}
    if kinds == {True}:
        return "virtual time (s)"
    return "time (s)" if kinds == {False} else "time (s); virtual for simulated runs"


def overview(curves: Sequence[RunCurve], time_title: str) -> list[Figure]:
    """The runs as wholes, in the same plots."""
    if not curves:
        return []
    time, score = Axis(title=time_title, unit="seconds"), score_of(curves)
    estimated = any("gamma_estimate" not in p for run in curves for p in run.seeds[0])
    apart = replace(GAMMA, title=GAMMA.title + "; real runs: estimated" * estimated)
    total = "all nodes, so far"
    views = [
        *_score_views(curves, score, time),
        View("Training loss over time", "time_s", time, "train_loss", _loss_axis(curves)),
        View("Training loss over samples", "epoch", EPOCHS, "train_loss", _loss_axis(curves)),
        View("Disagreement of the nodes", "time_s", time, "gamma", apart),
        View("Exchanges", "time_s", time, "exchanges", Axis(title=total)),
        View("Traffic", "time_s", time, "bytes_sent", Axis(title=total, unit="bytes")),
    ]
    named = 1 < len(curves) <= 4
    figures = [view_figure(curves, view, named=named) for view in views]
    if len(curves) == 1 and len(views) > 5:  # it was scored on the way: test and training losses
        figures[3] = loss_figure(curves[0])
    return [figure for figure in figures if figure is not None]


def _loss_axis(curves: Sequence[RunCurve]) -> Axis:
    positive = all(value > 0 for run in curves for value in run.values("train_loss"))
    return Axis(title="mean of the nodes' own training losses", log=positive)


def _score_views(curves: Sequence[RunCurve], score: str, time: Axis) -> list[View]:
    """What runs are judged by, if one was scored more than once."""
    known = [sum(point.get(score) is not None for point in run.seeds[0]) for run in curves]
    if max(known) < 2:
        return []
    name, axis = score_name(curves, score), score_axis(curves, score)
    return [
        View(f"{name} over time", "time_s", time, score, axis),
        View(f"{name} over samples", "epoch", EPOCHS, score, axis),
    ]


def details(run: Run) -> list[PagePart]:
    """What is shown of one run."""
    figures = detail_figures(run)
    tables = (
        nodes_table(run),
        events_table(run),
        settings_table(run),
        environment_table(run),
    )
    parts: list[PagePart] = [Row(figures)] if figures else []
    return [*parts, *(table for table in tables if table is not None)]


def detail_figures(run: Run) -> list[Figure]:
    """The plots of one run: graph, timeline, steps, exchanges."""
    story, unit = run.story, time_title([run])
    found = (
        network_figure(story, speeds(story)),
        timeline_figure(story, unit),
        steps_figure(story),
        meetings_figure(story, unit),
        _over_time(story.latencies, "Time of an exchange", "offer to mixed reply, ms", unit, 1000),
        _over_time(story.distances, "Distance of the two models of an exchange", "norm", unit),
        _over_time(story.left_out, "Blocks left out of exchanges", "of those with any", unit),
    )
    return [figure for figure in found if figure is not None]


def speeds(story: Story) -> dict[int, float]:
    """Local steps a second of each node that tells: lately, or of the whole run; of a simulated
    one while it computes. A real one may be slow by a few steps that take long: so when it is over
    the mean counts, not the median.
    """
    found = {
        number: (node.mean_ms if node.step_times and not story.curve else None) or node.step_ms
        for number, node in story.nodes.items()
    }
    return {number: 1000 / step_ms for number, step_ms in found.items() if step_ms}


def steps_figure(story: Story) -> Figure | None:
    """Times of a step, the slowest nodes on top; None if no node tells."""
    simulated, told = bool(story.curve), any(n.step_times for n in story.nodes.values())
    rows = [row for node in story.nodes.values() if (row := _step_bar(node, simulated)) is not None]
    rows.sort(key=lambda row: -row.first)
    if not rows:
        return None
    left = f"; the {MOST_BARS} slowest of {len(rows)} nodes" if len(rows) > MOST_BARS else ""
    said = "solid: median; pale: up to the 99th percentile" if told else "mean of the last seconds"
    pieces = ("median (ms)", "p99 − p50 (ms)") if told else ("mean (ms)", "")
    if simulated:
        said, pieces = "solid: computing; pale: waiting", ("computing (ms)", "waiting (ms)")
    return bars(
        rows[:MOST_BARS],
        title="Time of a local step",
        subtitle=f"{said}{left}",
        x_title="ms a step",
        pieces=pieces,
        room=3.0,
    )


def _step_bar(node: NodeStory, simulated: bool) -> Bar | None:
    step_ms, times, pale = node.step_ms, node.step_times, 0.0
    if step_ms is None:
        return None
    text = f"{digits(step_ms)} ms"
    if times is not None:
        pale = max(0.0, times.p99 - times.p50)
        if node.mean_ms is not None and not simulated:
            text += f", mean {digits(node.mean_ms)}"
        text += f", longest {digits(times.max)}"
    elif simulated and node.steps:
        pale = min(step_ms, 1000 * (node.blocked_s or 0.0) / node.steps)
    name = f"node {node.node}"
    return Bar(label=name, first=step_ms - pale * simulated, second=pale, text=text, colour=COLOUR)


def _over_time(
    bins: Bins, title: str, y_title: str, unit: str, scale: float = 1.0
) -> Figure | None:
    """Mean and reach of a figure over time; None if there is none."""
    found = [one for one in bins if one.high > 0]
    if not found:
        return None
    series = Series(
        label="mean",
        x=[one.middle_s for one in found],
        y=[scale * one.mean for one in found],
        low=[scale * one.low for one in found],
        high=[scale * one.high for one in found],
        colour=COLOUR,
        note=f"of {len(found)} stretches of time; band: lowest to highest",
    )
    log = all(one.low > 0 for one in found)
    y = Axis(title=f"{y_title}; mean, lowest, highest", log=log)
    return line_plot([series], title=title, x=Axis(title=unit, unit="seconds"), y=y, named=False)
