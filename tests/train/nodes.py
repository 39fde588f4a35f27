"""Start real node processes for a test: one script, n processes, the standard variables, a free
port.

Every process is in the test's own process group list and is killed when the `Nodes` closes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zygote

from swarmsgd.observe.folder import CONFIG
from swarmsgd.train.command.config import TrainConfig

PRELUDE = """
import json, os, sys, threading, time
import numpy as np, torch
from torch import nn
torch.set_num_threads(1)
import swarmsgd
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
def say(**fields):
    print("@" + json.dumps(fields), flush=True)
def when_told():
    "An event that is set when the test says go."
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
    return told
class Vector(nn.Module):
    "A model that is one vector; its loss pulls it to `target`."
    def __init__(self, dim, seed=0, scale=1.0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.x = nn.Parameter(scale * torch.randn(dim, generator=draw))
"""

TRAINEE = """
from swarmsgd.train.command import trainee
sys.argv[1:] = [os.environ["FOLDER"]]
if code := trainee.main():
    sys.exit(code)
"""

EPILOGUE = """
import atexit
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
os._exit(0)
"""
"""All of an interpreter's end but taking 2,400 modules apart, which costs it half a second."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(config: TrainConfig, out: Path) -> None:
    """The nodes of `swarmsgd train`, forked, without the command that starts them and looks on."""
    out.mkdir()
    (out / CONFIG).write_text(config.to_json())
    with Nodes(TRAINEE, config.nodes, FOLDER=str(out)) as nodes:
        assert nodes.wait() == [0] * config.nodes, nodes.everything()


class Nodes:
    """`count` processes that run `body` behind the prelude. Use as a context manager.

    They are forked from a process that has everything loaded; those that shall be `fresh` are
    interpreters of their own from the first to the last.
    """

    def __init__(self, body: str, count: int, *, fresh: bool = False, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._script = Path(self._folder.name) / "node.py"
        self._script.write_text(PRELUDE + body + ("" if fresh else EPILOGUE))
        self._fresh = fresh
        self._environment = {
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
        } | environment
        self.processes: list[zygote.Forked | subprocess.Popen[bytes]] = []
        self._inputs: list[int] = []
        for rank in range(count):
            self.add(rank)

    def add(self, rank: int, **environment: str) -> int:
        """Start one more process, with this rank; its number among the processes."""
        env = os.environ | self._environment | {"RANK": str(rank)} | environment
        self._start(self._script, env, self._fresh)
        return len(self.processes) - 1

    def _start(self, script: Path, env: Mapping[str, str], fresh: bool) -> None:
        output = Path(self._folder.name) / f"{len(self.processes)}.out"
        stdin, ours = os.pipe()
        self._inputs.append(ours)
        try:
            with output.open("wb") as file:
                streams = (stdin, file.fileno(), file.fileno())
                self.processes.append(zygote.start(script, [], env, streams, fresh=fresh))
        finally:
            os.close(stdin)

    def output(self, rank: int) -> str:
        """All that the node has printed so far."""
        return (Path(self._folder.name) / f"{rank}.out").read_text()

    def said(self, rank: int) -> list[dict[str, Any]]:
        """What the node has said with `say` so far."""
        lines = self.output(rank).splitlines()
        return [json.loads(line[1:]) for line in lines if line.startswith("@") and line[-1] == "}"]

    def wait_said(
        self, rank: int, key: str, least: float = -math.inf, timeout_s: float = 600.0
    ) -> dict[str, Any]:
        """Wait for the first thing said that has `key`, of at least `least` if it is a number."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            for fields in self.said(rank):
                if key in fields and (least == -math.inf or fields[key] >= least):
                    return fields
            if self.processes[rank].poll() is not None:
                break
            self._rest()
        raise AssertionError(f"node {rank} did not say {key}:\n{self.output(rank)}")

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 600.0) -> None:
        """Wait for something that shows outside the nodes."""
        give_up = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up, self.everything()
            self._rest()

    def wait(self, timeout_s: float = 600.0) -> list[int]:
        """Exit codes; fails the test with all output if a node does not end."""
        give_up = time.monotonic() + timeout_s
        for process in self.processes:
            try:
                process.wait(max(0.1, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError("a node hangs:\n" + self.everything()) from None
        return [process.wait() for process in self.processes]

    def go(self, *ranks: int) -> None:
        """Give these nodes, or all, one line on their standard input; the dead do not mind."""
        for rank in ranks or range(len(self._inputs)):
            with contextlib.suppress(BrokenPipeError):
                os.write(self._inputs[rank], b"go\n")

    def everything(self) -> str:
        return "\n".join(f"--- node {i}\n{self.output(i)}" for i in range(len(self.processes)))

    def signal(self, rank: int, number: signal.Signals) -> None:
        self.processes[rank].send_signal(number)

    @staticmethod
    def _rest() -> None:
        time.sleep(0.02)  # between two looks at another process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        for fd in self._inputs:
            os.close(fd)
        self._folder.cleanup()


def run(
    body: str, count: int, timeout_s: float = 600.0, *, fresh: bool = False, **environment: str
) -> list[dict[str, Any]]:
    """Run to the end; what each node said last. Fails the test unless all exit with 0."""
    with Nodes(body, count, fresh=fresh, **environment) as nodes:
        codes = nodes.wait(timeout_s)
        assert codes == [0] * count, nodes.everything()
        return [nodes.said(rank)[-1] for rank in range(count)]
