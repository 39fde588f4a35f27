"""Tasks of one's own: one file, trained for real and in virtual time, and what is said when it is
no task."""

import importlib.machinery
import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError
from swarmsgd.settings.run import RunConfig
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.tasks import find_task, make_task, name_of

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "own_task.py"
MOONS = f"{EXAMPLE}:Moons"


def test_it_is_simulated_with_its_options_its_defaults_and_its_score(tmp_path: Path, capsys: Any):
    out = tmp_path / "run"
    options = ["--nodes", "4", "--noise", "0.1", "--evals", "2", "--out", str(out)]
    assert main(["simulate", MOONS, *options]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["lr"] == 0.2 and summary["epochs"] == pytest.approx(8, abs=0.1)
    assert (summary["score"], summary["better"]) == ("worse_side", "higher")
    assert summary["mean_score"] == summary["scores"]["worse_side"] > 0.9
    assert summary["worst_node_score"] <= summary["best_node_score"]
    assert "mean model worse side 0.9" in capsys.readouterr().out
    assert "worse side of the mean model" in (out / "report.html").read_text()


@pytest.mark.slow
def test_it_is_trained_by_real_processes_and_compared_whatever_lies_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    for name in ("token.py", "queue.py", "types.py", "random.py"):
        (tmp_path / name).write_text("raise ImportError('not what was wanted')")
    task = "own_task.py:Moons"
    assert main(["train", task, "--nodes", "2", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["score"] == "worse_side" and summary["mean_score"] > 0.9
    recipe = tmp_path / "moons.toml"
    recipe.write_text(
        f'[all]\ntask = "{task}"\nnodes = 2\nepochs = 1\nlr = 0.05\n'
        '[variants.a]\nalgorithm = "swarm"\n[variants.b]\nalgorithm = "sgd"\n'
    )
    assert main(["compare", str(recipe), "--out", str(tmp_path / "c"), "--jobs", "2"]) == 0
    assert "worse side" in (tmp_path / "c" / "table.md").read_text().splitlines()[0]
    assert "not what was wanted" not in capfd.readouterr().err


def test_its_neighbours_are_found_before_what_is_installed_and_behind_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(EXAMPLE, tmp_path / "with_neighbours.py")
    find_task(f"{tmp_path}/with_neighbours.py:Moons")
    for name in ("colorsys.py", "rich.py"):
        (tmp_path / name).touch()
    found = [importlib.machinery.PathFinder.find_spec(name) for name in ("colorsys", "rich")]
    assert [spec and spec.origin == str(tmp_path / f"{spec.name}.py") for spec in found] == [
        False,
        True,
    ]


def test_its_help_lists_its_options_with_its_defaults(capsys: Any):
    with pytest.raises(SystemExit):
        main(["train", MOONS, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "--noise NUMBER Standard deviation of the points about their arc. (default: 0.15)" in said
    )
    assert "(default: 0.2)" in said and "--own" not in said


def test_it_is_found_from_every_folder_and_in_another_process(monkeypatch: Any, tmp_path: Path):
    monkeypatch.chdir(EXAMPLE.parent)
    name, preset = find_task("own_task.py:Moons")
    monkeypatch.chdir(tmp_path)
    assert name == MOONS and preset == {"own": MOONS}
    config = RunConfig.of(task=name, noise=0.3)
    assert name_of(config.task) == MOONS and config.task.name == "Moons"
    assert pickle.loads(pickle.dumps(config)) == RunConfig.from_json(config.to_json()) == config
    assert make_task(MOONS, num_nodes=2, noise=0.1).samples_per_epoch == 2000


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "nowhere.py:A", "there is no file .*nowhere.py: a task of one's own is FILE.py:CLASS"),
        (
            "class Moon: pass",
            "t.py:Moons",
            "has no class 'Moons', it has Moon; did you mean \"Moon\"",
        ),
        ("x = 1\ny = z", "t.py:A", "t.py, line 2 cannot be loaded: NameError: name 'z'"),
        ("x = = 1", "t.py:A", "t.py, line 1 cannot be loaded: SyntaxError"),
        ("class A:\n Options = dict", "t.py:A", "Options is <class 'dict'>, wanted .*OwnOptions"),
        ("", "no.such.module:A", "no.such.module.* cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_what_is_no_task_is_told_in_one_line(
    text: str, name: str, message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_task(name)
    assert main(["train", name]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_a_task_lacks_is_named(tmp_path: Path):
    (tmp_path / "t.py").write_text(
        "class A:\n batch_size = 1\n def __init__(self, options, num_nodes, notify): pass\n"
        " def loss(self, model, batch): pass\n"
    )
    config = SimConfig.of(task=f"{tmp_path / 't.py'}:A")
    lacking = "name, num_nodes, samples_per_epoch, make_model, batches, evaluate, train_score"
    with pytest.raises(ConfigError, match=f"has no {lacking}; docs/tasks.md says"):
        config.make_task()
