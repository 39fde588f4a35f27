"""A stand-in for a device: it runs what its streams were given when the test says so, in any order
that the events between them allow.

It has what `transfers.Streams` uses of `torch.cuda`, and its memory is the host's. A transfer that
does not wait for what it should is run too early by some order, and leaves wrong numbers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Choose = Callable[[int], int]
"""Given n, one of 0 .. n - 1."""


class Stream:
    def __init__(self) -> None:
        self.work: deque[Event | Callable[[], object]] = deque()

    def wait_event(self, event: Event) -> None:
        self.work.append(event)

    def can_run(self) -> bool:
        return bool(self.work) and not (isinstance(self.work[0], Event) and not self.work[0].done)


class Event:
    """As torch's: done until it is recorded."""

    def __init__(self, device: Lagging) -> None:
        self.done = True
        self._device = device

    def record(self, stream: Stream) -> None:
        self.done = False
        self._device.put(stream, self._happen)

    def _happen(self) -> None:
        self.done = True

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self._device.wait(self)


class Lagging:
    """One device. `run_one` and `run_all` are its time; or `start` gives it a thread of its own."""

    def __init__(self, choose: Choose) -> None:
        self.streams: list[Stream] = []
        self.current = self.Stream()
        self.waits = 0
        """How often a thread had to wait for the device."""
        self._choose = choose
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._impatient: set[int] = set()
        self._stopping = False

    # What it has in common with `torch.cuda`.

    def Stream(self, device: object = None) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def Event(self) -> Event:
        return Event(self)

    def current_stream(self, device: object = None) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        """Tensor operations in here are put on `stream`."""
        with _Put(self, stream):
            yield

    # Its time.

    def put(self, stream: Stream, work: Callable[[], object]) -> None:
        with self._changed:
            stream.work.append(work)
            self._changed.notify_all()

    def run_one(self) -> bool:
        """Run one piece of work of one stream; False if there is none that can run."""
        with self._changed:
            ready = [s for s in self.streams if s.can_run()]
            if not ready:
                return False
            self._run_next(ready[self._choose(len(ready))])
            return True

    def run_transfers(self) -> None:
        """All that can run while the current stream stands still."""
        with self._changed:
            for stream in self.streams:
                while stream is not self.current and stream.can_run():
                    self._run_next(stream)

    def _run_next(self, stream: Stream) -> None:
        work = stream.work.popleft()
        if not isinstance(work, Event):
            with torch.no_grad():
                work()
        self._changed.notify_all()

    def run_all(self) -> None:
        while self.run_one():
            pass
        assert not any(stream.work for stream in self.streams), "streams wait for each other"

    def wait(self, event: Event) -> None:
        assert threading.get_ident() not in self._impatient, "the training thread waits for this"
        self.waits += not event.done
        if self._thread is None:
            while not event.done:
                assert self.run_one(), "waits for what never happens"
            return
        with self._changed:
            assert self._changed.wait_for(lambda: event.done, 60)

    def wait_until(self, at_most: int) -> None:
        """Until no more than `at_most` pieces of work are waiting on the current stream."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.current.work) <= at_most, 60)

    @contextmanager
    def no_waiting(self) -> Iterator[None]:
        """This thread must not wait for the device."""
        self._impatient.add(threading.get_ident())
        try:
            yield
        finally:
            self._impatient.discard(threading.get_ident())

    @contextmanager
    def running(self) -> Iterator[None]:
        """With a thread that runs all work as it comes."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._stopping = True
                self._changed.notify_all()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self.run_one():
                    if self._stopping:
                        return
                    self._changed.wait()


_ON_STREAMS = (
    torch.Tensor.copy_,
    torch.Tensor.add_,
    torch._foreach_copy_,
    torch._foreach_add_,
)


class _Put(TorchFunctionMode):
    def __init__(self, device: Lagging, stream: Stream) -> None:
        super().__init__()
        self._device = device
        self._stream = stream

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        assert func in _ON_STREAMS, f"{func} on a stream"
        self._device.put(self._stream, lambda: func(*args, **(kwargs or {})))
        return args[0]
