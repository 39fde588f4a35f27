"""`swarmsgd train --resume`: a run that was interrupted goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from one_node import write
from safetensors import safe_open
from safetensors.torch import load_file

from swarmsgd.cli import main
from swarmsgd.observe.records import read_records
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.train.checkpoint.folder import Folder

SETTINGS = {
    "nodes": 2,
    "epochs": 7,
    "mode": "matching",
    "local_steps": 3,
    "bits": 8,
    "model": "mlp",
    "lr": 0.02,
}


def train(*options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "swarmsgd", "train", *map(str, options)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_step(folder: Path, step: int, run: subprocess.Popen[bytes]) -> None:
    while not any(entry.steps >= step for entry in Folder(folder / "checkpoints").entries()):
        assert run.poll() is None, "it ended before it was interrupted"
        time.sleep(0.02)  # between two looks at another process


def virtual_run() -> dict[str, torch.Tensor]:
    """The same run in virtual time, which ends with the same bits (tests/test_equivalence.py)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return simulate(SimConfig.of(task="digits", **SETTINGS)).state_dict()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    broken = tmp_path / "broken"
    flags = [w for name, v in SETTINGS.items() for w in (f"--{name.replace('_', '-')}", v)]
    run = train("digits", *flags, "--checkpoint-every", 10, "--out", broken)
    wait_for_step(broken, 30, run)
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert not (broken / "model.safetensors").exists()
    assert main(["export", str(broken), "--out", str(tmp_path / "early.safetensors")]) == 0
    with safe_open(tmp_path / "early.safetensors", "pt") as file:
        assert file.metadata()["task"] == "digits/mlp" and file.metadata()["nodes"] == "2"
        assert int(file.metadata()["steps"]) >= 20
    assert main(["train", "--resume", str(broken)]) == 0
    resumed, unbroken = load_file(broken / "model.safetensors"), virtual_run()
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in resumed)
    starts = [r for r in read_records(broken / "node-0.jsonl") if r["kind"] == "start"]
    assert len(starts) == 2
    assert main(["train", "--resume", str(broken)]) == 2
    assert "whose run has ended" in capsys.readouterr().err


def test_what_cannot_be_resumed_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    saved, there = str(tmp_path / "saved"), str(tmp_path / "bare")
    write(saved, 0, 1)
    for arguments, expected in (
        (["train", "--resume", str(tmp_path)], "where no run was begun"),
        (["train", "--resume", str(tmp_path / "bare")], "has no checkpoints: begin the run with"),
        (["train", "--resume", str(tmp_path), "--lr", "1"], "takes a run's folder and nothing"),
        (["train", "digits", "--checkpoint-every", "5", "--algorithm", "allreduce"], "swarm does"),
        (["train", "digits", "--checkpoint-every", "-5"], "wanted a whole number of at least 0"),
        (["export", str(tmp_path / "no"), "--out", there], "no has no checkpoints: name the"),
        (["export", saved, "--out", there], "is there already"),
        (["export", saved, "--out", "/nowhere/m"], "there is no folder /nowhere"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert expected in error and len(error.splitlines()) == 1, error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "saved"]
