"""A process that has imported everything and forks one node after another, for tests.

Loading torch and the kernels takes a process seconds; a fork of one that has them takes
milliseconds. What is forked is a process like any other, with its own id, environment, standard
streams, sockets, threads and exit: it can be stopped and killed, and its interpreter is finalized.
Not its own are the hash seed and the address layout; what these may matter for starts `fresh`.

The zygote starts no thread and never runs a node's code itself. It ends, and kills what it forked,
when the test process closes its socket, by exiting too.
"""

from __future__ import annotations

import array
import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

READY_S = 800.0
"""For importing everything, and compiling the kernels if nobody did before."""
STREAMS = 3
LONGEST = 1 << 18
"""Bytes of a request, the environment included."""


Streams = tuple[int, int, int]
"""Descriptors to become the standard input, output and error of a process."""


def start(
    script: Path,
    arguments: Sequence[str],
    env: Mapping[str, str],
    streams: Streams,
    *,
    fresh: bool = False,
) -> Forked | subprocess.Popen[bytes]:
    """Run `script` in a process: forked, or an interpreter of its own if it shall be `fresh`."""
    if not fresh and sys.platform == "linux":
        return Forked(script, arguments, env, streams)
    command = [sys.executable, "-X", "faulthandler", str(script), *arguments]
    stdin, stdout, stderr = streams
    return subprocess.Popen(command, env=dict(env), stdin=stdin, stdout=stdout, stderr=stderr)


class Forked:
    """A process forked from the zygote; what it shares with `subprocess.Popen` means the same."""

    def __init__(
        self, script: Path, arguments: Sequence[str], env: Mapping[str, str], streams: Streams
    ) -> None:
        self.returncode: int | None = None
        self.pid: int = _zygote().ask(
            {"script": str(script), "arguments": list(arguments), "env": dict(env)}, streams
        )

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None as long as it runs."""
        if self.returncode is None:
            self.returncode = _zygote().ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        """Wait for the exit code. Raises subprocess.TimeoutExpired."""
        give_up = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > give_up:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)  # between two looks at another process
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended: its id is kept until `poll` has seen the end."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Zygote:
    """The test process's end."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        self._asked = 0
        with theirs:
            # One thread each for the libraries that would start a pool when they are loaded.
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", __file__, str(theirs.fileno())],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self.close)
        self._socket.settimeout(READY_S)
        threads = self._answer(0)
        assert threads == 1, f"{threads} threads in the zygote: a fork would copy only one of them"
        self._socket.settimeout(600.0)

    def ask(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Any:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        with self._turn:
            self._asked += 1
            message = json.dumps([self._asked, request]).encode()
            self._socket.sendmsg([message], rights if descriptors else [])
            return self._answer(self._asked)

    def _answer(self, number: int) -> Any:
        while True:  # a test that ran out of time may have left an answer behind
            answer = self._socket.recv(4096)
            assert answer, "the zygote has ended"
            answered, value = json.loads(answer)
            if answered == number:
                return value

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _zygote() -> _Zygote:
    return _Zygote()


# In the zygote.


def load() -> int:
    """Import all that a node needs; the number of threads that this has started."""
    import torch

    import swarmsgd.testing
    import swarmsgd.train.command.trainee
    import swarmsgd.train.node.join  # noqa: F401
    from swarmsgd.codec import kernels

    kernels.prepare()
    model = torch.nn.Linear(1, 1)
    torch.optim.SGD(model.parameters())  # the first optimizer of a process imports a lot
    gc.collect()
    gc.freeze()  # or the first collection in each child copies all pages
    return len(list(Path("/proc/self/task").iterdir()))


def serve(connection: socket.socket) -> dict[str, Any]:
    """Fork what is asked for; returns only in a child, with the request it was forked for."""
    children: set[int] = set()
    while True:
        data, rights, _, _ = connection.recvmsg(LONGEST, socket.CMSG_SPACE(4 * STREAMS))
        if not data:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        number, request = json.loads(data)
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            children.discard(ended)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            streams = array.array("i", rights[0][2])
            answer = os.fork()
            if answer == 0:
                connection.close()
                become(request, streams)
                return request
            for fd in streams:
                os.close(fd)
            children.add(answer)
        connection.send(json.dumps([number, answer]).encode())


def become(request: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Take over the streams, environment and arguments that a process would be started with."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [request["script"], *request["arguments"]]
    sys.path[0] = str(Path(request["script"]).parent)


def main() -> tuple[Any, dict[str, Any]]:
    """In a child: the code it shall run, and the names of the module to run it in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at the terminal: the test process ends us
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.send(json.dumps([0, load()]).encode())
    script = serve(connection)["script"]
    sys.modules["__main__"] = ModuleType("__main__")
    return compile(Path(script).read_text(), script, "exec"), vars(sys.modules["__main__"])


if __name__ == "__main__":
    # Not in a function: an error or exit of the script ends this interpreter as it would its own.
    exec(*main())
