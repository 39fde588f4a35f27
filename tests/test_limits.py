"""Limits of the system: soft ones are raised, and one that is too small is named."""

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmsgd import limits
from swarmsgd.cli import main
from swarmsgd.errors import ConfigError


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A soft limit of 100; the hard one stays."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_soft_limit_of_descriptors_is_raised_before_anything_is_refused(
    few_descriptors: None,
) -> None:
    limits.need_descriptors(200, "a test")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100


def run_limited(*bounds: tuple[int, int], script: str) -> str:
    """What a process prints that has these hard limits."""
    lines = [f"resource.setrlimit({which}, ({most}, {most}))" for which, most in bounds]
    text = "\n".join(["import resource", "from swarmsgd import limits", *lines, script])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_hard_limit_of_descriptors_is_named() -> None:
    said = run_limited(
        (resource.RLIMIT_NOFILE, 30),
        script="limits.need_descriptors(40, 'a node with 3 links')",
    )
    assert "a node with 3 links wants 40 descriptors more: `ulimit -n` allows 30 a process" in said


def test_threads_that_cannot_be_started_are_named_and_the_others_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, left = threading.active_count(), [3]
    start = threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(ConfigError, match=r"a port wants 6 threads more: .*Raise it: `ulimit -u"):
        limits.need_threads(6, "a port")
    assert threading.active_count() == before


def group(root: Path, most: str, now: int) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/a/b\n")
    (root / "sys/fs/cgroup/a/b").mkdir(parents=True)
    (root / "sys/fs/cgroup/a/pids.max").write_text(f"{most}\n")
    (root / "sys/fs/cgroup/a/pids.current").write_text(f"{now}\n")
    return root


def test_a_control_group_without_room_for_the_nodes_is_named(tmp_path: Path) -> None:
    root = group(tmp_path, "100", 70)
    limits.need_nodes(2, root)
    with pytest.raises(ConfigError, match=r"4 nodes are 45 .*the control group 100, with 70 there"):
        limits.need_nodes(4, root)


def test_a_control_group_without_a_limit_refuses_nobody(tmp_path: Path) -> None:
    limits.need_nodes(1000, group(tmp_path, "max", 70))


def test_the_users_own_limit_does_not_bind_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "soft_limit", lambda name: 20)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    limits.need_nodes(4, tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match=r"`ulimit -u` allows this user 20\. Raise it"):
        limits.need_nodes(4, tmp_path)


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
)
def test_a_command_that_meets_a_limit_names_it(
    error: Exception,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("swarmsgd.cli._dispatch", fail)
    assert main(["launch"]) == 1
    assert limit in capsys.readouterr().err


def test_an_error_that_is_no_limit_is_not_explained() -> None:
    assert limits.explain(RuntimeError("no")) is None
    assert limits.explain(FileNotFoundError(errno.ENOENT, "no")) is None
