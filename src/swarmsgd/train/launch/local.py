"""Run a command as several nodes on this host, and print what they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from swarmsgd.observe.output import unhindered
from swarmsgd.train.launch.chaos import Chaos
from swarmsgd.train.launch.launcher import GRACE_S, Launcher
from swarmsgd.train.launch.processes import (
    Interrupts,
    LauncherEvent,
    NodeEnd,
    Note,
    Outcome,
    OutputLine,
)


def launch(
    argv: Sequence[str],
    nodes: int,
    *,
    hosts: int = 1,
    host_index: int = 0,
    master_addr: str = "127.0.0.1",
    master_port: int = 0,
    standard_env: bool = True,
    grace_s: float = GRACE_S,
    swarm: str | None = None,
    restarts: int = 0,
    chaos: Chaos | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[int, str, str], None] | None = None,
    on_event: Callable[[LauncherEvent], object] = lambda _event: None,
    say: Callable[[str], None] | None = None,
) -> Outcome:
    """Run `argv` as `nodes` nodes on this host until all have ended (see `Launcher`).

    `on_line(node, stream, text)` gets every line the nodes print, by default to pass it on with
    the node in front; `on_event` all that happens until the nodes are asked to end; `say(text)`
    what the launcher has to tell, by default on stderr. What is printed on streams that nobody
    reads is dropped: the nodes train on, and signals act at once.
    """
    on_line = on_line or print_line
    say = say or _say
    launcher = Launcher(
        argv,
        nodes,
        hosts=hosts,
        host_index=host_index,
        master_addr=master_addr,
        master_port=master_port,
        standard_env=standard_env,
        grace_s=grace_s,
        swarm=swarm,
        restarts=restarts,
        chaos=chaos,
        env=env,
    )
    with unhindered():
        return _pass_on(launcher, on_line, on_event, say)


def _pass_on(
    launcher: Launcher,
    on_line: Callable[[int, str, str], None],
    on_event: Callable[[LauncherEvent], object],
    say: Callable[[str], None],
) -> Outcome:
    with Interrupts() as interrupts, launcher:
        for event in launcher.events(interrupts):
            if event is not None and not launcher.stopping:
                on_event(event)
            match event:
                case OutputLine(node, stream, text):
                    on_line(node, stream, text)
                case NodeEnd() if event.failed and not launcher.stopping:
                    others = len(launcher.pids)
                    say(describe(event) + _of_others(others))
                case Note(text):
                    say(text)
    outcome = launcher.outcome
    if outcome.interrupted is not None:
        say(f"{outcome.interrupted_by}: all nodes of this host were ended")
    elif len(outcome.failed) > 0 and launcher.nodes > 1:
        say(f"{len(outcome.failed)} of {launcher.nodes} nodes failed:")
        for end in outcome.failed:
            say(describe(end))
    return outcome


def _of_others(others: int) -> str:
    if others == 1:
        return "; the other one goes on"
    return f"; the other {others} go on" if others else ""


def describe(end: NodeEnd) -> str:
    """One line: which node ended how, after how long, and its last words if it failed."""
    text = f"node {end.node} ended with {end.how} after {end.seconds:.1f} s"
    if not end.failed or not end.last_words:
        return text
    return f"{text}{'; it had last said' if end.returncode < 0 else ''}: {end.last_words}"


def prefix(node: int, *, colour: bool) -> str:
    """`[node 2] `, in the node's colour if wanted."""
    text = f"[node {node}]"
    return f"\033[{31 + node % 6}m{text}\033[0m " if colour else f"{text} "


def print_line(node: int, stream: str, text: str) -> None:
    """Pass a line on to the same stream of this process."""
    file = sys.stderr if stream == "stderr" else sys.stdout
    colour = file.isatty() and not os.environ.get("NO_COLOR")
    print(prefix(node, colour=colour) + text, file=file, flush=True)


def _say(text: str) -> None:
    print(f"swarmsgd: {text}", file=sys.stderr, flush=True)
