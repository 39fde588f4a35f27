"""The parts a launcher is made of: node processes, their pipes cut into lines, signals that are
counted.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO

TAIL_LINES = 20
LONGEST_LINE = 1 << 16

# What a launcher reports.


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A node printed a line; `text` has no line end."""

    node: int
    stream: str
    """stdout or stderr."""
    text: str


@dataclass(frozen=True, slots=True)
class NodeEnd:
    """A node's process has ended."""

    node: int
    returncode: int
    """As in subprocess: negative for a signal."""
    seconds: float
    tail: tuple[str, ...]
    """The last lines it wrote to stderr."""

    @property
    def failed(self) -> bool:
        """Whether it ended with anything but exit code 0."""
        return self.returncode != 0

    @property
    def how(self) -> str:
        """`exit code 1`, or the name of the signal that ended it."""
        if self.returncode >= 0:
            return f"exit code {self.returncode}"
        try:
            return signal.Signals(-self.returncode).name
        except ValueError:
            return f"signal {-self.returncode}"

    @property
    def last_words(self) -> str:
        """The last non-empty line of stderr, which for a traceback names the error; or ""."""
        return next((line.strip() for line in reversed(self.tail) if line.strip()), "")

    @property
    def why(self) -> str:
        """How it ended, and its last words; those of a process that a signal ended do not say why,
        and are told as what they are.
        """
        words = self.last_words or "none"
        if self.returncode < 0:
            killed = self.returncode == -signal.SIGKILL
            how = f"{self.how} (from outside, or memory ran out)" if killed else self.how
            return f"{how}; the last it had said: {words}"
        return f"{self.how}; last words: {words}"


@dataclass(frozen=True, slots=True)
class Note:
    """The launcher itself has something to say, perhaps of one node."""

    text: str
    node: int | None = None


LauncherEvent = OutputLine | NodeEnd | Note


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the nodes of this host ended."""

    nodes: tuple[NodeEnd, ...]
    interrupted: int | None
    """The signal that ended the run early, if one did."""

    @property
    def interrupted_by(self) -> str | None:
        """The name of that signal."""
        return None if self.interrupted is None else signal.Signals(self.interrupted).name

    @property
    def failed(self) -> tuple[NodeEnd, ...]:
        """The nodes that failed on their own."""
        return () if self.interrupted else tuple(end for end in self.nodes if end.failed)

    @property
    def exit_code(self) -> int:
        """0 if all nodes ended well, 1 if any failed, 128 + signal after an interruption (130 for
        Ctrl-C).
        """
        if self.interrupted is not None:
            return 128 + self.interrupted
        return 1 if self.failed else 0


class Interrupts:
    """While open, SIGINT, SIGTERM and SIGHUP are counted instead of ending this process.

    Only in the main thread, which alone may handle signals; elsewhere it sees none.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.count = 0
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.first = self.first or number
        self.count += 1


class LineStream:
    """Bytes of one pipe, cut into lines; of a line that was overwritten with \\r the last state."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        os.set_blocking(file.fileno(), False)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def read(self, *, at_end: bool = False) -> tuple[list[str], bool]:
        """(whole lines that can be read now, whether the other end is closed)."""
        closed = False
        while True:
            try:
                data = os.read(self.file.fileno(), LONGEST_LINE)
            except BlockingIOError:
                break
            self._rest += self._decoder.decode(data, final=not data)
            if not data:
                closed = True
                break
            if not at_end:
                break
        *lines, self._rest = self._rest.split("\n")
        if self._rest and (closed or at_end or len(self._rest) >= LONGEST_LINE):
            lines.append(self._rest)
            self._rest = ""
        return [line.rstrip("\r").rpartition("\r")[2] for line in lines], closed


class Process:
    """One node's process, in a process group of its own."""

    def __init__(self, node: int, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self.node = node
        self.started = time.monotonic()
        self.popen = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.popen.stdout is not None and self.popen.stderr is not None
        self.streams = {
            "stdout": LineStream(self.popen.stdout),
            "stderr": LineStream(self.popen.stderr),
        }
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def signal_group(self, number: int) -> None:
        """Reaches what the node started, too."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, number)

    def end(self) -> NodeEnd:
        """What is to be said of it once `popen` has a return code."""
        seconds = time.monotonic() - self.started
        return NodeEnd(self.node, self.popen.returncode, seconds, tuple(self.tail))
