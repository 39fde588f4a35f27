"""Where this user keeps what can be made again: data that were fetched, compiled code."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple


class CachePlace(NamedTuple):
    """A folder that can be written to, or made, and what spoke against the usual one."""

    folder: Path
    instead_of: str
    """Why it is not the usual one; empty if it is."""


def cache() -> CachePlace:
    """`$XDG_CACHE_HOME/swarmsgd`, or else `~/.cache/swarmsgd`; where there is no home, or it cannot
    be written to and has no such folder yet, a private one among the system's temporary files.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return CachePlace(Path(base) / "swarmsgd", "")
    try:
        usual = Path.home() / ".cache" / "swarmsgd"
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        return CachePlace(private_temporary(), "this user has no home folder")
    if usual.exists() or can_write(usual):
        return CachePlace(usual, "")
    return CachePlace(private_temporary(), f"{usual} cannot be written to")


def can_write(folder: Path) -> bool:
    """Whether it can be written to, or made where it is not there yet."""
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    return existing is not None and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def private_temporary() -> Path:
    """A folder among the system's temporary files that nobody else can write to, the same at every
    call; made if need be.
    """
    user = getattr(os, "geteuid", lambda: "user")()
    name, number = f"swarmsgd-{user}", 0
    while True:
        path = Path(tempfile.gettempdir()) / (f"{name}-{number}" if number else name)
        try:
            path.mkdir(mode=0o700)
            return path
        except FileExistsError:
            if _is_private(path):
                return path
        number += 1  # somebody else has made it: what they put there might be run here


def _is_private(path: Path) -> bool:
    found = path.lstat()
    mine = os.name != "posix" or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)
    return stat.S_ISDIR(found.st_mode) and mine
