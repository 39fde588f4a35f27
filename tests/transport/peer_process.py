"""A node in a process of its own, for what cannot be done in the test's: die, hang, fork, exit.

A script sees `transport`, which is node `RANK` with open links and not started, `say` and `hear`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

PRELUDE = """
import json, os, sys, threading, time
import numpy as np, torch
torch.set_num_threads(1)
from torch.distributed import TCPStore
from swarmsgd.testing import Inbox, digest, send, threads_and_descriptors
from swarmsgd.transport.gloo import GlooTransport
RANK, NEIGHBOURS, PORT, PREFIX = json.loads(sys.argv[1])
def say(*what):
    print(*what, flush=True)
def hear():
    return sys.stdin.readline().strip()
def open_store():
    return TCPStore("127.0.0.1", PORT, is_master=False, wait_for_workers=False)
def make(rank, neighbours, store=open_store, prefix=PREFIX):
    options = dict(address="127.0.0.1", prefix=prefix, connect_timeout_s=60)
    return GlooTransport(rank, neighbours, store, **options)
if NEIGHBOURS:
    transport = make(RANK, NEIGHBOURS)
    transport.connect()
say("ready")
"""


class PeerProcess:
    """A process that runs `script` behind the prelude. Killed when the `with` block ends."""

    def __init__(
        self,
        script: str,
        *,
        rank: int = 0,
        neighbours: Iterable[int] = (),
        port: int = 0,
        prefix: str = "",
    ) -> None:
        arguments = json.dumps([rank, list(neighbours), port, prefix])
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", PRELUDE + script, arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        """One line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self, timeout_s: float = 60.0) -> str:
        """The next line it says; fails the test if there is none."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            self._process.kill()
            raise AssertionError(f"said nothing more: {self._process.communicate()}")
        return line.strip()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def wait(self, timeout_s: float = 60.0) -> tuple[int, str]:
        """Its exit code and what it wrote to standard error."""
        _, errors = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, errors

    def wait_stopped(self) -> None:
        """After a SIGSTOP: wait until all its threads have stopped."""
        while True:
            state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "T":
                return
            time.sleep(0.001)

    def __enter__(self) -> Self:
        assert self.hear() == "ready"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
