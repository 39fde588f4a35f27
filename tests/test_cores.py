"""Cores are counted as a control group lets them be used."""

import os
from pathlib import Path

import pytest

from swarmsgd.cores import usable_cores


def system(root: Path, group: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_without_a_quota_they_are_those_of_the_affinity(tmp_path: Path):
    assert usable_cores(tmp_path) == 8
    assert usable_cores(system(tmp_path, "0::/a\n", **{"a/cpu.max": "max 100000\n"})) == 8


@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (150_000, 2), (400_000, 4), (9**9, 8)])
def test_a_quota_of_version_2_counts_rounded_up(tmp_path: Path, quota: int, cores: int):
    root = system(tmp_path, "0::/a/b\n", **{"a/b/cpu.max": f"{quota} 100000\n"})
    assert usable_cores(root) == cores


def test_a_quota_of_a_group_around_it_counts_too(tmp_path: Path):
    files = {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}
    assert usable_cores(system(tmp_path, "0::/a/b\n", **files)) == 2


def test_in_a_container_the_group_is_the_top_of_what_is_seen(tmp_path: Path):
    root = system(tmp_path, "0::/docker/1234\n", **{"cpu.max": "100000 100000"})
    assert usable_cores(root) == 1


def test_a_quota_of_version_1_counts(tmp_path: Path):
    files = {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}
    group = "7:memory:/a\n3:cpu,cpuacct:/a\n"
    assert usable_cores(system(tmp_path, group, **files)) == 3
    (tmp_path / "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cores(tmp_path) == 8
