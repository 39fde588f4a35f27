"""Ends process groups when the launcher that started them is gone, however it went.

The launcher runs this file as a process of its own, which a kill of the launcher does not reach,
and tells it over a pipe: `+123` a group was started, `-123` it has ended. When the pipe closes, the
groups still listed get SIGKILL: nobody is left who could wait for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Read the pipe to its end, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
