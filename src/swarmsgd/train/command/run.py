"""`swarmsgd train`, seen from the parent: check everything, start the nodes, show them, sum up.

The parent trains nothing. It reads the files that the nodes write and knows how their processes
ended; all else is in the run's folder for anybody to read.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from swarmsgd.observe.console import Console, summary_table
from swarmsgd.observe.ending import Ending
from swarmsgd.observe.folder import CONFIG, MODEL, SUMMARY, RunFolder, resumed
from swarmsgd.observe.ports import check_port
from swarmsgd.observe.reporters import Outlet, RunReporter
from swarmsgd.observe.sinks import make_sinks
from swarmsgd.observe.view import RunView, record_path
from swarmsgd.observe.words import notice, totals
from swarmsgd.settings.options import plain
from swarmsgd.tasks import Task
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.makers import NODE_MAKERS
from swarmsgd.train.command.summary import summarise_real
from swarmsgd.train.launch.hosts import use_address
from swarmsgd.train.launch.launcher import Launcher
from swarmsgd.train.launch.local import describe, prefix
from swarmsgd.train.launch.processes import Interrupts, NodeEnd, Note, Outcome, OutputLine
from swarmsgd.train.launch.script_records import record_death
from swarmsgd.train.meet.key import use_key

END_S = 5.0
"""A node that is told to end has nothing left to save."""
STILL_S = 20.0
"""A node that makes no step for so long, when others have ended, is told of."""


def resume_training(folder: Path, *, file: TextIO | None = None) -> int:
    """Go on with the run of `run_training` that was interrupted in `folder`; as that one."""
    with resumed(folder):
        config = TrainConfig.from_json((folder / CONFIG).read_text())
        _use_key(config)
        outlet = Outlet(make_sinks(config.log_to))
        task = config.make_task(notice)
        NODE_MAKERS[config.algorithm].prepare()
        return _train(config, task, folder, outlet, file)


def run_training(config: TrainConfig, *, file: TextIO | None = None) -> int:
    """Train, and return the exit code: 0 if there is a mean model at the end (lost nodes are
    warned of), 1 if there is none, 128 + signal after an interruption (130 for Ctrl-C).

    Raises ConfigError or DataError before any node was started.
    """
    _use_key(config)
    for doubt in config.doubts():
        notice(doubt)
    outlet = Outlet(make_sinks(config.log_to))
    if config.dashboard:
        check_port(config.dashboard_port)
    planned = RunFolder(config.out, config.task_name, overwrite=config.overwrite)
    # Made here once, so that data are fetched once and whatever is wrong with them shows now.
    task = config.make_task(notice)
    NODE_MAKERS[config.algorithm].prepare()
    with planned.owned(config.to_json()) as folder:
        return _train(config, task, folder, outlet, file)


def _use_key(config: TrainConfig) -> None:
    if config.key is not None:
        use_key(config.key)


def _train(
    config: TrainConfig, task: Task, folder: Path, outlet: Outlet, file: TextIO | None
) -> int:
    # -P: a token.py in the working folder is not Python's own
    trainee = ["-P", "-m", "swarmsgd.train.command.trainee"]
    argv = [sys.executable, *trainee, str(folder.absolute())]
    view, silences = RunView(folder, config.nodes), Silences()
    out = sys.stderr if config.json and file is None else file
    here = use_address(config.address)
    launcher = Launcher(argv, config.nodes, master_addr=here, grace_s=END_S)
    outlet.begin(folder.absolute().name, json.loads(config.to_json()), folder)
    reporter = RunReporter(view, outlet)
    with (
        contextlib.closing(outlet),
        Interrupts() as interrupts,
        Console(
            view, config.title(), epochs=config.epochs, quiet=config.quiet, file=out
        ) as console,
        _shown(config, folder) as address,
        launcher,
    ):
        if address:
            console.print(f"live page: {address}")
        for event in launcher.events(interrupts):
            match event:
                case OutputLine(node, _, text):
                    console.print(prefix(node, colour=console.is_terminal) + text)
                case NodeEnd() if event.failed and not launcher.stopping:
                    view.read()
                    view.set_state(event.node, "failed")
                    record_death(folder, event)
                    console.print(f"swarmsgd: {describe(event)}")
                    if _cannot_begin(view, event.node, launcher):
                        console.print("swarmsgd: the others cannot begin without it: ending them")
                        launcher.stop()
                case Note(text):
                    console.print(f"swarmsgd: {text}")
            console.tick()
            reporter.tick()
            for line in silences.look(view, launcher.pids):
                console.print(f"swarmsgd: {line}")
        view.read()
        summary = summarise_real(config, task, view, launcher.outcome)
        reporter.finish(summary)
    if config.json:
        print(json.dumps(plain(summary)), file=file)
    else:
        console.print(summary_table(summary))
        console.print(
            f"{totals(summary)}\nwritten to {folder}; `swarmsgd report {folder}` makes a page"
        )
    ending = Ending(folder)
    ending.put(SUMMARY, json.dumps(plain(summary), indent=2) + "\n")
    _look_for_results(view, launcher.outcome, ending)
    return _verdict(launcher.outcome, summary, ending)


def _look_for_results(view: RunView, outcome: Outcome, ending: Ending) -> None:
    """Note what nodes that ended well should have written, and could not."""
    ended_well = {end.node for end in outcome.nodes if not end.failed}
    for node in ended_well:
        if "result" not in view.nodes[node].last:
            ending.lost[record_path(ending.folder, node).name] = (
                "it breaks off: the table lacks what came later"
            )
    whole = outcome.interrupted is None and not outcome.failed
    if whole and not (ending.folder / MODEL).exists():
        ending.lost[MODEL] = "see above"


@contextlib.contextmanager
def _shown(config: TrainConfig, folder: Path) -> Iterator[str]:
    """The address of the live page, if one is asked for."""
    if not config.dashboard:
        yield ""
        return
    from swarmsgd.observe.server import Dashboard

    with Dashboard(folder, port=config.dashboard_port) as dashboard:
        yield dashboard.address


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
                now - since > STILL_S
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


def _cannot_begin(view: RunView, failed: int, launcher: Launcher) -> bool:
    """Whether a node failed before it had joined, and others wait for it."""
    joined = {node.node for node in view.nodes if "plan" in node.last}
    return failed not in joined and not joined.issuperset(launcher.pids)


def _verdict(outcome: Outcome, summary: Mapping[str, Any], ending: Ending) -> int:
    folder, numbers = ending.folder, summary["failed_nodes"]
    complaint = ending.complaint()
    if complaint is not None:
        notice(complaint)
    failed = f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} failed"
    if outcome.interrupted is not None:
        notice(f"{outcome.interrupted_by}: ended early; what was recorded is kept in {folder}")
        return outcome.exit_code
    if numbers and not (folder / MODEL).exists():
        notice(f"there is no mean model: {failed}; see above")
        return 1
    if numbers:
        notice(f"warning: {failed}; the mean model is that of the others")
    return 0 if complaint is None else 1
