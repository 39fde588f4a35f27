"""What the benchmarks share: run processes, read what they say, keep a record of it.

A record folder holds the figures as JSON, and `recipe.json`: for each command that made some of
them the names of these, the commit and the machine.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORDS = HERE / "records"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_nodes(arguments: Sequence[object], nodes: int, **how: Any) -> list[dict[str, Any]]:
    """What each of `outputs` said last."""
    return [said(output) for output in outputs(arguments, nodes, **how)]


def outputs(
    arguments: Sequence[object],
    nodes: int,
    *,
    prefixes: Sequence[Sequence[str]] | None = None,
    master_addr: str = "127.0.0.1",
    timeout_s: float = 900.0,
    **variables: str,
) -> list[str]:
    """Run `python ARGUMENTS` on `nodes` processes that meet at a free port; what each printed.

    `prefixes` go before each command (`ip netns exec NAME`). All processes end with this call.
    """
    port = str(free_port())
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(nodes):
            environment = os.environ | {
                "RANK": str(rank),
                "LOCAL_RANK": "0",
                "WORLD_SIZE": str(nodes),
                "MASTER_ADDR": master_addr,
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
                **variables,
            }
            command = [*(prefixes[rank] if prefixes else ()), sys.executable, *map(str, arguments)]
            started.append(
                subprocess.Popen(
                    command, env=environment, stdout=subprocess.PIPE, text=True, process_group=0
                )
            )
        return [process.communicate(timeout=timeout_s)[0] for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def said(output: str) -> dict[str, Any]:
    """The last JSON line that starts with @."""
    lines = [line[1:] for line in output.splitlines() if line.startswith("@")]
    if not lines:
        raise SystemExit(f"a process said nothing; its output was:\n{output}")
    return json.loads(lines[-1])


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def keep(name: str, made: Mapping[str, Any], note: str = "") -> Path:
    """Write benchmarks/records/<name>/: the figures, and how and where they were made.

    Rows that an earlier run kept there and this one did not make stay.
    """
    folder = RECORDS / name
    folder.mkdir(parents=True, exist_ok=True)
    before, path = _kept(folder), folder / "figures.json"
    figures = (json.loads(path.read_text()) if path.exists() else {}) | dict(made)
    recipe = {
        "figures": list(made),
        "command": shlex.join(["python", *(_relative(a) for a in sys.argv)]),
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+" if _git("status", "--porcelain", "src") else ""),
        "machine": machine(),
        "note": note,
    }
    for one in before:
        one["figures"] = [figure for figure in one["figures"] if figure not in made]
    for one in before:  # a command that keeps its figures one by one has one recipe
        if {**one, "figures": []} == {**recipe, "figures": []}:
            recipe["figures"] = [*one["figures"], *recipe["figures"]]
            one["figures"] = []
    recipes = [*(one for one in before if one["figures"]), recipe]
    for file, content in (("recipe.json", recipes), ("figures.json", figures)):
        (folder / file).write_text(json.dumps(content, indent=1) + "\n")
    return folder


def _kept(folder: Path) -> list[dict[str, Any]]:
    """The recipes of what lies there."""
    path = folder / "recipe.json"
    if not path.exists():
        return []
    return json.loads(path.read_text())


def machine() -> dict[str, Any]:
    import torch

    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def table(rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first row is its head."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in text
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def _relative(argument: str) -> str:
    path = Path(argument)
    return (
        str(path.relative_to(HERE.parent))
        if path.is_absolute() and HERE.parent in path.parents
        else argument
    )


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
