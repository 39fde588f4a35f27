"""`swarmsgd train`, seen from the parent: check everything, start the nodes, show them, sum up.

The parent trains nothing. It reads the files that the nodes write and knows how their processes
ended; all else is in the run's folder for anybody to read.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from swarmsgd.observe.console import Console, bytes_text, summary_table
from swarmsgd.observe.folder import MODEL, SUMMARY, RunFolder
from swarmsgd.observe.view import RunView
from swarmsgd.tasks import TASKS, Task
from swarmsgd.train.algorithms import ALGORITHMS
from swarmsgd.train.launch import describe, prefix
from swarmsgd.train.launcher import Launcher
from swarmsgd.train.processes import Interrupts, Line, NodeEnd, Note, Outcome
from swarmsgd.train.recipe import TrainConfig
from swarmsgd.train.summary import summarise

SLOW_S = 3.0
SILENT_S = 20.0
"""A node that makes no step for so long, when others have ended, is told of."""


def run(config: TrainConfig, *, file: TextIO | None = None) -> int:
    """Train, and return the exit code: 0 if there is a mean model at the end (lost nodes are
    warned of), 1 if there is none, 128 + signal after an interruption (130 for Ctrl-C).

    Raises ConfigError or DataError before any node was started.
    """
    planned = RunFolder(config.out, config.task_name, overwrite=config.overwrite)
    # Made here once, so that data are fetched once and whatever is wrong with them shows now.
    title = describe_run(config, TASKS[config.task_name].make(config.task, config.nodes, _notice))
    _prepare(config)
    with planned.owned(config.to_json()) as folder:
        return _train(config, title, folder, file)


def _train(config: TrainConfig, title: str, folder: Path, file: TextIO | None) -> int:
    argv = [sys.executable, "-m", "swarmsgd.train.trainee", str(folder.absolute())]
    view, silences = RunView(folder, config.nodes), Silences()
    launcher = Launcher(argv, config.nodes)
    with (
        Interrupts() as interrupts,
        Console(view, title, epochs=config.epochs, file=file) as console,
        launcher,
    ):
        for event in launcher.events(interrupts):
            match event:
                case Line(node, _, text):
                    console.print(prefix(node, colour=console.is_terminal) + text)
                case NodeEnd() if event.failed and not launcher.stopping:
                    view.read()
                    view.set_state(event.node, "failed")
                    console.print(f"swarmsgd: {describe(event)}")
                    if _cannot_begin(view, event.node, launcher):
                        console.print("swarmsgd: the others cannot begin without it: ending them")
                        launcher.stop()
                case Note(text):
                    console.print(f"swarmsgd: {text}")
            console.tick()
            for line in silences.look(view, launcher.pids):
                console.print(f"swarmsgd: {line}")
        view.read()
    summary = summarise(config, view, launcher.outcome)
    (folder / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    console.print(summary_table(summary))
    console.print(f"{_totals(summary)}\nwritten to {folder}")
    return _verdict(launcher.outcome, summary, folder)


class Silences:
    """Notices nodes that make no step any more while others have ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: dict[int, tuple[int, float]] = {}
        self._told: set[int] = set()

    def look(self, view: RunView, running: Collection[int]) -> list[str]:
        """A line for each node that became silent; `running` are those that have not ended."""
        now, lines = self._clock(), []
        for node in view.nodes:
            steps, since = self._steps.get(node.node, (-1, now))
            if node.steps != steps:
                self._steps[node.node] = node.steps, now
                self._told.discard(node.node)
            elif (
                now - since > SILENT_S
                and node.node in running
                and len(running) < len(view.nodes)
                and 0 < node.steps < node.total_steps
                and node.node not in self._told
            ):
                self._told.add(node.node)
                lines.append(
                    f"node {node.node} has made no step for {now - since:.0f} s, and others have "
                    "ended: it hangs, is stopped, or waits for them. Ctrl-C ends it; what is "
                    "recorded is kept"
                )
        return lines


def _prepare(config: TrainConfig) -> None:
    """Do once what each node would else do at the same time; say so if it takes long."""
    slow = threading.Timer(
        SLOW_S, _notice, ["compiling for this machine; the next run finds it done"]
    )
    slow.daemon = True
    slow.start()
    try:
        ALGORITHMS[config.algorithm].prepare()
    finally:
        slow.cancel()


def _cannot_begin(view: RunView, failed: int, launcher: Launcher) -> bool:
    """Whether a node failed before it had joined, and others wait for it."""
    joined = {node.node for node in view.nodes if "plan" in node.last}
    return failed not in joined and not joined.issuperset(launcher.pids)


def describe_run(config: TrainConfig, task: Task) -> str:
    """One line: what is trained by whom in which way."""
    parts = [task.name, f"{config.nodes} node{'s' * (config.nodes != 1)}"]
    if config.algorithm == "swarm":
        bits = "float32" if config.bits is None else f"{config.bits} bits"
        parts += [config.graph, f"H {config.local_steps}", config.mode, bits]
    else:
        parts.append(config.algorithm)
    if config.device != "cpu":
        parts.append(config.device)
    partition = getattr(config.task, "partition", "iid")
    return ", ".join(parts if partition == "iid" else [*parts, partition])


def _notice(line: str) -> None:
    print(f"swarmsgd: {line}", file=sys.stderr, flush=True)


def _totals(summary: Mapping[str, Any]) -> str:
    parts = []
    if summary["wall_s"] is not None:
        parts.append(f"{summary['wall_s']:.1f} s")
        parts.append(f"{summary['samples_per_s']:,.0f} samples/s")
    if summary["algorithm"] == "swarm":
        parts.append(f"{summary['exchanges']:,} exchanges ({summary['lost_exchanges']} lost)")
    computed = "" if summary["bytes_sent_is"] == "counted" else " (computed)"
    parts.append(f"{bytes_text(summary['bytes_sent'])} sent{computed}")
    if summary["gamma"] is not None:
        parts.append(f"gamma {summary['gamma']:.4g}")
    return ", ".join(parts)


def _verdict(outcome: Outcome, summary: Mapping[str, Any], folder: Path) -> int:
    numbers = summary["failed_nodes"]
    failed = f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} failed"
    if outcome.interrupted is not None:
        _notice(f"{outcome.interrupted_by}: ended early; what was recorded is kept in {folder}")
        return outcome.exit_code
    if not (folder / MODEL).exists():
        _notice(f"there is no mean model: {failed}; see above")
        return 1
    if numbers:
        _notice(f"warning: {failed}; the mean model is that of the others")
    return 0
