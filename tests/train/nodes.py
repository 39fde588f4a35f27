"""Start real node processes for a test: one script, n processes, the standard variables, a free
port.

Every process is in the test's own process group list and is killed when the `Nodes` closes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PRELUDE = """
import json, os, sys, threading, time
import numpy as np, torch
from torch import nn
torch.set_num_threads(1)
import swarmsgd
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
def say(**fields):
    print("@" + json.dumps(fields), flush=True)
class Vector(nn.Module):
    "A model that is one vector; its loss pulls it to `target`."
    def __init__(self, dim, seed=0, scale=1.0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.x = nn.Parameter(scale * torch.randn(dim, generator=draw))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Nodes:
    """`count` processes that run `body` behind the prelude. Use as a context manager."""

    def __init__(self, body: str, count: int, **environment: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        script = Path(self._folder.name) / "node.py"
        script.write_text(PRELUDE + body)
        port = environment.pop("MASTER_PORT", None) or str(free_port())
        self.processes: list[subprocess.Popen[str]] = []
        self._files = [(Path(self._folder.name) / f"{i}.out").open("w+") for i in range(count)]
        for rank in range(count):
            variables = {
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            }
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", str(script)],
                    env=os.environ | variables | environment,
                    stdin=subprocess.PIPE,
                    stdout=self._files[rank],
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

    def output(self, rank: int) -> str:
        """All that the node has printed so far."""
        return (Path(self._folder.name) / f"{rank}.out").read_text()

    def said(self, rank: int) -> list[dict[str, Any]]:
        """What the node has said with `say` so far."""
        lines = self.output(rank).splitlines()
        return [json.loads(line[1:]) for line in lines if line.startswith("@") and line[-1] == "}"]

    def wait_said(self, rank: int, key: str, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait for the first thing said that has `key`."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            for fields in self.said(rank):
                if key in fields:
                    return fields
            if self.processes[rank].poll() is not None:
                break
            self._rest()
        raise AssertionError(f"node {rank} did not say {key}:\n{self.output(rank)}")

    def wait(self, timeout_s: float = 120.0) -> list[int]:
        """Exit codes; fails the test with all output if a node does not end."""
        give_up = time.monotonic() + timeout_s
        for process in self.processes:
            try:
                process.wait(max(0.1, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError("a node hangs:\n" + self.everything()) from None
        return [process.returncode for process in self.processes]

    def go(self) -> None:
        """Give every node one line on its standard input."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

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
            assert process.stdin is not None
            process.stdin.close()
        for file in self._files:
            file.close()
        self._folder.cleanup()


def run(
    body: str, count: int, timeout_s: float = 120.0, **environment: str
) -> list[dict[str, Any]]:
    """Run to the end; what each node said last. Fails the test unless all exit with 0."""
    with Nodes(body, count, **environment) as nodes:
        codes = nodes.wait(timeout_s)
        assert codes == [0] * count, nodes.everything()
        return [nodes.said(rank)[-1] for rank in range(count)]
