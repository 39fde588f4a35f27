"""The command line: help that is quick and complete, mistakes that are told in one line."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swarmsgd import graphs
from swarmsgd.cli import main
from swarmsgd.settings.algorithms import REAL_ALGORITHMS
from swarmsgd.settings.optimizer import SCHEDULES
from swarmsgd.settings.run import RunConfig
from swarmsgd.settings.swarm import MODES
from swarmsgd.tasks import DATASETS, MODELS, PARTITIONS, TASKS, VisionOptions
from swarmsgd.train.command.config import TrainConfig


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, without its start."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("swarmsgd: error: ")
    return err.removeprefix("swarmsgd: error: ").strip()


def exit_of(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    return raised.value.code


def test_help_and_version_need_no_torch() -> None:
    code = (
        "import sys; from swarmsgd.cli import main\n"
        "assert main(['--version']) == 0\n"
        "for words in (['--help'], ['launch', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'rich' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("swarmsgd 0.")
    assert "swarmsgd train vision" in done.stdout
    assert "at least one of them failed" in done.stdout


def test_without_a_command_the_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "swarmsgd COMMAND --help" in capsys.readouterr().err
    assert main(["trian"]) == 2
    assert told(capsys).endswith('did you mean "train"?')


def test_the_help_of_train_lists_every_option_and_every_choice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_of("train", "vision", "--help") == 0
    out = capsys.readouterr().out
    for part in TrainConfig.options("vision").values():
        for name, option in part.items():
            assert f"--{name.replace('_', '-')} " in out
            assert " ".join(option.help.split()[:3]) in " ".join(out.split())
    for table in (DATASETS, MODELS, PARTITIONS, REAL_ALGORITHMS, MODES, SCHEDULES, graphs.GRAPHS):
        for name in table:
            assert f"  {name}" in out
    assert "examples:" in out


def test_the_tasks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of("train", "--help") == 0
    out = capsys.readouterr().out
    for name, entry in TASKS.items():
        assert name in out
        assert entry.help in out
    assert main(["train", "visoin"]) == 2
    assert f"task is 'visoin', wanted one of {', '.join(TASKS)}" in told(capsys)


def test_options_reach_the_run_as_one_checked_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from swarmsgd.train.command import run

    seen: list[TrainConfig] = []
    monkeypatch.setattr(run, "run_training", lambda config: seen.append(config) or 0)
    words = "--nodes 3 --bits none --local-steps geometric:8 --seed 5 --partition dirichlet:0.3"
    words += " --rotation on"
    assert main(["train", "vision", *words.split(), "--out", "a", "--overwrite"]) == 0
    assert seen == [
        TrainConfig.of(
            task=VisionOptions(partition="dirichlet:0.3", batch_size=16, seed=5),
            nodes=3,
            bits=None,
            rotation=True,
            local_steps="geometric:8",
            seed=5,
            out=Path("a"),
            overwrite=True,
        )
    ]


def test_a_setting_that_changes_nothing_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from swarmsgd.train.command import run

    monkeypatch.setattr(run, "run_training", lambda config: 0)
    words = ["train", "digits", "--algorithm", "allreduce"]
    assert main([*words, "--nodes", "2"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--bits", "4", "--local-steps", "2"]) == 0
    warned = "warning: allreduce has no --bits, --local-steps, which therefore changes nothing"
    assert warned in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--nodes 0", "nodes is 0, wanted a whole number of at least 1"),
        ("--graph rign", "graph is 'rign', wanted one of complete, ring, "),
        ("--graph rign", 'did you mean "ring"?'),
        ("--graph ring --nodes 2", "the number of nodes of a ring is 2, "),
        ("--graph hypercube --nodes 6", "hypercube"),
        ("--mode nonblocking", 'did you mean "non-blocking"?'),
        ("--algorithm alreduce", 'did you mean "allreduce"?'),
        ("--dataset fashion", "dataset is 'fashion', wanted one of fashion-mnist, "),
        ("--model resnet", 'did you mean "resnet'),
        ("--key FILE", "FILE is not the key of a swarm"),
        ("--key FILE --algorithm allreduce", "but allreduce encrypts nothing"),
        ("--partition dirichlet:x", "partition 'dirichlet' needs a number alpha, got 'x'"),
        ("--local-steps 0", "local_steps is 0, wanted a whole number of at least 1"),
        ("--lr -1", "lr is -1.0, wanted a number above 0"),
        ("--lr nan", "lr is nan, wanted a number above 0"),
        ("--recipe sgd --momentum 1", "momentum is 1.0, wanted a number of at least 0 and below 1"),
        ("--weight-decay -0.1", "weight_decay is -0.1, wanted a number of at least 0"),
        ("--epochs 0", "epochs is 0.0, wanted a number above 0"),
        ("--seed -1", "seed is -1, wanted a whole number from 0"),
        ("--batch-size 0", "batch_size is 0, wanted a whole number of at least 1"),
        ("--out FILE", "--out is FILE, but FILE is a file"),
        ("--out FILE/sub", "--out is FILE/sub, but "),
        ("--out .", "--out is ., which is not empty (FILE, data): choose another folder"),
        ("--dataset cifar10 --data nowhere", "the data folder is 'nowhere', which is not a folder"),
        ("--dataset digits --nodes 2000", "1,437 samples cannot be split over 2,000 nodes"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_starts(
    words: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    Path("data").mkdir()
    assert main(["train", "vision", *words.split()]) == 2
    assert text in told(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "data"]


def test_a_folder_that_cannot_be_written_to_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "vision", "--dataset", "digits", "--out", "/proc/run"]) == 2
    assert told(capsys).startswith("--out is /proc/run, ")


def test_a_truncated_data_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            whole = gzip.compress(bytes(10_000))
            (data / f"{split}-{kind}-ubyte.gz").write_bytes(whole[: len(whole) // 2])
    assert main(["train", "vision", "--data", "data"]) == 2
    assert "ubyte.gz" in told(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_option_that_does_not_exist_is_told_with_one_that_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "vision", "--nods", "4"]) == 2
    assert told(capsys).startswith("there is no option '--nods'; did you mean \"--nodes\"?")
    assert main(["train", "vision", "--nodes", "many"]) == 2
    assert told(capsys) == "nodes is 'many', wanted a whole number"
    assert exit_of("train", "vision", "--nodes") == 2
    assert "argument --nodes: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "-n 4 --hosts 2 --host-index 1 --master-addr a --master-port 9",
        "--nproc-per-node 4 --nnodes 2 --node-rank 1 --master-addr a --master-port 9",
        "--nproc_per_node=4 --nnodes=2 --node_rank=1 --master_addr=a --master_port=9",
    ],
)
def test_launch_takes_torchruns_names_too(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swarmsgd.train.launch import local
    from swarmsgd.train.launch.processes import Outcome

    seen: list[dict[str, Any]] = []

    def launch(_argv: list[str], nodes: int, **given: Any) -> Outcome:
        seen.append({"nodes": nodes, **given})
        return Outcome((), None)

    monkeypatch.setattr(local, "launch", launch)
    (tmp_path / "train.py").touch()
    assert main(["launch", *words.split(), "--grace", "8", str(tmp_path / "train.py")]) == 0
    assert seen == [
        {
            "nodes": 4, "hosts": 2, "host_index": 1, "master_addr": "a", "master_port": 9,
            "standard_env": True, "grace_s": 8.0, "swarm": None, "restarts": 0, "chaos": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "simulate"])
def test_a_data_set_is_a_task_too(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from swarmsgd.sim.command import command as simulated
    from swarmsgd.train.command import run as real

    seen: list[RunConfig] = []
    for module, name in ((simulated, "run_simulation"), (real, "run_training")):
        monkeypatch.setattr(module, name, lambda config: seen.append(config) or 0)
    assert main([command, "digits", "--model", "mlp"]) == 0
    assert seen[0].task == VisionOptions(dataset="digits", model="mlp", batch_size=16)
    assert main([command, "digts"]) == 2
    assert told(capsys).endswith('did you mean "digits"?')


SCRIPT = "import json, os, sys; print(json.dumps([int(os.environ['RANK']), sys.argv[1:]]))"


@pytest.mark.parametrize("way", ["script", "module"])
def test_launch_passes_what_follows_the_script_untouched(
    way: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train_me.py").write_text(SCRIPT)
    target = ["train_me.py"] if way == "script" else ["-m", "train_me"]
    words = ["-n", "8", "--help", "--", "--lr=0.1", "a b", "-m"]
    assert main(["launch", "-n", "2", *target, *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(json.loads(line.split("] ", 1)[1]) for line in lines) == [[0, words], [1, words]]


def test_launch_exits_with_1_if_a_node_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text("import sys; sys.exit(3)")
    assert main(["launch", "-n", "1", str(tmp_path / "train.py")]) == 1
    assert capsys.readouterr().err.startswith("swarmsgd: node 0 ended with exit code 3 after ")


def test_launch_tells_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "-n", "2", "nowhere.py"]) == 2
    assert told(capsys).startswith("there is no script nowhere.py: check the path")
    assert main(["launch", "-n", "2", "-m", "nowhere.train"]) == 2
    assert told(capsys).startswith("there is no module nowhere in ")
    assert main(["launch", "-n", "0", __file__]) == 2
    assert told(capsys) == "the number of nodes is 0, wanted at least 1"
    assert exit_of("launch", "script.py") == 2
    assert "required: -n/--nodes" in capsys.readouterr().err


def test_launch_tells_of_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["launch", "-n", "2", "--master-port", str(port), __file__]) == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in told(capsys)


def test_python_m_swarmsgd_is_the_command_and_imports_nothing_of_the_working_folder(
    tmp_path: Path,
) -> None:
    for name in ("token.py", "queue.py"):
        (tmp_path / name).write_text("raise ImportError('not what was wanted')")
    done = subprocess.run(
        [sys.executable, "-m", "swarmsgd", "launch", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith("usage: swarmsgd launch"), done.stderr


def test_a_misspelt_option_is_told_rather_than_the_one_it_stands_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["launch", "--nodez", "3", "train.py"]) == 2
    told = capsys.readouterr().err
    assert "no option '--nodez'; did you mean" in told and "--nodes" in told
    for words in (["train.py", "--lr", "1"], ["--grace", "3", "train.py", "--lr"], ["-n2"]):
        with pytest.raises(SystemExit):
            main(["launch", *words])
        assert "arguments are required" in capsys.readouterr().err
