"""One run, one folder: no two live runs ever write into the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError
from swarmsgd.observe import folder as folders
from swarmsgd.observe.folder import OWNER, RunFolder


def test_runs_that_begin_in_one_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders.time, "strftime", lambda _form: "digits-noon")
    planned = [RunFolder(None, "digits") for _ in range(3)]
    with (
        planned[0].owned("{}") as first,
        planned[1].owned("{}") as second,
        planned[2].owned("{}") as third,
    ):
        assert [str(p) for p in (first, second, third)] == [
            "runs/digits-noon",
            "runs/digits-noon-2",
            "runs/digits-noon-3",
        ]
    with RunFolder(None, "digits").owned("{}") as fourth:  # though nobody owns the others now
        assert fourth.name == "digits-noon-4"


SAME_CLOCK = """
import sys, time
time.strftime = lambda *_: "noon"
from swarmsgd.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_commands_that_begin_in_one_second_do_not_mix_their_results(tmp_path: Path) -> None:
    words = ["simulate", "synthetic", "--nodes", "2", "--epochs", "0.1"]
    words += ["--samples-per-node", "100", "--lr"]
    rates = ("0.01", "0.02", "0.03")
    commands = [[sys.executable, "-c", SAME_CLOCK, *words, rate] for rate in rates]
    processes = [subprocess.Popen(c, cwd=tmp_path, stdout=subprocess.DEVNULL) for c in commands]
    assert [process.wait() for process in processes] == [0, 0, 0]
    found = []
    for path in sorted((tmp_path / "runs").iterdir()):
        config, summary = (
            json.loads((path / f"{name}.json").read_text()) for name in ("config", "summary")
        )
        assert config["optimizer"]["lr"] == summary["lr"]
        found.append(str(summary["lr"]))
    assert sorted(found) == list(rates)


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path, "run").owned("{}"):
        busy = rf"which another run is writing to \(process {os.getpid()} on .*wait until"
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=busy):
                RunFolder(tmp_path, "run", overwrite=overwrite)
    with RunFolder(tmp_path, "run", overwrite=True).owned("{}"):
        assert (tmp_path / OWNER).exists()
    assert not (tmp_path / OWNER).exists()


def test_who_comes_second_to_a_new_folder_is_refused(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path / "run", "run") for _ in range(2))
    with (
        first.owned("1"),
        pytest.raises(ConfigError, match="another run is writing to"),
        second.owned("2"),
    ):
        pass
    assert (tmp_path / "run" / "config.json").read_text() == "1\n"
    with pytest.raises(ConfigError, match="is not empty"), second.owned("2"):
        pass


def test_where_files_cannot_be_locked_runs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "fcntl", None)
    with RunFolder(tmp_path, "run").owned("{}") as path:
        assert (path / "config.json").exists()


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A simulation that goes on for ever and writes to `out`."""
    words = "simulate synthetic --epochs 1e6 --samples-per-node 1000 --evals 1000000 --out out"
    command = [sys.executable, "-m", "swarmsgd", *words.split()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline()  # its folder is there
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_no_command_writes_to_the_folder_of_a_live_run(
    endless: subprocess.Popen[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["synthetic", "--nodes", "2", "--epochs", "0.1", "--samples-per-node", "100"]
    for words in (["train", "synthetic"], ["simulate", *quick], ["compare", "digits"]):
        assert main([*words, "--out", "out", "--overwrite"]) == 2
        text = capsys.readouterr().err
        assert text.startswith("swarmsgd: error: --out is out, which another run is writing to (")
        assert f"process {endless.pid} on " in text
        assert text.count("\n") == 1
    assert json.loads((tmp_path / "out" / "config.json").read_text())["epochs"] == 1e6
    endless.send_signal(signal.SIGKILL)
    endless.wait()
    assert main(["simulate", *quick, "--out", "out", "--overwrite"]) == 0
