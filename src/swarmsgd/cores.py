"""How many cores a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1: those that the process may be scheduled on, or fewer if a quota of its control
    group (v2 or v1), as containers and batch systems set, amounts to fewer; rounded up. `root` is
    where the system's files are looked for.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cores, *(-(-quota // period) for quota, period in _quotas(root))]))


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of a core's time in each period of so many, of the group and of those around
    it."""
    groups = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        version_2 = not controllers
        if not version_2 and "cpu" not in controllers.split(","):
            continue
        top = groups if version_2 else groups / "cpu"
        # In a container the path may be that of the host, and the group the top of what is seen.
        inner = top / path.lstrip("/")
        for folder in {inner, *(p for p in inner.parents if p.is_relative_to(top)), top}:
            if version_2:
                words = _read(folder / "cpu.max").split()
            else:
                words = [_read(folder / f"cpu.cfs_{n}_us").strip() for n in ("quota", "period")]
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
                yield int(words[0]), int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
