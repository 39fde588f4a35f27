"""`swarmsgd train`: its settings, its folder, and whole runs with real processes on the digits."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from swarmsgd.errors import ConfigError
from swarmsgd.observe.folder import check_folder, make_folder
from swarmsgd.observe.records import Recorder, Tail, read_records
from swarmsgd.observe.schema import wrong
from swarmsgd.observe.summary import FIGURES
from swarmsgd.observe.view import RunView, record_path
from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.tasks import SyntheticOptions, VisionOptions, VisionTask, estimate_batch_norm
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.run import STILL_S, Silences, run_training
from swarmsgd.train.command.summary import summarise_real
from swarmsgd.train.launch.processes import NodeEnd, Outcome
from swarmsgd.train.meet.tracker import Tracker
from swarmsgd.transport.keys import SwarmKey, make_key, read_key

DIGITS = VisionOptions(dataset="digits", model="mlp")


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.of(**{"task": DIGITS, "nodes": 2, "epochs": 5.0} | settings)


# Settings


@pytest.mark.parametrize(
    "made",
    [
        config(),
        config(
            task=VisionOptions(dataset="digits", partition="dirichlet:0.5", data=Path("/d")),
            nodes=8,
            graph="random-regular:3",
            local_steps="geometric:4",
            mode="matching",
            seed=7,
            out=Path("runs/a"),
        ),
        config(task=SyntheticOptions(dimension=8), algorithm="allreduce"),
    ],
    ids=["plain", "full", "synthetic"],
)
def test_a_config_comes_back_from_its_file_as_it_was(made: TrainConfig) -> None:
    assert TrainConfig.from_json(made.to_json()) == made


def test_the_task_gets_the_seed_of_the_run() -> None:
    assert config(seed=9).task.seed == 9


def test_an_epoch_is_a_pass_over_the_data_by_all_nodes_together() -> None:
    assert config(nodes=4, epochs=4).total_steps(60_000, 32) == 1875
    assert config(nodes=1, epochs=1).total_steps(60_000, 32) == 1875
    assert config(epochs=0.001).total_steps(64, 32) == 1


def test_the_schedule_scales_the_learning_rate() -> None:
    cosine = config(optimizer="sgd", lr=0.4, schedule="cosine")
    assert [round(cosine.optimizer.rate(done), 6) for done in (0, 0.5, 1)] == [0.4, 0.2, 0.0]
    held = config(optimizer="sgd", lr=0.4, schedule="constant")
    assert held.optimizer.rate(0.9) == 0.4


# The folder


def test_a_folder_with_something_in_it_needs_overwrite(tmp_path: Path) -> None:
    make_folder(tmp_path, config().to_json())
    with pytest.raises(ConfigError, match=r"is not empty \(config\.json\).* or --overwrite"):
        check_folder(tmp_path, overwrite=False)
    check_folder(tmp_path, overwrite=True)


def test_overwrite_replaces_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    for name in ("node-0.jsonl", "node-11.jsonl", "summary.json", "model.safetensors", "notes.md"):
        (tmp_path / name).write_text("old")
    make_folder(tmp_path, config(nodes=3).to_json())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.md"]
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()).nodes == 3


def test_a_check_of_the_folder_creates_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b", overwrite=False)
    assert list(tmp_path.iterdir()) == []


# The summary


def test_a_summary_of_nothing_has_every_field(tmp_path: Path) -> None:
    dead = NodeEnd(1, -signal.SIGKILL, 1.0, ("Traceback", "ValueError: no"))
    made = config()
    outcome = Outcome((NodeEnd(0, 0, 1.0, ()), dead), None)
    summary = summarise_real(made, made.make_task(), RunView(tmp_path, 2), outcome)
    assert list(summary) == list(FIGURES)
    assert summary["failed_nodes"] == [1]
    assert summary["nodes_detail"][1]["how"] == "SIGKILL"
    assert summary["nodes_detail"][1]["last_words"] == "ValueError: no"
    assert summary["mean_accuracy"] is None
    json.dumps(summary, allow_nan=False)


# Batch norm


class Normed(nn.Module):
    """The mean over a batch of its images, through batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, momentum=0.3)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(images).flatten(1))


def test_batch_norm_is_estimated_over_all_nodes_data() -> None:
    task = VisionTask(VisionOptions(dataset="digits", partition="dirichlet:0.1"), 4)
    model = Normed()
    model.norm.running_mean = torch.tensor([5.0])
    weights = [p.clone() for p in model.parameters()]
    estimate_batch_norm(model, task, batches=8)
    means = []
    for node in range(4):
        batches = task.batches(node)
        means += [task.images.normalised(next(batches)[0]).mean() for _ in range(2)]
    assert model.norm.running_mean is not None
    torch.testing.assert_close(model.norm.running_mean[0], torch.stack(means).mean())
    assert model.norm.momentum == 0.3
    for before, after in zip(weights, model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_model_without_batch_norm_is_left_alone() -> None:
    task = VisionTask(DIGITS, 1)
    model = task.make_model(0).eval()
    estimate_batch_norm(model, task)
    assert not model.training


# Whole runs


def finished(folder: Path) -> dict[str, Any]:
    """The summary of a run, after a look at everything that it wrote."""
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == list(FIGURES)
    for node in range(summary["nodes"]):
        for record in read_records(record_path(folder, node)):
            assert wrong(record) == [], record
    return summary


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["swarm", "allreduce"])
def test_a_run_trains_and_leaves_all_its_figures(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, keys = None, list[SwarmKey | None]()
    if algorithm == "swarm":
        monkeypatch.setenv("SWARMSGD_KEY", "")  # what the run sets is undone with this
        make_key(key := tmp_path / "swarm.key")
        begin = Tracker.__init__
        monkeypatch.setattr(
            Tracker, "__init__", lambda *at, key: (keys.append(key), begin(*at, key=key))[1]
        )
    out = io.StringIO()
    wanted = config(algorithm=algorithm, epochs=20.0, out=tmp_path / "run", key=key)
    assert run_training(wanted, file=out) == 0
    # who does not hold the key of the place where all meet would not have got in
    assert keys == ([] if key is None else [read_key(key)])
    summary = finished(tmp_path / "run")
    nulls = {name for name, value in summary.items() if value is None}
    not_set = {"interrupted", "score_about", "momentum", "nesterov"}
    not_real = {name for name, figure in FIGURES.items() if figure.runs == "simulated"}
    swarms = set(ALGORITHMS["swarm"].uses) - set(ALGORITHMS[algorithm].uses) - {"seed"}
    assert nulls == not_set | not_real | swarms
    assert summary["mean_accuracy"] > 0.9
    assert summary["worst_node_score"] <= summary["best_node_score"]
    assert summary["samples"] == 2 * 32 * wanted.total_steps(1436, 32)
    assert summary["mean_of"] == [0, 1]
    assert summary["failed_nodes"] == []
    assert summary["step_ms_p50"] <= summary["step_ms_p99"] <= summary["step_ms_max"]
    assert summary["bytes_sent"] > 0
    if algorithm == "swarm":
        assert summary["exchanges"] > 0
        assert summary["lost_exchanges"] == 0
        assert summary["blocked_s"] == 0
    else:
        assert summary["gamma"] == 0
        assert summary["blocked_s"] > 0
    assert "mean model" in out.getvalue()

    task = VisionTask(DIGITS, 2)
    model = task.make_model(1)
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    assert task.evaluate(model).accuracy == summary["mean_accuracy"]


@pytest.mark.slow
def test_a_task_without_accuracy_runs_too_and_json_is_alone_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = SyntheticOptions(dimension=8, samples_per_node=200)
    how = {"json": True, "quiet": True, "out": tmp_path / "run"}
    assert run_training(config(task=task, nodes=1, epochs=1.0, lr=0.01, **how)) == 0
    summary, said = finished(tmp_path / "run"), capsys.readouterr()
    assert json.loads(said.out) == summary and "epoch" not in said.err
    assert summary["mean_accuracy"] is None
    assert summary["mean_loss"] is not None
    assert summary["dataset"] is None
    assert summary["scores"]["excess"] >= 0
    assert summary["nodes_detail"][0]["scores"]["excess"] >= 0


@pytest.mark.slow
def test_a_run_that_diverges_says_so_and_has_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    made = config(nodes=1, lr=1e20, schedule="constant", out=tmp_path / "run")
    assert run_training(made, file=out) == 1
    assert "there is no mean model: node 0 failed" in capsys.readouterr().err
    assert "training diverged. Try an lr below 1e+20" in out.getvalue()
    assert "Traceback" not in out.getvalue()
    assert finished(tmp_path / "run")["failed_nodes"] == [0]
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.slow
def test_nobody_waits_for_a_node_that_failed_before_it_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_folder_where_node_1_cannot_write(folder: Path, config: str, own: Any) -> None:
        make_folder(folder, config, own)
        record_path(folder, 1).mkdir()

    monkeypatch.setattr(
        "swarmsgd.observe.folder.make_folder", make_folder_where_node_1_cannot_write
    )
    out = io.StringIO()
    assert run_training(config(nodes=3, out=tmp_path / "run"), file=out) == 1
    text = out.getvalue()
    assert "swarmsgd: error: cannot write records to" in text
    assert "swarmsgd: the others cannot begin without it: ending them" in text
    assert text.count(" ended with ") == 1


class Started:
    """`swarmsgd train` as a process of its own, on the digits for far longer than a test lasts."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        command = ["train", "vision", "--dataset", "digits", "--model", "mlp", "--batch-size", "8"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarmsgd", *command, "--out", str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pids(self, nodes: int) -> list[int]:
        """The process ids of all nodes, once each of them has trained a step."""
        pids: dict[int, int] = {}
        tails = [Tail(record_path(self.folder, node)) for node in range(nodes)]
        training: set[int] = set()
        while len(training) < nodes:
            assert self.process.poll() is None, self.process.communicate()[0]
            for record in (record for tail in tails for record in tail.new()):
                if record["kind"] == "start":
                    pids[record["node"]] = record["pid"]
                if record["kind"] == "progress":
                    training.add(record["node"])
            time.sleep(0.02)
        return [pids[node] for node in range(nodes)]

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=600)
        return self.process.returncode, out


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    begun: list[Started] = []

    def begin(*words: str) -> Started:
        begun.append(Started(tmp_path / "run", *words))
        return begun[-1]

    yield begin
    for started in begun:
        if started.process.poll() is None:
            started.process.kill()  # its guard ends the nodes
        started.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_the_others_finish_when_a_node_is_killed(start: Any) -> None:
    started = start("--nodes", "3", "--epochs", "40", "--budget", "together")
    os.kill(started.pids(3)[1], signal.SIGKILL)
    code, out = started.end()
    assert code == 0, out
    assert "node 1 ended with SIGKILL" in out
    assert "warning: node 1 failed; the mean model is that of the others" in out
    summary = finished(started.folder)
    assert summary["failed_nodes"] == [1]
    assert summary["mean_of"] == [0, 2]
    assert summary["mean_accuracy"] > 0.9
    assert summary["nodes_detail"][1]["how"] == "SIGKILL"
    lines = (started.folder / "node-1.jsonl").read_text().splitlines()
    dead = max([json.loads(line).get("steps") or 0 for line in lines[:-1]], default=0)
    others = sum(summary["nodes_detail"][node]["steps"] for node in (0, 2))
    assert others + dead > 0.8 * 40 * 1436 / 8  # what the dead node did not do, the others did


def test_what_all_have_made_together_is_in_no_checkpoint() -> None:
    with pytest.raises(ConfigError, match="take budget each, or leave checkpoint_every out"):
        config(budget="together", checkpoint_every=10)


def test_a_node_that_makes_no_step_is_named_once_others_have_ended(tmp_path: Path) -> None:
    now = 0.0
    view, silences = RunView(tmp_path, 2), Silences(clock=lambda: now)
    with Recorder(record_path(tmp_path, 1), 1) as recorder:
        recorder.write("plan", total_steps=10, total_samples=80)
        recorder.write("progress", steps=3, samples=24)
    view.read()
    assert silences.look(view, {0, 1}) == []
    now = STILL_S + 1
    assert silences.look(view, {0, 1}) == []  # others train too: it may only be slow
    (line,) = silences.look(view, {1})
    assert line.startswith("node 1 has made no step for 21 s, and others have ended")
    assert silences.look(view, {1}) == []  # once is enough
    with Recorder(record_path(tmp_path, 1), 1) as recorder:
        recorder.write("progress", steps=4, samples=32)
    view.read()
    assert silences.look(view, {1}) == []
    now *= 2.1
    assert len(silences.look(view, {1})) == 1  # again, after it went on


@pytest.mark.slow
def test_all_reduce_ends_with_an_error_when_a_node_is_killed(start: Any) -> None:
    started = start("--nodes", "3", "--epochs", "1000", "--algorithm", "allreduce")
    os.kill(started.pids(3)[1], signal.SIGKILL)
    code, out = started.end()
    assert code == 1, out
    assert "swarmsgd: error: a node is gone, and all-reduce cannot go on without it" in out
    assert "there is no mean model: nodes 0, 1, 2 failed" in out
    assert "Traceback" not in out


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["swarm", "allreduce"])
def test_an_interruption_keeps_the_records_and_leaves_no_process(
    start: Any, algorithm: str
) -> None:
    started = start("--nodes", "2", "--epochs", "10000", "--algorithm", algorithm)
    pids = started.pids(2)
    started.process.send_signal(signal.SIGINT)
    code, out = started.end()
    assert code == 130, out
    assert "SIGINT: ended early; what was recorded is kept in" in out
    assert "Traceback" not in out
    assert not any(is_alive(pid) for pid in pids)
    summary = finished(started.folder)
    assert summary["interrupted"] == "SIGINT"
    assert summary["samples"] > 0
    assert summary["failed_nodes"] == []
    assert "terminated" in [r.get("what") for r in read_records(record_path(started.folder, 0))]


def test_every_option_of_the_config_can_be_compared_in_a_summary() -> None:
    options = TrainConfig.options("vision")
    names = {name for part in ("run", "swarm", "optimizer") for name in options[part]}
    about_the_command = {"out", "overwrite", "recipe", "resume", "dashboard", "log_to"}
    about_the_command |= {"address", "key", "quiet", "json", "dashboard_port"}
    assert names - {"checkpoint_every"} - about_the_command <= set(FIGURES)
