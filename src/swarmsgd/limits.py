"""What the system lets a process have: descriptors, threads, processes. Soft limits are raised here
and nowhere else, and a limit that is too small is named.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from swarmsgd.errors import ConfigError

try:
    import resource
except ImportError:  # not Unix
    resource = None

MOST_DESCRIPTORS = 1 << 16
"""As far as the soft limit is raised; a node of a complete graph of a thousand needs 1,100."""
_NO_TASK = ("can't start new thread", os.strerror(errno.EAGAIN))
"""What Python and native code say where no thread can be started."""
NODE_TASKS = 10
"""Processes and threads that a node is at least; each counts for `ulimit -u`."""
LAUNCHER_TASKS = 5
"""The same of what starts them."""


def raise_soft() -> None:
    """Raise this process's soft limits of descriptors and tasks as far as the hard ones let it;
    what it starts has them too.
    """
    if resource is None:
        return
    _raise(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS)
    _raise(resource.RLIMIT_NPROC, None)


def _raise(which: int, most: int | None) -> None:
    assert resource is not None
    soft, hard = resource.getrlimit(which)
    if soft == resource.RLIM_INFINITY or soft == hard:
        return
    wanted = hard if most is None else most if hard == resource.RLIM_INFINITY else min(most, hard)
    while wanted == resource.RLIM_INFINITY or wanted > soft:
        with contextlib.suppress(OSError, ValueError):  # macOS takes less than it says
            resource.setrlimit(which, (wanted, hard))
            return
        if wanted == resource.RLIM_INFINITY:
            return
        wanted //= 2


def need_descriptors(count: int, what: str) -> None:
    """Raise ConfigError if `what` cannot have `count` descriptors more."""
    raise_soft()
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise ConfigError(f"{what} wants {count} descriptors more: {explain(error)}") from None
    finally:
        for descriptor in taken:
            os.close(descriptor)


def need_threads(count: int, what: str) -> None:
    """Raise ConfigError if `what` cannot have `count` threads more."""
    raise_soft()
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise ConfigError(f"{what} wants {count} threads more: {explain(error)}") from None
    finally:
        done.set()
        for thread in started:
            thread.join()


def need_nodes(count: int, root: Path = Path("/")) -> None:
    """Raise ConfigError if so many nodes cannot be started here, as far as limits tell."""
    raise_soft()
    tasks = LAUNCHER_TASKS + NODE_TASKS * count
    limit = soft_limit("RLIMIT_NPROC")
    privileged = os.geteuid() == 0  # whom `ulimit -u` does not bind
    bounds = [] if limit is None or privileged else [limit]
    bounds += [most - now for most, now in group_tasks(root)]
    if bounds and min(bounds) < tasks:
        raise ConfigError(
            f"{count} nodes are {tasks} processes and threads or more: {_no_tasks(root)}"
        )


def soft_limit(name: str) -> int | None:
    """Of this process, by the name of `resource`; None if there is none."""
    if resource is None:
        return None
    soft = resource.getrlimit(getattr(resource, name))[0]
    return None if soft == resource.RLIM_INFINITY else soft


def group_tasks(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """(allowed, there now): how many processes and threads control groups let there be."""
    return group_figures("pids", root)


def group_figures(what: str, root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """(allowed, there now) of pids or memory (bytes), of the process's control group (v2) and those
    around it, where they limit it.
    """
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        if not line.startswith("0::"):
            continue
        inner = top / line[3:].lstrip("/")
        for folder in {inner, *(p for p in inner.parents if p.is_relative_to(top)), top}:
            most, now = (_read(folder / f"{what}.{name}").strip() for name in ("max", "current"))
            if most.isdecimal() and now.isdecimal():
                yield int(most), int(now)


def explain(error: BaseException) -> str | None:
    """Which limit the error comes from and how it is raised, if it is one of those here."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EMFILE:
        return (
            f"`ulimit -n` allows {soft_limit('RLIMIT_NOFILE')} a process. Raise it: `ulimit -n "
            "4096`; --ulimit nofile=4096 in docker, LimitNOFILE=4096 under systemd"
        )
    if number == errno.ENFILE:
        return "the system has no descriptors left. Raise fs.file-max, or end what holds them"
    if number == errno.EAGAIN or any(text in str(error) for text in _NO_TASK):
        return _no_tasks()
    return None


def _no_tasks(root: Path = Path("/")) -> str:
    limit = soft_limit("RLIMIT_NPROC")
    known = [] if limit is None else [f"`ulimit -u` allows this user {limit}"]
    known += [f"the control group {most}, with {now} there now" for most, now in group_tasks(root)]
    return (
        f"{', '.join(known) or 'the system allows no more'}. Raise it: `ulimit -u 4096`; "
        "--pids-limit in docker, TasksMax under systemd"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
