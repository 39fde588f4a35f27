"""Where what can be made again is kept, on machines that have no usual place for it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from confined import NOBODY, need_nobody, nobody

from swarmsgd import caches


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_the_usual_place_is_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.cache() == (tmp_path / ".cache" / "swarmsgd", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert caches.cache() == (Path("/elsewhere/swarmsgd"), "")


def test_a_home_that_cannot_be_written_to_is_replaced_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    folder, why = caches.cache()
    assert folder == tmp_path / "tmp" / f"swarmsgd-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert why == f"{tmp_path}/file/.cache/swarmsgd cannot be written to"
    assert caches.cache().folder == folder, "the next run looks elsewhere"


def test_data_in_a_home_that_cannot_be_written_to_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / ".cache" / "swarmsgd"
    kept.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(caches, "can_write", lambda _: False)
    assert caches.cache() == (kept, "")


def test_a_temporary_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    mine = caches.private_temporary()
    mine.chmod(0o777)
    other = caches.private_temporary()
    assert other.name == f"{mine.name}-1"
    other.rmdir()
    other.symlink_to(tmp_path)
    assert caches.private_temporary().name == f"{mine.name}-2"


@need_nobody
def test_a_user_without_home_or_name_gets_no_folder_of_a_strange_name(tmp_path: Path) -> None:
    script = "from swarmsgd.tasks.lookup import cache_folder; print(cache_folder())"
    done = subprocess.run(
        [*nobody(), "env", f"TMPDIR={tmp_path}/tmp", sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"{tmp_path}/tmp/swarmsgd-{NOBODY}", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
