"""A node in a process of its own, for what cannot be done in the test's: die, hang, fork, exit.

A script sees `transport`, which is node `RANK` with open links that nobody polls, `say` and `hear`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import zygote

PRELUDE = """
import json, os, sys, threading, time
import numpy as np
from swarmsgd.testing import Inbox, digest, send, threads_and_descriptors
from swarmsgd.transport.zmq import ZmqTransport
RANK, ENDPOINTS = json.loads(sys.argv[1])
def say(*what):
    print(*what, flush=True)
def hear():
    return sys.stdin.readline().strip()
if ENDPOINTS:
    transport = ZmqTransport(RANK, address="127.0.0.1")
    say(transport.endpoint)
    transport.open("run", {int(rank): at for rank, at in ENDPOINTS.items()}, 600)
else:
    say("ready")
"""


class PeerProcess:
    """A process that runs `script` behind the prelude, linked to those at `endpoints`. Killed when
    the `with` block ends.

    It is forked from one that has everything loaded, unless it shall be `fresh`.
    """

    def __init__(
        self,
        script: str,
        *,
        rank: int = 0,
        endpoints: Mapping[int, str] | None = None,
        fresh: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "peer.py"
        path.write_text(PRELUDE + script)
        arguments = [json.dumps([rank, dict(endpoints or {})])]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        stdin, self._stdin = os.pipe()
        stdout, theirs = os.pipe()
        self._stdout = os.fdopen(stdout)
        self._errors = (Path(self._folder.name) / "errors").open("w+")
        streams = (stdin, theirs, self._errors.fileno())
        self._process = zygote.start(path, arguments, environment, streams, fresh=fresh)
        os.close(stdin)
        os.close(theirs)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: str) -> None:
        """One line to its standard input."""
        os.write(self._stdin, f"{line}\n".encode())

    def hear(self, timeout_s: float = 600.0) -> str:
        """The next line it says; fails the test if there is none."""
        readable, _, _ = select.select([self._stdout], [], [], timeout_s)
        line = self._stdout.readline() if readable else ""
        if not line:
            self._process.kill()
            raise AssertionError(f"said nothing more: {self.wait()}")
        return line.strip()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def wait(self, timeout_s: float = 600.0) -> tuple[int, str]:
        """Its exit code and what it wrote to standard error."""
        code = self._process.wait(timeout_s)
        self._errors.seek(0)
        return code, self._errors.read()

    def wait_stopped(self) -> None:
        """After a SIGSTOP: wait until all its threads have stopped."""
        while True:
            state = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "T":
                return
            time.sleep(0.001)

    def __enter__(self) -> Self:
        self.endpoint = self.hear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(600.0)
        os.close(self._stdin)
        self._stdout.close()
        self._errors.close()
        self._folder.cleanup()
