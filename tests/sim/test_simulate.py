"""`swarmsgd simulate`: what it prints, writes and refuses."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from swarmsgd.cli import main
from swarmsgd.observe.records import read_records
from swarmsgd.observe.schema import wrong
from swarmsgd.observe.summary import FIGURES
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import SyntheticOptions

SMALL = ("--dimension", "8", "--samples-per-node", "40", "--epochs", "1", "--evals", "4")


def simulate(folder: Path, *options: str, task: str = "synthetic") -> int:
    small = SMALL if task == "synthetic" else ()
    return main(["simulate", task, *small, "--out", str(folder), *options])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_run_prints_its_curve_and_leaves_its_files(tmp_path: Path, capsys: Any):
    assert simulate(tmp_path / "a", "--nodes", "3") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err == ""
    assert lines[0].startswith("synthetic, 3 nodes, swarm, complete, H 4, non-blocking, 8 bits")
    assert lines[1].split()[:3] == ["epoch", "virtual", "s"]
    assert [line.split()[0] for line in lines[2:7]] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert lines[7].startswith("mean model excess loss ")
    assert lines[-1] == f"written to {tmp_path / 'a'}; report.html there has the plots"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "config.json", "curve.jsonl", "model.safetensors",
        "node-0.jsonl", "node-1.jsonl", "node-2.jsonl", "report.html", "summary.json",
    ]  # fmt: skip
    assert list(load_file(tmp_path / "a" / "model.safetensors")) == ["x"]


def test_json_is_alone_on_stdout_and_quiet_says_nothing_of_how_it_goes(tmp_path: Path, capsys: Any):
    assert simulate(tmp_path / "a", "--nodes", "3", "--json", "--quiet") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == summary_of(tmp_path / "a")
    assert said.err == f"written to {tmp_path}/a; report.html there has the plots\n"


def test_a_config_comes_back_from_its_file_as_it_was():
    world = World(stragglers=("3:4@1-2",), events=("kill:1@2",), bandwidth_mbit_s=math.inf)
    made = SimConfig.of(task=SyntheticOptions(), nodes=5, bits=None, world=world, out=Path("a"))
    text = made.to_json()
    assert SimConfig.from_json(text) == made
    assert "Infinity" not in text  # that is no JSON


def test_an_unlimited_link_is_written_as_json_can(tmp_path: Path):
    assert simulate(tmp_path / "a", "--bandwidth-mbit-s", "inf") == 0
    for name in ("config.json", "summary.json"):
        json.loads((tmp_path / "a" / name).read_text(), parse_constant=pytest.fail)
    assert summary_of(tmp_path / "a")["world"]["bandwidth_mbit_s"] == "inf"


@pytest.mark.parametrize("algorithm", ["swarm", "allreduce", "ad-psgd", "sgd"])
def test_every_line_of_the_records_and_every_figure_is_documented(algorithm: str, tmp_path: Path):
    world = ("--events", "kill:1@0.1", "join:1@0.2") if algorithm == "swarm" else ()
    assert simulate(tmp_path / "a", "--algorithm", algorithm, *world) == 0
    lines = 0
    for path in (tmp_path / "a").glob("*.jsonl"):
        for record in read_records(path):
            lines += 1
            assert wrong(record) == [], record
    assert lines >= 5
    summary = summary_of(tmp_path / "a")
    assert list(summary) == list(FIGURES)
    assert all(summary[name] is None for name, f in FIGURES.items() if f.runs == "real")


def test_the_config_in_the_folder_names_all_that_was_asked_for(tmp_path: Path):
    assert simulate(tmp_path / "a", "--stragglers", "1:2", "--bits", "none") == 0
    written = json.loads((tmp_path / "a" / "config.json").read_text())
    assert written["world"]["stragglers"] == ["1:2"]
    assert written["swarm"]["bits"] is None and written["task"]["name"] == "synthetic"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--stragglers", "9:2"), "stragglers speaks of node 9, but the run has nodes 0 to 3"),
        (("--stragglers", "x"), "stragglers: cannot read 'x', wanted NODES:FACTOR"),
        (("--events", "kill:0-3@1"), "events: no node is left from second 1 on"),
        (("--events", "cut:0@0-1e400"), "'cut:0@0-1e400' has no finite end"),
        (("--local-steps", "\u00b2"), "local_steps is '\u00b2', wanted a whole number"),
        (("--latency-ms", "-1"), "latency_ms is -1.0, wanted a number of at least 0"),
        (("--algorithm", "swam"), "wanted one of swarm, sgd, allreduce"),
        (("--budget", "all"), "budget is 'all', wanted one of each, together"),
        (("--evals", "0"), "evals is 0, wanted a whole number of at least 1"),
        (("--score-nodes", "-1"), "score_nodes is -1, wanted a whole number of at least 0"),
        (("--exchanges-per-node", "0"), "exchanges_per_node is 0.0, wanted a number above 0"),
        (("--graph", "rinf"), "did you mean "),
        (("--nodes", "0"), "nodes is 0, wanted a whole number of at least 1"),
        (("--mode", "bloking"), 'did you mean "blocking"?'),
    ],
)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing_behind(
    options: tuple[str, ...], told: str, tmp_path: Path, capsys: Any
):
    assert simulate(tmp_path / "a", *options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("swarmsgd: error: ") and said.err.count("\n") == 1
    assert told in said.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_the_data_leaves_nothing_behind_either(tmp_path: Path, capsys: Any):
    options = ("--dataset", "digits", "--model", "mlp", "--nodes", "2000")
    assert simulate(tmp_path / "a", *options, task="vision") != 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone_unless_told_otherwise(tmp_path: Path, capsys: Any):
    assert simulate(tmp_path, "--nodes", "3") == 0
    (tmp_path / "notes.txt").write_text("mine")
    before = (tmp_path / "summary.json").read_bytes()
    assert simulate(tmp_path, "--nodes", "2") == 2
    assert "which is not empty" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_bytes() == before
    assert simulate(tmp_path, "--nodes", "2", "--overwrite") == 0
    assert summary_of(tmp_path)["nodes"] == 2
    assert not (tmp_path / "node-2.jsonl").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_above_256_nodes_only_the_curve_is_recorded(tmp_path: Path):
    options = ("--nodes", "257", "--graph", "ring", "--exchanges-per-node", "1", "--evals", "1")
    assert simulate(tmp_path / "a", *options) == 0
    assert not list((tmp_path / "a").glob("node-*.jsonl"))
    assert len(list(read_records(tmp_path / "a" / "curve.jsonl", "curve"))) == 2


def test_a_run_without_scores_of_single_nodes_says_nothing_of_them(tmp_path: Path, capsys: Any):
    assert simulate(tmp_path / "a", "--score-nodes", "0") == 0
    assert "single nodes" not in capsys.readouterr().out
    assert summary_of(tmp_path / "a")["worst_node_score"] is None


@pytest.mark.parametrize("mode", ["blocking", "matching"])
def test_nobody_waits_beyond_the_end_of_the_run(mode: str, tmp_path: Path):
    uneven = ("--stragglers", "3:4@0.1-0.4", "1:2", "--slow-links", "4:3@0.1-0.3")
    slow = ("--bandwidth-mbit-s", "0.1", "--latency-ms", "1", "--events", "cut:0@0.2-100")
    assert (
        simulate(tmp_path / "a", *uneven, *slow, "--nodes", "6", "--mode", mode,
                 "--budget", "together", "--step-jitter", "0.2") == 0
    )  # fmt: skip
    summary = summary_of(tmp_path / "a")
    ends = [record for path in (tmp_path / "a").glob("*.jsonl") for record in read_records(path)]
    assert ends and 0 < summary["blocked_s"] <= summary["wall_s"]
    assert summary["blocked_s"] + summary["compute_s"] <= 1.001 * summary["wall_s"]


def test_a_node_that_joined_has_made_the_steps_that_it_made(tmp_path: Path):
    assert simulate(tmp_path / "a", "--nodes", "3", "--events", "join:2@0.205") == 0
    summary = summary_of(tmp_path / "a")
    fewest, most = summary["steps_of_nodes"]
    assert (fewest, most) == (20, 40)
    assert summary["samples"] == 100


def test_a_lock_step_run_whose_nodes_all_die_at_once_is_scored_as_it_was(tmp_path: Path):
    events = ("--events", "kill:0@0.1", "join:0@0.1", "kill:1@0.1")
    assert simulate(tmp_path / "a", "--nodes", "2", "--algorithm", "allreduce", *events) == 0
    text = (tmp_path / "a" / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)
    assert summary["mean_of"] == [0, 1] and "killed" in summary["stopped"]


def test_what_comes_after_the_end_is_noted(tmp_path: Path, capsys: Any):
    late = ("--events", "kill:1@99", "--slow-links", "0:2@50-60", "--stragglers", "0:2@0-1")
    assert simulate(tmp_path / "a", *late) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith("note: kill:1@99 begins after the end of the run at 0.80 s")
    assert notes[1].startswith("note: 0:2@50-60 begins after")


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [("allreduce", "node 0 was killed and all others wait for ever"), ("sgd", "node 0 was killed")],
)
def test_a_run_that_a_death_ends_says_so(algorithm: str, why: str, tmp_path: Path, capsys: Any):
    options = ("--algorithm", algorithm, "--events", "kill:0@0.1")
    assert simulate(tmp_path / "a", *options) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and notes[0].startswith("note: ended at 0.10 s, after ")
    assert why in notes[0] and why in summary_of(tmp_path / "a")["stopped"]
    assert simulate(tmp_path / "b", "--events", "kill:0@0.1") == 0
    assert summary_of(tmp_path / "b")["stopped"] is None


@pytest.mark.parametrize("algorithm", ["swarm", "allreduce", "ad-psgd"])
def test_a_run_that_diverges_says_so_and_keeps_its_curve(
    algorithm: str, tmp_path: Path, capsys: Any
):
    options = ("--lr", "1000", "--algorithm", algorithm)
    assert simulate(tmp_path / "a", *options) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "training diverged. Try a" in said.err
    assert next(iter(read_records(tmp_path / "a" / "curve.jsonl", "curve")))["samples"] == 0
    assert not (tmp_path / "a" / "summary.json").exists()


def test_the_example_of_the_help_runs(tmp_path: Path):
    options = ("--nodes", "8", "--stragglers", "3:4@0.1-0.2", "--events", "kill:5@0.15")
    assert simulate(tmp_path / "a", *options, "cut:0-1@0.2-0.3") == 0
    assert summary_of(tmp_path / "a")["mean_of"] == [0, 1, 2, 3, 4, 6, 7]


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path):
    folder = tmp_path / "a"
    command = [sys.executable, "-m", "swarmsgd", "simulate", "synthetic", "--epochs", "1e6"]
    command += ["--samples-per-node", "1000", "--evals", "1000000", "--out", str(folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        for _ in range(6):  # the title, the headings, points of the curve
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err == "swarmsgd: interrupted: what was recorded is kept\n"
    assert "written to" in out
    summary = summary_of(folder)
    assert summary["interrupted"] == "SIGINT"
    points = list(read_records(folder / "curve.jsonl", "curve"))
    assert len(points) >= 4 and points[-1]["samples"] == summary["samples"]
    assert (folder / "report.html").exists() and (folder / "model.safetensors").exists()
