"""`swarmsgd simulate`: one run, with the curve printed as it grows, its files and its page."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from swarmsgd.errors import SwarmError
from swarmsgd.observe.console import bytes_text
from swarmsgd.observe.folder import REPORT, RunFolder
from swarmsgd.observe.run_page import page_of
from swarmsgd.observe.words import notice, stopped, totals
from swarmsgd.scores import metric_of, value_of
from swarmsgd.settings.options import plain
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import check_run, simulate, write_result
from swarmsgd.tasks import Task

INTERRUPTED = 130
WHEN = {"epoch": ("epoch", "{:.2f}"), "virtual s": ("time_s", "{:,.2f}")}
WHAT = {
    "gamma": ("gamma", "{:.3g}"),
    "exchanges": ("exchanges", "{:,}"),
    "sent": ("bytes_sent", ""),
    "nodes": ("live", "{}"),
}
"""Heading -> field of a point of the curve, and how it is written; the scores stand between."""


def run_simulation(config: SimConfig, *, file: TextIO | None = None) -> int:
    """Simulate, and return the exit code: 0; 1 if a file of the result could not be written; 130
    after Ctrl-C, with what was recorded kept.

    Raises ConfigError or DataError before anything runs, ModelError if training diverges.
    """
    out = file or (sys.stderr if config.json else sys.stdout)

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    check_run(config)
    for doubt in config.doubts():
        notice(doubt)
    torch.set_num_threads(1)  # as the nodes of a real run have, and the same bits on every machine
    planned = RunFolder(config.out, f"sim-{config.task_name}", overwrite=config.overwrite)
    # Made first, so that whatever is wrong with the data shows now.
    task = config.make_task(notice)
    with planned.owned(config.to_json()) as folder:
        return _run(config, task, folder, say)


def _run(config: SimConfig, task: Task, folder: Path, say: Callable[[str], None]) -> int:
    def watch(point: Mapping[str, Any]) -> None:
        if not config.quiet:
            say("\n".join(lines(point)))

    if not config.quiet:
        say(config.title())
    result = simulate(
        config,
        folder=folder,
        task=task,
        watch=watch,
    )
    if config.json:
        print(json.dumps(plain(result.summary)))
    else:
        say(totals(result.summary))
    if result.summary["stopped"]:
        say(f"note: {stopped(result.summary)}")
    for text in never_happened(config, result.summary["wall_s"]):
        say(text)
    ending = write_result(result, folder)
    try:
        ending.put(REPORT, page_of([folder]))
    except SwarmError:
        ending.lost[REPORT] = "there was no room for the curve"
    plots = "" if REPORT in ending.lost else f"; {REPORT} there has the plots"
    say(f"written to {folder}{plots}")
    if complaint := ending.complaint():
        notice(complaint)
    if result.summary["interrupted"]:
        notice("interrupted: what was recorded is kept")
        return INTERRUPTED
    return 1 if ending.lost else 0


def never_happened(config: SimConfig, end_s: float) -> list[str]:
    """A line for each thing of the world that would have begun after the end of the run."""
    world = config.world
    late = [
        text for text, h in zip(world.events, world.happenings, strict=True) if h.start_s > end_s
    ]
    for texts, factors in (
        (world.stragglers, world.slowdowns),
        (world.slow_links, world.link_slowdowns),
    ):
        late += [t for t, f in zip(texts, factors, strict=True) if f.start_s > end_s]
    return [f"note: {text} begins after the end of the run at {end_s:.2f} s" for text in late]


def lines(point: Mapping[str, Any]) -> list[str]:
    """A point of the curve as a line; before the first one the headings."""
    names = [*(["accuracy"] if point["accuracy"] is not None else []), "loss", *point["scores"]]
    scores = {metric_of(name).title: metric_of(name).write(value_of(name, point)) for name in names}
    row = {heading: _cell(point[field], field, form) for heading, (field, form) in WHEN.items()}
    row |= scores
    row |= {heading: _cell(point[field], field, form) for heading, (field, form) in WHAT.items()}
    rows = [row.values()] if point["samples"] else [row, row.values()]
    return ["  ".join(f"{cell:>9}" for cell in cells) for cells in rows]


def _cell(value: Any, field: str, form: str) -> str:
    if value is None:
        return "-"
    return bytes_text(value) if field == "bytes_sent" else form.format(value)
