"""`swarmsgd compare`: recipes, their mistakes, and whole comparisons."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.comparison.compare import TABLE_COLUMNS, markdown
from swarmsgd.sim.comparison.recipe import folder_of, parse_recipe, read_comparison, recipe_names

RECIPE = """
title = "Small"
seeds = [0, 1]
rates = [0.001, 0.1, 1000]
[all]
task = "synthetic"
dimension = 8
samples_per_node = 20
epochs = 1
nodes = 3
evals = 2
[variants."swarm, 8 bits"]
stragglers = ["1:2"]
[variants.all-reduce]
algorithm = "allreduce"
[variants.given]
algorithm = "d-psgd"
lr = 0.05
[variants.hopeless]
lr = 1e6
"""


def made(**changes: Any) -> dict[str, Any]:
    recipe = {"rates": [0.1], "all": {"task": "synthetic"}, "variants": {"a": {}}}
    return recipe | changes


def variant(**options: Any) -> dict[str, Any]:
    return made(variants={"a": options})


def test_a_recipe_is_read_as_it_is_written():
    comparison = parse_recipe(
        variant(bits="none", stragglers=["1:2"], epochs=2, bandwidth_mbit_s=10, local_steps="3")
    )
    config = comparison.config("a", 7, 0.5)
    assert (config.swarm.bits, config.epochs, config.swarm.local_steps) == (None, 2.0, "3")
    assert (config.seed, config.optimizer.lr, config.task.seed) == (7, 0.5, 7)
    assert config.world.stragglers == ("1:2",) and config.world.bandwidth_mbit_s == 10.0
    assert comparison.is_tuned("a") and not parse_recipe(variant(lr=1)).is_tuned("a")


def test_options_of_a_variant_come_before_those_of_all():
    recipe = made(all={"task": "synthetic", "nodes": 3}, variants={"a": {"nodes": 5}, "b": {}})
    assert [parse_recipe(recipe).config(label, 0, 0.1).nodes for label in "ab"] == [5, 3]


def test_a_path_of_data_may_be_given():
    recipe = variant(task="vision", dataset="digits", data="somewhere")
    assert parse_recipe(recipe).config("a", 0, 0.1).task.data == Path("somewhere")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_that_come_with_the_package_can_be_read(name: str):
    assert read_comparison(name).variants


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (made(seed=[1]), "there is no key 'seed'; did you mean"),
        (made(sedes=[1]), 'did you mean "seeds"?'),
        (made(seeds=[]), "seeds is empty: give one at least"),
        (made(seeds=["0"]), "seeds is ['0'], wanted numbers"),
        (made(seeds=[0.5]), "seeds is [0.5], wanted numbers"),
        (made(seeds=[1, 1]), "seeds is [1, 1]: give each number once"),
        (made(seeds=[-1]), "variant 'a': seed is -1, wanted a whole number from 0"),
        (made(seeds=[0, -1]), "variant 'a': seed is -1, wanted a whole number from 0"),
        (made(tuning_seed=-5), "variant 'a': seed is -5, wanted a whole number from 0"),
        (made(seeds=[1000]), "tuning_seed 1000 is one of seeds: take another"),
        (made(rates=[]), "variant 'a': it has no lr, and the recipe no rates to choose from"),
        (made(rates=[0.1, 0.1]), "rates is [0.1, 0.1]: give each number once"),
        (made(rates=[True]), "rates is [True], wanted numbers"),
        (made(rates=[-0.1]), "variant 'a': lr is -0.1, wanted a number above 0"),
        (made(variants={}), "the recipe has no [variants.NAME]: give one at least"),
        (made(variants={"a": 3}), "variants.a is 3, wanted a table: [variants.a]"),
        (made(all=3), "all is 3, wanted a table: [all]"),
        (made(all={}), "variant 'a' has no task: give one of vision, translation, "),
        (made(all={"task": "vison"}), 'did you mean "vision"?'),
        (made(all={"task": ["vision"]}), "variant 'a': task is ['vision'], wanted one of"),
        (made(all={"task": 3}), "variant 'a': task is 3, wanted one of vision"),
        (variant(nods=3), "variant 'a': there is no option 'nods'; did you mean \"nodes\"?"),
        (variant(latency=3), "did you mean \"latency_ms\"?"),
        (variant(algorithm="swam"), "variant 'a': algorithm is 'swam', wanted one of swarm"),
        (variant(lr="0.1"), "variant 'a': lr is '0.1', wanted a number"),
        (variant(nodes="3"), "variant 'a': nodes is '3', wanted a whole number"),
        (variant(nodes=True), "variant 'a': nodes is True, wanted a whole number"),
        (variant(step_time_ms="5"), "variant 'a': step_time_ms is '5', wanted a number"),
        (variant(stragglers="1:2"), "stragglers is '1:2', wanted a list of texts"),
        (variant(stragglers=[1]), "stragglers is [1], wanted a list of texts"),
        (variant(stragglers=["9:2"]), "variant 'a': stragglers speaks of node 9"),
        (variant(graph=4), "variant 'a': graph is 4, wanted a text in quotes"),
        (variant(local_steps=2.5), "local_steps is 2.5, wanted a whole number or a text in quotes"),
        (variant(bits="8"), "bits is '8', wanted a whole number or \"none\""),
        (variant(seed=3), "variant 'a': there is no option 'seed'"),
        (made(variants={"a b": {}, "a-b": {}}), "would share the folder a-b"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_recipe_is_named_with_the_next_move(recipe: dict[str, Any], told: str):
    with pytest.raises(ConfigError) as raised:
        parse_recipe(recipe)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"title = ", "is not TOML: "),
        (b"\xff\xfe", "cannot read "),
        (b"titel = 3", "there is no key 'titel'"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_one_line_and_nothing_is_made(
    text: bytes, told: str, tmp_path: Path, capsys: Any
):
    (tmp_path / "a.toml").write_bytes(text)
    assert main(["compare", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and told in err and str(tmp_path / "a.toml") in err
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_recipe_is_told_with_one_that_is(tmp_path: Path, capsys: Any):
    assert main(["compare", "digit", "--out", str(tmp_path / "out")]) == 2
    assert 'did you mean "digits"?' in capsys.readouterr().err
    assert main(["compare", "digits", "--jobs", "0", "--out", str(tmp_path / "out")]) == 2
    assert "jobs is 0, wanted a whole number of at least 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_do_not_suffice_for_one_variant_are_told_before_anything_runs(
    tmp_path: Path, capsys: Any
):
    (tmp_path / "a.toml").write_text(
        '[all]\ntask = "vision"\ndataset = "digits"\nmodel = "mlp"\nlr = 0.1\n'
        "[variants.few]\n[variants.many]\nnodes = 5000\n"
    )
    assert main(["compare", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out")]) != 0
    assert "variant 'many': " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_label_makes_a_folder_inside_the_comparisons():
    assert folder_of("swarm, 8 bits") == "swarm-8-bits"
    assert folder_of("..") == "variant"
    assert folder_of("../x") == "-x"


FIGURES_OF_A_RUN = {field: 0.5 for field, _, _ in TABLE_COLUMNS.values()} | {
    "mean_accuracy": 0.5, "mean_loss": 0.5, "mean_score": 0.5,
    "score": "accuracy", "scores": {}, "stopped": None,
}  # fmt: skip


def test_runs_are_compared_by_what_their_task_is_judged_by():
    figures = FIGURES_OF_A_RUN | {
        "mean_accuracy": None, "mean_score": 28.0, "score": "bleu", "scores": {"bleu": 28.0},
    }  # fmt: skip
    better = figures | {"mean_score": 30.0, "scores": {"bleu": 30.0}}
    head, _, row = markdown({"a": 0.1}, {"a": {0: figures, 1: better}}).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:5]] == ["variant", "rate", "BLEU", "loss"]
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[3] == "29.00" and cells[-2] == "28.00 30.00"


def test_a_variant_of_which_a_seed_diverged_has_no_means():
    figures = FIGURES_OF_A_RUN
    table = markdown({"a": 0.1, "b": 0.1}, {"a": {0: figures, 1: None}, "b": {0: figures}})
    broken, whole = table.splitlines()[2:]
    *means, accuracies = (cell.strip() for cell in broken.split("|")[3:-1])
    assert set(means) == {"-"} and accuracies == "50.00% diverged"
    assert whole.split("|")[3].strip() == "50.00%"


def test_a_variant_that_ended_early_is_marked_and_explained():
    figures = FIGURES_OF_A_RUN
    early = figures | {"stopped": "node 1 was killed", "epochs": 0.9}
    lines = markdown({"a": 0.1, "b": 0.1}, {"a": {0: early}, "b": {0: figures}}).splitlines()
    assert "50.00%*" in lines[2] and "*" not in lines[3]
    assert lines[5] == "\\* a ended at 0.50 s, after 0.90 passes: node 1 was killed"


@pytest.mark.slow
def test_a_comparison_tunes_each_variant_and_reports_all(tmp_path: Path, capsys: Any):
    (tmp_path / "small.toml").write_text(RECIPE)
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "small.toml"), "--out", str(out), "--jobs", "2"]) == 1
    said = capsys.readouterr()
    tuning = json.loads((out / "tuning.json").read_text())
    assert set(tuning) == {"swarm, 8 bits", "all-reduce"}
    chosen = json.loads((out / "chosen.json").read_text())
    for label, losses in tuning.items():
        assert losses["1000"] is None if "1000" in losses else losses["1000.0"] is None
        finite = {float(rate): loss for rate, loss in losses.items() if loss is not None}
        assert chosen["rates"][label] == min(finite, key=lambda rate: finite[rate]) == 0.1
    assert chosen["rates"]["given"] == 0.05
    assert set(chosen["runs"]) == {"swarm, 8 bits", "all-reduce", "given"}
    assert "no run of hopeless came to an end" in said.err
    assert "training diverged" in said.out
    table = (out / "table.md").read_text()
    assert table in said.out and table.count("\n") == 5
    for folder in ("swarm-8-bits", "all-reduce", "given"):
        for seed in (0, 1):
            assert (out / folder / f"seed-{seed}" / "summary.json").exists()
    assert "Small" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("label", read_comparison("digits").variants)
def test_each_variant_of_the_digits_learns(label: str):
    """With its rates tuned it is `swarmsgd compare digits`."""
    config = replace(read_comparison("digits").config(label, 0, 0.2), evals=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert simulate(config).summary["mean_accuracy"] > 0.95
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def comparing(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A comparison of which a run has ended and another goes on for ever; it writes to `out`."""
    recipe = RECIPE.replace("[variants.hopeless]\nlr = 1e6", "[variants.long]\nlr=0.1\nepochs=1e6")
    (tmp_path / "a.toml").write_text(recipe)
    command = [sys.executable, "-m", "swarmsgd", "compare", "a.toml", "--out", "out", "--jobs", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while "given, seed 1" not in (line := process.stdout.readline()):
            assert line, process.stderr
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_process_of_the_pool_that_is_killed_is_told_in_one_line(
    comparing: subprocess.Popen[str], tmp_path: Path
):
    pid = comparing.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    workers = [c for c in children if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
    os.kill(int(workers[0]), signal.SIGKILL)
    _, err = comparing.communicate(timeout=600)
    assert comparing.returncode == 1, err
    assert err.startswith("swarmsgd: error: a process that ran one of the runs was killed")
    assert err.count("\n") == 1
    assert (tmp_path / "out" / "given" / "seed-1" / "summary.json").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_the_runs_that_had_ended(comparing: subprocess.Popen[str], tmp_path: Path):
    comparing.send_signal(signal.SIGINT)
    _, err = comparing.communicate(timeout=600)
    assert comparing.returncode == 130, err
    assert err == "swarmsgd: interrupted: the runs that had ended are kept in out\n"
    assert (tmp_path / "out" / "given" / "seed-1" / "summary.json").exists()


@pytest.mark.slow
def test_the_workers_end_when_the_comparison_is_killed(comparing: subprocess.Popen[str]):
    comparing.kill()
    out, _ = comparing.communicate(timeout=600)  # its end: nobody has the pipe open any more
    assert "long, seed" not in out
    assert comparing.returncode == -signal.SIGKILL
