"""A disk that has no room for what a run writes: it is named, and the run comes to its end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from confined import need_root, small_disk
from test_lost_output import RECIPE

from swarmsgd.cli import main
from swarmsgd.observe.ending import Ending

SMALL = ("--nodes", "2", "--epochs", "1", "--samples-per-node", "100")


def run(tmp_path: Path, kilobytes: int, *words: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "small.toml").write_text(RECIPE)
    disk = tmp_path / "disk"
    command = [sys.executable, "-m", "swarmsgd", *words, "--out", str(disk / "run")]
    return subprocess.run(
        [*small_disk(disk, kilobytes, then=f"ls -A {disk}/run"), *command],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@need_root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "kilobytes", "said", "lost"),
    [
        (
            ("train", "synthetic", *SMALL, "--checkpoint-every", "2"),
            12,
            ("mean model", "training goes on"),
            "summary.json",
        ),
        (("compare", "small.toml"), 8, ("| swarm",), "table.md"),
    ],
)
def test_a_full_disk_takes_files_and_not_what_the_run_came_to(
    tmp_path: Path, words: Sequence[str], kilobytes: int, said: Sequence[str], lost: str
) -> None:
    done = run(tmp_path, kilobytes, *words)
    assert "Traceback" not in done.stderr + done.stdout
    assert all(text in done.stdout for text in said)
    left = done.stdout.splitlines()
    assert done.returncode == 1
    assert f"{lost} (No space left on device)" in done.stderr
    assert lost not in left and f".{lost}" not in left


def test_a_simulation_without_room_at_its_end_says_what_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(path: Path, contents: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("swarmsgd.observe.ending.write_whole", no_room)
    assert main(["simulate", "synthetic", *SMALL, "--out", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert "mean model" in out and "report.html" not in out
    for name in ("summary.json", "model.safetensors", "report.html"):
        assert f"{name} ({os.strerror(errno.ENOSPC)})" in err


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    ending = Ending(tmp_path)
    (tmp_path / "taken").mkdir()
    ending.put("taken", "x")
    ending.put("fits", "x")
    assert ending.complaint() == (
        f"could not be written to {tmp_path}: taken ({os.strerror(errno.EISDIR)})"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fits", "taken"]
    (tmp_path / "taken").rmdir()
    ending.put("taken", "x")
    assert ending.complaint() is None
