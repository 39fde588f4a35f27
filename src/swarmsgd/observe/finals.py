"""The final figures of simulated runs as tables, and how numbers are written in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from swarmsgd.observe.console import bytes_text, clock_text
from swarmsgd.observe.curves import RunCurve, first_reach
from swarmsgd.observe.page import Table
from swarmsgd.scores import METRICS, Metric, metric_of

NONE = "–"


def judge(runs: Sequence[RunCurve], score: str) -> Metric:
    """How the score that runs are judged by is shown; whether more of it is better is said by the
    summaries, if it is a task's own.
    """
    told = (s.get("better") for run in runs for s in run.summaries if s.get("score") == score)
    return metric_of(score, higher="higher" in told)


def final_table(runs: Sequence[RunCurve], score: str) -> Table:
    """The last figures of each run; the best score and the shortest times are bold."""
    columns = {
        f"final {judge(runs, score).title}": _score_cells(runs, score),
        "lowest – highest": [_spread(_whole(run, score), score) for run in runs],
        "seeds": [_seeds(run, score) for run in runs],
        "rate": [_cell(run.figure("lr"), trimmed) for run in runs],
        "virtual time": _times(runs, score),
        **_to_target(runs, score),
        **_step_columns(runs),
        "sent": [_cell(mean(run.finals("bytes_sent")), bytes_text) for run in runs],
        "Γ": [_cell(mean(run.finals("gamma")), digits) for run in runs],
    }
    shown = {name: cells for name, cells in columns.items() if set(cells) - {"", NONE}}
    rows = [
        [run.label + "*" * bool(_stopped(run)), *(cells[i] for cells in shown.values())]
        for i, run in enumerate(runs)
    ]
    return Table(
        title="Final figures",
        columns=["", *shown],
        rows=rows,
        note="Means over the seeds, bold where best. The score is the mean model's at the last "
        "point; step is the run's virtual time over the local steps of a node; waiting is what "
        "nodes that had not finished spent on others, as a share of computing and waiting; "
        "sent is of all nodes together; Γ is the sum over nodes of the squared distance to the "
        "mean model." + "".join(f" *{run.label}: {why}." for run in runs if (why := _stopped(run))),
    )


def seeds_table(run: RunCurve) -> Table:
    """What the summaries of a run's seeds say, a column a seed; nested values are left out."""
    names = list(dict.fromkeys(name for summary in run.summaries for name in summary))
    rows = [[name, *(_plain(summary.get(name)) for summary in run.summaries)] for name in names]
    heads = [f"seed {summary.get('seed', NONE)}" for summary in run.summaries]
    kept = [row for row in rows if set(row[1:]) - {"", NONE}]
    return Table(title="All figures", columns=["", *heads], rows=kept, folded=True)


def step_split(run: RunCurve) -> tuple[float, float] | None:
    """Milliseconds of a local step spent computing and waiting, from the summaries' `step_ms`,
    `wall_s`, `compute_s` and `blocked_s`.
    """
    step_ms, compute_s = run.figure("step_ms"), run.figure("compute_s")
    wall_s, blocked_s = run.figure("wall_s"), run.figure("blocked_s")
    if not step_ms or not wall_s or not compute_s or blocked_s is None:
        return None
    return step_ms * compute_s / wall_s, step_ms * blocked_s / wall_s


def _to_target(runs: Sequence[RunCurve], score: str) -> dict[str, list[str]]:
    """The time to the score that three quarters of the runs reach, in whole steps of it."""
    metric = judge(runs, score)
    sign = 1 if metric.higher else -1
    worst = sorted(min(sign * end for end in ends) for run in runs if (ends := _whole(run, score)))
    if metric.step is None or not worst or len(runs) < 2:
        return {}
    target = sign * metric.step * math.floor(worst[len(worst) // 4] / metric.step + 1e-9)
    times = [first_reach(run, "time_s", score, target, higher=metric.higher) for run in runs]
    text = percent(target, 1) if score == "accuracy" else f"{metric.title} {trimmed(target)}"
    return {f"time to {text}": _best(times, duration, min)}


def _step_columns(runs: Sequence[RunCurve]) -> dict[str, list[str]]:
    splits = [step_split(run) for run in runs]
    return {
        "step": [_cell(run.figure("step_ms"), lambda ms: f"{digits(ms)} ms") for run in runs],
        "waiting": [NONE if s is None else percent(s[1] / sum(s), 0) for s in splits],
    }


def _stopped(run: RunCurve) -> str | None:
    """Why a seed of it ended before all steps were made, if one did."""
    return next((str(s["stopped"]) for s in run.summaries if s.get("stopped")), None)


def _score_cells(runs: Sequence[RunCurve], score: str) -> list[str]:
    means = [mean(_whole(run, score)) for run in runs]
    best = max if judge(runs, score).higher else min
    return _best_whole(runs, means, lambda value: _written(value, score), best)


def _written(value: float, score: str) -> str:
    if score == "accuracy":
        return percent(value, 2)
    return metric_of(score).write(value) if score in METRICS else trimmed(value)


def _best_whole(
    runs: Sequence[RunCurve],
    values: Sequence[float | None],
    write: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
) -> list[str]:
    """As `_best`; runs that ended early are written, but are no rivals."""
    whole = [None if _stopped(r) else v for r, v in zip(runs, values, strict=True)]
    cells = _best(whole, write, best)
    return [
        _cell(v, write) if w is None else cell
        for v, w, cell in zip(values, whole, cells, strict=True)
    ]


def _whole(run: RunCurve, score: str) -> list[float]:
    """The final scores; none if a seed broke off, as the mean of the others would flatter."""
    return [] if run.broken(score) else run.finals(score)


def _seeds(run: RunCurve, score: str) -> str:
    broken = run.broken(score)
    return f"{len(run.seeds)}, {broken} diverged" if broken else str(len(run.seeds))


def _times(runs: Sequence[RunCurve], score: str) -> list[str]:
    """Virtual times at the end, the shortest of the runs that did not diverge bold."""
    times = [mean(run.finals("time_s")) for run in runs]
    sound = [t if _whole(run, score) else None for run, t in zip(runs, times, strict=True)]
    cells = _best_whole(runs, sound, duration, min)
    return [
        _cell(t, duration) if s is None else cell
        for t, s, cell in zip(times, sound, cells, strict=True)
    ]


def _best(
    values: Sequence[float | None],
    write: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
) -> list[str]:
    """Each value written, the best of several bold."""
    there = [value for value in values if value is not None]
    cells = [NONE if value is None else write(value) for value in values]
    if len(there) < 2:
        return cells
    winner = write(best(there))
    return [f"**{cell}**" if cell == winner else cell for cell in cells]


def _spread(values: Sequence[float], score: str) -> str:
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    if score == "accuracy":
        return f"{100 * low:.2f} – {100 * high:.2f}"
    return f"{_written(low, score)} – {_written(high, score)}"


def _plain(value: object) -> str:
    match value:
        case None | list() | dict():
            return NONE
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case float():
            return trimmed(value)
        case _:
            return f"{value:,}" if isinstance(value, int) else str(value)


def mean(values: Sequence[float]) -> float | None:
    """Their mean; None of none."""
    return sum(values) / len(values) if values else None


def percent(fraction: float, places: int) -> str:
    """0.8912 -> "89.12 %"."""
    return f"{100 * fraction:.{places}f} %"


def digits(value: float) -> str:
    """Three significant digits, never with an exponent between 0.001 and a million."""
    value = float(f"{value:.3g}")
    if value == 0 or not 1e-3 <= abs(value) < 1e6:
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def trimmed(value: float) -> str:
    """As `digits`, without zeros at the end."""
    text = digits(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def duration(seconds: float) -> str:
    """42.1 s; from ten minutes on 1:02:03."""
    return clock_text(seconds) if seconds >= 600 else f"{digits(seconds)} s"


def _cell(value: float | None, write: Callable[[float], str]) -> str:
    return NONE if value is None else write(value)
