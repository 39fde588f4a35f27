"""`swarmsgd simulate`: one run, with the curve printed as it grows, its files and its page."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from swarmsgd.observe.console import bytes_text
from swarmsgd.observe.curves import read_run
from swarmsgd.observe.folder import REPORT, RunFolder
from swarmsgd.observe.page import write_page
from swarmsgd.observe.report import single_page
from swarmsgd.sim.config import SimConfig
from swarmsgd.sim.run import check, simulate, write_result
from swarmsgd.tasks import TASKS, Task

INTERRUPTED = 130
COLUMNS = {
    "epoch": ("epoch", "{:.2f}"),
    "virtual s": ("time_s", "{:,.2f}"),
    "accuracy": ("accuracy", "{:.2%}"),
    "loss": ("loss", "{:.4f}"),
    "gamma": ("gamma", "{:.3g}"),
    "exchanges": ("exchanges", "{:,}"),
    "sent": ("bytes_sent", ""),
    "nodes": ("live", "{}"),
}
"""Heading -> field of a point of the curve, and how it is written."""


def run(config: SimConfig, *, file: TextIO | None = None) -> int:
    """Simulate, and return the exit code: 0, or 130 after Ctrl-C, with what was recorded kept.

    Raises ConfigError or DataError before anything runs, ModelError if training diverges.
    """
    out = file or sys.stdout

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    check(config)
    torch.set_num_threads(1)  # as the nodes of a real run have, and the same bits on every machine
    planned = RunFolder(config.out, f"sim-{config.task_name}", overwrite=config.overwrite)
    # Made first, so that whatever is wrong with the data shows now.
    task = TASKS[config.task_name].make(config.task, config.nodes, _notice)
    with planned.owned(config.to_json()) as folder:
        return _run(config, task, folder, say)


def _run(config: SimConfig, task: Task, folder: Path, say: Callable[[str], None]) -> int:
    say(title_of(config))
    say("  ".join(f"{name:>9}" for name in COLUMNS))
    result = simulate(
        config,
        folder=folder,
        task=task,
        watch=lambda point: say("  ".join(f"{cell:>9}" for cell in cells(point))),
    )
    write_result(result, folder)
    label = config.algorithm
    write_page(folder / REPORT, single_page(read_run(label, label, [folder]), title_of(config)))
    say(totals(result.summary))
    if result.summary["stopped"]:
        say(f"note: {stopped(result.summary)}")
    for text in never_happened(config, result.summary["wall_s"]):
        say(text)
    say(f"written to {folder}; {REPORT} there has the plots")
    if result.summary["interrupted"]:
        _notice("interrupted: what was recorded is kept")
        return INTERRUPTED
    return 0


def _notice(line: str) -> None:
    print(f"swarmsgd: {line}", file=sys.stderr, flush=True)


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


def stopped(summary: Mapping[str, Any]) -> str:
    """Where and why a run ended that did not make all its steps."""
    return (
        f"ended at {summary['wall_s']:.2f} s, after {summary['epochs']:.2f} passes: "
        f"{summary['stopped']}"
    )


def title_of(config: SimConfig) -> str:
    """One line: what is simulated in which world."""
    world = config.world
    parts = [f"{config.task_name}, {config.nodes:,} node{'s' * (config.nodes != 1)}"]
    parts.append(config.algorithm)
    if config.algorithm == "swarm":
        bits = "float32" if config.bits is None else f"{config.bits} bits"
        parts += [config.graph, f"H {config.local_steps}", config.mode, bits]
    parts.append(f"steps of {world.step_time_ms:g} ms, {world.bandwidth_mbit_s:g} Mbit/s")
    for option in ("stragglers", "slow_links", "events"):
        values = getattr(world, option)
        if values:
            parts.append(f"{option.replace('_', ' ')} {' '.join(values)}")
    return ", ".join(parts)


def cells(point: Mapping[str, Any]) -> list[str]:
    """A point of the curve as the cells of a line."""
    texts: list[str] = []
    for field, form in COLUMNS.values():
        value = point[field]
        if value is None:
            texts.append("-")
        else:
            texts.append(bytes_text(value) if field == "bytes_sent" else form.format(value))
    return texts


def totals(summary: Mapping[str, Any]) -> str:
    """What the run came to, in two lines."""
    nodes = ""
    if summary["worst_node_accuracy"] is not None:
        worst, best = summary["worst_node_accuracy"], summary["best_node_accuracy"]
        nodes = f" (single nodes {worst:.2%} to {best:.2%})"
    score = summary["mean_accuracy"]
    reached = f"loss {summary['mean_loss']:.4f}" if score is None else f"{score:.2%}"
    step_ms = summary["step_ms"]
    step = "no whole step" if step_ms is None else f"{step_ms:.2f} ms a step"
    return (
        f"mean model {reached}{nodes}, gamma {summary['gamma']:.4g}\n"
        f"{summary['wall_s']:,.2f} virtual s, {step}, waiting "
        f"{summary['synchronization']:.1%} of computing, {bytes_text(summary['bytes_a_node'])} "
        f"sent a node; simulated in {summary['host_s'] + summary['score_host_s']:.1f} s"
    )
