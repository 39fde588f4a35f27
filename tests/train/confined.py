"""Start a command where something is scarce: a small disk, few descriptors, another user's rights.

Each gives the words to put in front of a command; `need_root` is the mark for tests that use what
only root may do.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest


@cache
def _refusal() -> str:
    """Why this process may not make namespaces and mounts; empty if it may."""
    try:
        done = subprocess.run(
            ["unshare", "-m", "-n", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip()


need_root = pytest.mark.skipif(bool(_refusal()), reason=f"wants root: {_refusal()}")


def small_disk(folder: Path, kilobytes: int, *, then: str = "true") -> list[str]:
    """`folder` is a disk of its own of this size, which is gone with the command; the shell command
    `then` may look at it before.
    """
    folder.mkdir(exist_ok=True)
    script = (
        f'mount -t tmpfs -o size={kilobytes}k none {folder} && "$@"; code=$?; {then}; exit $code'
    )
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def limited(**limits: int) -> list[str]:
    """With these limits, by the letters of `ulimit`."""
    script = "; ".join(f"ulimit -{letter} {value}" for letter, value in limits.items())
    return ["bash", "-c", f'{script}; exec "$@"', "bash"]


NOBODY = 54321


def nobody() -> list[str]:
    """As a user of this number, of whom the system knows nothing else, without a home; what this
    user may read and write it may too.
    """
    user = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    return [*user, "env", "-u", "HOME", "-u", "XDG_CACHE_HOME", "-u", "NUMBA_CACHE_DIR"]


@cache
def _no_nobody() -> str:
    try:
        done = subprocess.run([*nobody(), "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip()


need_nobody = pytest.mark.skipif(
    bool(_no_nobody()), reason=f"wants namespaces of users: {_no_nobody()}"
)
