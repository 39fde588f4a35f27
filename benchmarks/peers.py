"""`kill -9` of one of four processes under swarmsgd and its peers: what the other three see of it.

    python benchmarks/peers.py --envs DIR [--tools swarmsgd ddp ...] [--keep]

Each peer is installed in a virtual environment of its own below DIR, once; one that does not
install or start is a row with its error. A process is killed after --calm seconds, with all that it
started; after --gone more it is started again where the tool has a way for that, and the others are
watched for --watch more. Each tool is set as its own documentation does it: the table TOOLS says
how, and what is not a default.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench import HERE, free_port, keep, table
from peers_figures import HEAD, NODES, VICTIM, figures, row

START_S, INSTALL_S = 120.0, 900.0


class Failed(Exception):
    """A tool that did not install or start, in its own words."""


class Job:
    """The processes of one run, and what its nodes said. All end with `end`."""

    def __init__(self, tool: str, python: Path) -> None:
        self.tool, self.python, self.port = tool, python, str(free_port())
        self.said: list[dict[str, Any]] = []
        self.other: deque[str] = deque(maxlen=100)
        self._mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: object, **variables: str) -> None:
        """A process; the names of the environment's programs are known to it."""
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
            "PEERS_RUN": self._mark,
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            **variables,
        }
        process = subprocess.Popen(
            [*map(str, command)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._started.append(process)
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def node(self, slot: int, *arguments: str, **variables: str) -> None:
        """A node that is a process by itself."""
        command = (self.python, HERE / "peers_node.py", self.tool, *arguments)
        self.start(*command, PEERS_SLOT=str(slot), **variables)

    def torchrun(self, *options: object, **variables: str) -> None:
        """Nodes under an agent of torch."""
        node = (HERE / "peers_node.py", self.tool)
        self.start("torchrun", "--nnodes", 1, *options, *node, **variables)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            before, at, rest = line.partition('@{"slot"')
            if at:
                self.said.append(json.loads(at[1:] + rest))
            if before.strip():
                self.other.append(before.strip())

    def wait(self, done: Callable[[], object]) -> None:
        """Until `done`; raises Failed when nothing runs any more, or after START_S."""
        until = time.monotonic() + START_S
        while not done():
            if all(process.poll() is not None for process in self._started):
                raise Failed(f"ended before all trained: {self.last()}")
            if time.monotonic() > until:
                raise Failed(f"not started in {START_S:g} s: {self.last()}")
            time.sleep(0.05)

    def last(self) -> str:
        """The last four lines of the others, none twice."""
        return " / ".join(line[:300] for line in list(dict.fromkeys(self.other))[-4:])

    def trains(self, since: float = 0.0, least: int = 20) -> bool:
        """Whether each node has made some steps."""
        slots = [line["slot"] for line in list(self.said) if line.get("at", -1.0) >= since]
        return all(slots.count(slot) >= least for slot in range(NODES))

    def kill(self, slot: int | None = None) -> int:
        """SIGKILL to all processes of one node, or of the run; how many there were. Its mark in
        their environment tells them, wherever they were forked from."""
        found = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                pairs = (folder / "environ").read_text(errors="replace").split("\0")
                variables = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
                own = variables.get("PEERS_SLOT", variables.get("RANK"))  # an agent has neither
                if variables.get("PEERS_RUN") == self._mark and slot in (None, own and int(own)):
                    os.kill(int(folder.name), signal.SIGKILL)
                    found += 1
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended meanwhile, or is not ours
        return found

    def end(self) -> None:
        for process in self._started:
            process.kill()  # agents first, or they start again what is killed
        while self.kill():
            time.sleep(0.05)
        for process in self._started:
            process.wait()


def start_swarmsgd(job: Job) -> None:
    for slot in range(NODES):
        again_swarmsgd(job, slot)


def again_swarmsgd(job: Job, slot: int = VICTIM) -> None:
    place = {"RANK": str(slot), "WORLD_SIZE": str(NODES)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": job.port}
    job.node(slot, **place, PYTHONPATH=os.environ.get("PYTHONPATH", ""))


def start_torchrun(job: Job) -> None:
    job.torchrun("--standalone", "--nproc-per-node", NODES)


def start_torchft(job: Job) -> None:
    job.start(
        *("torchft_lighthouse", "--bind", f"[::]:{job.port}", "--min_replicas", 1),
        *("--quorum_tick_ms", 100, "--join_timeout_ms", 10000),
    )
    for slot in range(NODES):
        again_torchft(job, slot)


def again_torchft(job: Job, slot: int = VICTIM) -> None:
    place = {"PEERS_SLOT": str(slot), "TORCHFT_LIGHTHOUSE": f"http://localhost:{job.port}"}
    job.torchrun("--master-port", free_port(), "--nproc-per-node", 1, **place)


def start_hivemind(job: Job) -> None:
    job.node(0)
    job.wait(lambda: any("address" in line for line in job.said))
    for slot in range(1, NODES):
        again_hivemind(job, slot)


def again_hivemind(job: Job, slot: int = VICTIM) -> None:
    job.node(slot, *next(line["address"] for line in job.said if "address" in line))


class Tool(NamedTuple):
    """How one of them is installed, started and, one node of it, started again."""

    node: str
    requires: tuple[str, ...]
    start: Callable[[Job], None]
    again: Callable[[Job], None] | None
    note: str


TOOLS = {
    "swarmsgd": Tool(
        "swarmsgd", (), start_swarmsgd, again_swarmsgd,
        "a fixed list of nodes, all defaults; started again with its RANK",
    ),
    "ddp": Tool(
        "ddp", (), start_torchrun, None,
        "torchrun --standalone and gloo, all defaults; --max-restarts, with which its agent ends "
        "all and starts all again from their checkpoints, is no part of this",
    ),
    "decent-dp": Tool(
        "decent-dp", ("decent-dp==0.2.3",), start_torchrun, None,
        "torchrun --standalone and gloo, all defaults but topology=\"ring\"",
    ),
    "torchft": Tool(
        "torchft", ("torchft==0.2.0",), start_torchft, again_torchft,
        "LocalSGD with a sync every 100 steps, a replica group a process, lighthouse options of "
        "its README, all time-outs default; started again as its group",
    ),
    "hivemind": Tool(
        "hivemind", ("hivemind==1.1.12",), start_hivemind, again_hivemind,
        "Optimizer with the options of its quick start (local updates, matchmaking 3 s, averaging "
        "time-out 10 s in place of 15 and 60), but a target batch of 100,000 in place of 10,000: "
        "at four times 32 samples in 12 ms it averages every ten seconds; a new peer joins",
    ),
}  # fmt: skip


def environment_of(tool: Tool, folder: Path) -> Path:
    """The Python that has the tool; installs it unless that was done before."""
    if tool.node == "swarmsgd":
        prepare = "from swarmsgd.codec import kernels; kernels.prepare()"  # minutes, once
        subprocess.run([sys.executable, "-c", prepare], timeout=INSTALL_S, check=True)
        return Path(sys.executable)
    pins = (HERE.parent / "constraints.txt").read_text().splitlines()
    wanted = (next(pin for pin in pins if pin.startswith("torch==")), "numpy", *tool.requires)
    python, ready = folder / tool.node / "bin" / "python", folder / tool.node / "ready"
    if not ready.exists() or ready.read_text() != " ".join(wanted):
        print("installing", *wanted, flush=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", folder / tool.node],
            ["nice", "-n", "15", python, "-m", "pip", "install", "--quiet", *wanted],
        ):
            done = subprocess.run(
                [*map(str, command)], capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            if done.returncode:
                raise Failed(f"does not install: {done.stderr.strip().splitlines()[-1]}")
        ready.write_text(" ".join(wanted))
    return python


def run(tool: Tool, python: Path, calm_s: float, gone_s: float, watch_s: float) -> dict[str, Any]:
    """One run; its figures. Raises Failed."""
    job = Job(tool.node, python)
    try:
        tool.start(job)
        job.wait(job.trains)
        time.sleep(2.0)  # the first steps are slower
        calm = time.monotonic()
        time.sleep(calm_s)
        if not job.trains(calm):
            raise Failed(f"stopped before anything was killed: {job.last()}")
        killed = time.monotonic()
        job.kill(VICTIM)
        time.sleep(gone_s)
        returns = time.monotonic()
        if tool.again is not None:
            tool.again(job)
        time.sleep(watch_s)
        return figures(list(job.said), calm, killed, returns, time.monotonic())
    finally:
        job.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--envs", type=Path, required=True, help="folder of the environments")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--calm", type=float, default=20.0, help="seconds before the kill")
    parser.add_argument("--gone", type=float, default=20.0, help="seconds until the new start")
    parser.add_argument("--watch", type=float, default=40.0, help="seconds after that")
    parser.add_argument("--keep", action="store_true", help="write the record")
    given = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in given.tools:
        tool = TOOLS[name]
        try:
            python = environment_of(tool, given.envs.absolute())
            found[name] = run(tool, python, given.calm, given.gone, given.watch)
        except (Failed, subprocess.TimeoutExpired) as error:
            found[name] = {"error": str(error)}
        found[name] |= {"requires": list(tool.requires), "settings": tool.note}
        print(json.dumps({name: found[name]}), flush=True)
    print(table([HEAD, *(row(name, each) for name, each in found.items())]))
    for name, each in found.items():
        print(f"{name}: {', '.join((*TOOLS[name].requires, TOOLS[name].note))}")
        if "error" in each:
            print(f"  {each['error']}")
    if given.keep:
        print("kept in", keep("peers", found))


if __name__ == "__main__":
    main()
