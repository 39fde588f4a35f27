"""What a command prints: lines that are dropped, rather than waited for, where nobody takes them.

A full disk, a reader that ended or stopped reading, a closed stream or a letter that its encoding
lacks must neither end a run nor delay it. So a command's `sys.stdout` and `sys.stderr` stand in for
the real ones: what is written to them joins a queue of bounded size, and a thread writes it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TextIO

MOST_BYTES = 4 << 20
"""What may wait for one stream; lines beyond are dropped."""
_PIECE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe with room takes at once."""
DRAIN_LOOK_S = 0.05
"""How often to look whether a reader reads."""
ROOM_S = 0.5
"""How long a printer waits, at most, for a reader that reads to make room."""
QUIET_S, _LAST_S = 2.0, 10.0
"""How long the end of a command waits for a reader that takes nothing, or little."""
LENIENT = ("replace", "ignore", "backslashreplace", "xmlcharrefreplace", "namereplace")
"""Names of error handlers of an encoding that do not raise."""


class Stream(io.TextIOBase):
    """Stands in for `target`, which may be None; neither waits nor raises.

    Whole lines are written or dropped: `dropped` counts those, and `trouble` says why.
    """

    def __init__(self, target: TextIO | None, writer: Writer) -> None:
        self.descriptor = _descriptor(target)
        self.queue: deque[tuple[int, bytes]] = deque()
        """Numbered pieces, for the writer."""
        self.waiting = 0
        """Bytes in the queue, or being written."""
        self.overrun = False
        """The queue was full, and its reader has not caught up since."""
        self.dropped = 0
        self.trouble: str | None = None
        self._target = target
        self._writer = writer
        self._begun = ""
        self._lock = threading.RLock()
        errors = getattr(target, "errors", None)
        self._errors = errors if errors in LENIENT else "backslashreplace"

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the target."""
        return getattr(self._target, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Always, as far as anybody needs to know."""
        return True

    def isatty(self) -> bool:
        """Whether the target is a terminal."""
        return self.descriptor is not None and os.isatty(self.descriptor)

    def fileno(self) -> int:
        """That of the target."""
        if self.descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self.descriptor

    def write(self, text: str, /) -> int:
        """Take `text`; it is passed on when its line is whole."""
        with self._lock:
            whole, end, self._begun = (self._begun + text).rpartition("\n")
            if end:
                self._pass_on(whole + end)
        return len(text)

    def flush(self) -> None:
        """Pass on what is no whole line yet. Waits for nothing."""
        with self._lock:
            begun, self._begun = self._begun, ""
            if begun:
                self._pass_on(begun)

    def settle(self) -> None:
        """Pass on all; return when it was written or dropped."""
        self.flush()
        self._writer.drain()

    def drop(self, data: bytes, why: str) -> None:
        """Count what cannot be written."""
        self.dropped += max(1, data.count(b"\n"))
        self.trouble = why

    def _pass_on(self, text: str) -> None:
        data = text.encode(self.encoding, self._errors)
        if self.descriptor is not None:
            self._writer.put(self, data)
        elif self._target is None:
            self.drop(data, "it is closed")
        else:  # in memory: it takes no time
            try:
                self._target.write(text)
                self._target.flush()
            except (OSError, ValueError) as error:
                self.drop(data, str(error))


def _descriptor(target: TextIO | None) -> int | None:
    try:
        return None if target is None else target.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class Writer:
    """A thread that writes what streams were given, in that order, as far as readers let it."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        self._changed = threading.Condition()
        self._number = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="swarmsgd-output", daemon=True)

    def put(self, stream: Stream, data: bytes) -> None:
        """Queue whole lines for `stream`. Waits a little for a reader that reads, for no other."""
        with self._changed:
            if stream not in self._streams:
                self._streams.append(stream)
            if self._thread.ident is None and not self._start():
                self._write_now(stream, data)
                return
            if stream.waiting + len(data) > MOST_BYTES:
                self._make_room(stream)
            if stream.waiting + len(data) > MOST_BYTES or self._closing:
                stream.drop(data, "nobody reads it fast enough")
                return
            for start in range(0, len(data), _PIECE):
                self._number += 1
                stream.queue.append((self._number, data[start : start + _PIECE]))
            stream.waiting += len(data)
            self._changed.notify_all()

    def _start(self) -> bool:
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be had
            return False
        return True

    def _write_now(self, stream: Stream, data: bytes) -> None:
        """Without a thread: wait for the reader, rather than say nothing of why."""
        try:
            while data:
                data = data[os.write(stream.fileno(), data) :]
        except OSError as error:
            stream.drop(data, error.strerror or str(error))

    def _make_room(self, stream: Stream) -> None:
        give_up = time.monotonic() + ROOM_S
        while stream.waiting > MOST_BYTES // 2 and not stream.overrun:
            reads = self._wait_for_progress(stream, DRAIN_LOOK_S)
            stream.overrun = not reads or time.monotonic() > give_up

    def _wait_for_progress(self, stream: Stream, timeout_s: float) -> bool:
        before = stream.waiting
        return self._changed.wait_for(lambda: stream.waiting < before, timeout_s)

    def drain(self) -> None:
        """Return when all is written, or its readers are not worth waiting for: the rest is
        dropped.
        """
        give_up = time.monotonic() + _LAST_S
        with self._changed:
            for stream in self._streams:
                reads = True
                while stream.waiting and reads and time.monotonic() < give_up:
                    reads = self._wait_for_progress(stream, QUIET_S)
                if stream.waiting:
                    left = b"".join(piece for _, piece in stream.queue)
                    stream.queue.clear()
                    stream.waiting = 0
                    stream.drop(left, "nobody reads it")

    def close(self) -> None:
        """End the thread, unless it waits for a reader."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    # The thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or any(s.queue for s in self._streams))
                if self._closing:
                    return
                streams = [stream for stream in self._streams if stream.queue]
            ready = _ready(streams)
            with self._changed:
                streams = [
                    stream for stream in streams if stream.queue and stream.fileno() in ready
                ]
                if not streams:
                    continue
                stream = min(streams, key=lambda stream: stream.queue[0][0])
                number, data = _take(stream)
            self._write(stream, number, data)

    def _write(self, stream: Stream, number: int, data: bytes) -> None:
        rest, why = data, ""
        try:
            rest = data[os.write(stream.fileno(), data) :]
        except BlockingIOError:  # somebody else took the room
            time.sleep(DRAIN_LOOK_S)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
        with self._changed:
            if why:
                stream.drop(rest, why)
                rest = b""
            if rest:
                stream.queue.appendleft((number, rest))
            if len(rest) < len(data):
                stream.waiting = max(0, stream.waiting - len(data) + len(rest))
                stream.overrun = stream.overrun and stream.waiting > MOST_BYTES // 2
                self._changed.notify_all()


def _take(stream: Stream) -> tuple[int, bytes]:
    """Pieces that follow each other, as many as go at once; the number of the last."""
    number, data = stream.queue.popleft()
    while stream.queue:
        following, piece = stream.queue[0]
        if following != number + 1 or len(data) + len(piece) > _PIECE:
            break
        number, data = following, data + piece
        stream.queue.popleft()
    return number, data


def _ready(streams: list[Stream]) -> set[int]:
    """The descriptors that take something now, or tell why they never will."""
    descriptors = [stream.fileno() for stream in streams]
    try:
        return set(select.select([], descriptors, [], DRAIN_LOOK_S)[1])
    except (OSError, ValueError):  # one was closed: to write to it says so
        return set(descriptors)


def shield() -> tuple[Stream, Stream, Writer]:
    """Put streams in the place of `sys.stdout` and `sys.stderr`."""
    _open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    writer = Writer()
    out, err = Stream(sys.stdout, writer), Stream(sys.stderr, writer)
    sys.stdout, sys.stderr = out, err
    return out, err, writer


@contextlib.contextmanager
def unhindered() -> Iterator[None]:
    """Inside this block nothing that the process prints delays or ends it. Afterwards stderr says,
    if it can, how much was dropped.
    """
    if isinstance(sys.stdout, Stream):
        yield
        return
    before = sys.stdout, sys.stderr
    _, err, writer = shield()
    told = True
    try:
        yield
    except SystemExit:  # a help page: whoever reads half of it knows
        told = False
        raise
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            settle()
            if told and (lost := trouble()):
                print(f"swarmsgd: {lost}", file=err, flush=True)
                writer.drain()
        writer.close()
        sys.stdout, sys.stderr = before


def settle() -> None:
    """Return when what was printed has been written or dropped; see `Writer.drain`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Stream):
            stream.settle()


def trouble() -> str | None:
    """What of this process's output was dropped so far, in words; None if nothing was."""
    parts = [
        f"{stream.dropped:,} line{'s' * (stream.dropped > 1)} on {name} ({stream.trouble})"
        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
        if isinstance(stream, Stream) and stream.dropped
    ]
    return f"could not print {' and '.join(parts)}" if parts else None


def _open_standard_descriptors() -> None:
    """Open 0 to 2 where they are closed, or the next socket would get that number, and native code
    would print to it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
