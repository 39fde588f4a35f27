"""What `launch` keeps of a script's run, and what a node of a script tells of itself."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
import torch

import swarmsgd
from swarmsgd.cli import main
from swarmsgd.observe.records import read_records
from swarmsgd.observe.run_page import page_of
from swarmsgd.train.launch.script_records import launch_kept

SCRIPT = """
import os, sys, time, urllib.request
from pathlib import Path
from swarmsgd.observe.records import Recorder

node, folder = int(os.environ["RANK"]), Path(os.environ["SWARMSGD_RECORDS"])
if node == 1:
    sys.exit("out of coffee")
with Recorder(folder / "node-0.jsonl", 0) as recorder:
    recorder.write("start", num_nodes=2)
if len(sys.argv) > 1:
    page = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/").read()
    Path(sys.argv[0]).with_name("page.html").write_bytes(page)
told, end = folder / "command.jsonl", time.monotonic() + 100
while not (told.exists() and "given up" in told.read_text()) and time.monotonic() < end:
    time.sleep(0.05)
"""


def test_launch_keeps_how_nodes_ended_and_shows_them_meanwhile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    out = tmp_path / "run"
    words = ["-n", "2", "--restart", "1", "--out", str(out), "--dashboard"]
    words += ["--dashboard-port", port]
    assert main(["launch", *words, str(tmp_path / "train.py"), port]) == 1
    told = capsys.readouterr().err
    assert f"live page: http://127.0.0.1:{port}/" in told and f"swarmsgd report {out}" in told
    assert "EventSource" in (tmp_path / "page.html").read_text()
    with socket.create_server(("127.0.0.1", int(port))):
        pass  # the page has ended with the run
    summary = json.loads((out / "summary.json").read_text())
    assert summary["failed_nodes"] == [1] and summary["task"] == str(tmp_path / "train.py")
    page = page_of([out])
    assert "Nodes that died: 1." in page and "out of coffee" in page
    assert "node 1 is started again in 1 s" in page and "node 1 failed 2 times: given up" in page


def test_a_taken_port_starts_nothing_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('started')")
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        page = ["--dashboard", "--dashboard-port", port]
        for words in (["launch", "-n", "1", *page, "--out", str(out), str(tmp_path / "train.py")],
                      ["train", "digits", *page, "--out", str(out)]):  # fmt: skip
            assert main(words) == 2
            err = capsys.readouterr().err
            assert f"port {port} of 127.0.0.1 is taken" in err and err.count("\n") == 1
        assert not out.exists()
        with pytest.raises(swarmsgd.errors.ConfigError, match="number of nodes"):
            launch_kept(
                [sys.executable, "x.py"], 0, out=out, overwrite=False, page=None, swarm=None
            )
    assert not any(out.iterdir())


def test_a_node_of_a_script_tells_how_far_it_is_and_how_long_steps_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMSGD_RECORDS", str(tmp_path))
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with swarmsgd.join(model, optimizer) as swarm:
        swarm.note_loss(3.0)
        swarm.note_loss(1.0)
        for _ in range(3):
            optimizer.step()
    records = {r["kind"]: r for r in read_records(tmp_path / "node-0.jsonl")}
    assert records["progress"]["steps"] == 1 and records["progress"]["loss"] == 2.0
    assert records["start"]["software"].startswith("swarmsgd ")
    end = records["end"]
    assert end["steps"] == 3 and 0 < end["step_s_p50"] <= end["step_s_p99"] <= end["step_s_max"]


def test_two_swarms_of_one_process_write_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMSGD_RECORDS", str(tmp_path))
    models = [torch.nn.Linear(2, 1), torch.nn.Linear(3, 1)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    with (
        swarmsgd.join(models[0], optimizers[0]),
        swarmsgd.join(models[1], optimizers[1]),
    ):
        for optimizer in optimizers:
            optimizer.step()
    dims = [
        next(r["dim"] for r in read_records(folder / "node-0.jsonl") if r["kind"] == "start")
        for folder in (tmp_path, tmp_path / "swarm-2")
    ]
    assert dims == [3, 4]
