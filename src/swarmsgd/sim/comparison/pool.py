"""The processes that a comparison computes its runs in, and how they end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

from swarmsgd.observe import output

if TYPE_CHECKING:
    from collections.abc import Sequence

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_TICK_S = 0.2
"""A signal that comes just before a wait begins is heeded when that ends, no later."""


class Pool(ProcessPoolExecutor):
    """Processes for runs: those that go on when the `with` block ends in an error end with it.

    While it is open Ctrl-C ends the wait of `each`, and nothing else: raised anywhere, it could
    leave a lock of the executor held for ever, or be lost.
    """

    def __init__(self, count: int) -> None:
        self._ended: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._heeds = False
        context = multiprocessing.get_context("spawn")
        with _import_nothing_from_here():  # Python's tracker of semaphores is a process, too
            super().__init__(count, context, initializer=_begin_worker)

    def __enter__(self) -> Self:
        self._heeds = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._heeds:
            signal.signal(signal.SIGINT, lambda *_: self._ended.put(None))
        return self

    def each(
        self, run: Callable[[_Job], _Result], jobs: Sequence[_Job]
    ) -> Iterator[tuple[_Job, Future[_Result]]]:
        """Run them all; each as it ends. KeyboardInterrupt after Ctrl-C."""
        with _import_nothing_from_here():
            futures = {self.submit(run, job): job for job in jobs}
        for future in futures:
            future.add_done_callback(self._ended.put)
        for _ in futures:
            future = self._next()
            yield futures[future], future

    def _next(self) -> Future[Any]:
        while True:
            with contextlib.suppress(queue.Empty):
                if (future := self._ended.get(timeout=_TICK_S)) is None:
                    raise KeyboardInterrupt
                return future

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                for process in multiprocessing.active_children():
                    process.terminate()
            self.shutdown(wait=True, cancel_futures=True)
        finally:
            if self._heeds:
                signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _import_nothing_from_here() -> Iterator[None]:
    """What is started inside takes no token.py in the working folder for Python's own."""
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _begin_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, name="swarmsgd-parent", daemon=True).start()
    output.shield()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """End this process when its parent has ended, even if that was killed: nobody is left who
    could take the result.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
