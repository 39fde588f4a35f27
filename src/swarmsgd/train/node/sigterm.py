"""SIGTERM, as a machine that is taken away sends it: the node leaves in order, and ends.

Only where nobody else handles it, and in the main thread, which alone can.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


def exit_on_sigterm() -> None:
    """From now on SIGTERM raises SystemExit(143), so that with-blocks and atexit end the node's
    part: what is pending is added, its links are closed with a goodbye.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _Handler())


class _Handler:
    """In a forked child, which is not the node, it does what no handler does."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            raise SystemExit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
