"""What has native threads: they must end before the interpreter does, and are not a forked
child's.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Protocol


class Native(Protocol):
    """Something with threads and connections below Python."""

    def close(self) -> None:
        """End them."""
        ...

    def abandon(self) -> None:
        """In a forked child, where they are the parent's: hold nothing of them."""
        ...


_live: set[Native] = set()


def begins(thing: Native) -> None:
    """It lives from now on."""
    _live.add(thing)


def ends(thing: Native) -> None:
    """It was closed."""
    _live.discard(thing)


@atexit.register
def _close_all() -> None:
    for thing in list(_live):
        thing.close()


def _abandon_all() -> None:
    for thing in list(_live):
        thing.abandon()
    _live.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_all)
