"""The files of examples/machines: scripts are run with stand-ins for what they call, manifests are
read, and what they start is what the commands understand.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nodes import free_port

from swarmsgd.cli import main
from swarmsgd.train.launch import local
from swarmsgd.train.launch.processes import Outcome

MACHINES = Path(__file__).parent.parent / "examples" / "machines"
yaml = pytest.importorskip("yaml")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What `swarmsgd launch` would do with these arguments."""

    def with_arguments(arguments: list[str]) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []

        def launch(argv: list[str], nodes: int, **given: Any) -> Outcome:
            seen.append({"argv": argv[1:], "nodes": nodes, **given})
            return Outcome((), None)

        monkeypatch.setattr(local, "launch", launch)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "train.py").touch()
        assert main(arguments) == 0
        return seen[0]

    return with_arguments


def called(script: str, arguments: list[str], folder: Path, **variables: str) -> list[str]:
    """The command that a script ends with, by stand-ins that print what they were given."""
    for name in ("swarmsgd", "torchrun", "srun"):
        stand_in = folder / name
        stand_in.write_text(f'#!/bin/sh\necho "{name}"; for word; do echo "$word"; done\n')
        stand_in.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(MACHINES / script), *arguments],
        cwd=folder,
        env=os.environ | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split("\n")[:-1]


def test_two_hosts_are_started_alike_but_for_their_index(launched: Any, tmp_path: Path) -> None:
    command = called("two_hosts.sh", ["1", "127.0.0.2", "train.py", "--lr", "1"], tmp_path)
    found = launched(command[1:])
    assert found["argv"] == ["train.py", "--lr", "1"]
    assert (found["hosts"], found["host_index"], found["nodes"]) == (2, 1, 1)
    assert (found["master_addr"], found["master_port"]) == ("127.0.0.2", 29500)


def test_torchrun_understands_what_it_is_given(tmp_path: Path) -> None:
    from torch.distributed.run import get_args_parser

    command = called("torchrun.sh", ["1", "4", "10.0.0.1", "train.py"], tmp_path)
    found = get_args_parser().parse_args(command[1:])
    assert (found.nnodes, found.node_rank, found.max_restarts) == ("4", 1, 2)
    assert (found.master_addr, found.training_script) == ("10.0.0.1", "train.py")


def test_a_slurm_job_runs_the_script_in_every_task(tmp_path: Path) -> None:
    command = called("slurm_job.sbatch", ["train.py", "--lr", "1"], tmp_path)
    assert command == ["srun", "--kill-on-bad-exit=0", "python", "train.py", "--lr", "1"]


def test_an_array_takes_the_store_it_is_given(launched: Any, tmp_path: Path) -> None:
    slurm = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    at = {"SWARMSGD_SWARM": "login:29500"}
    command = called("slurm_array.sbatch", ["train.py"], tmp_path, **slurm, **at)
    assert launched(command[1:])["swarm"] == "login:29500"


TRAIN = """
import os, torch, swarmsgd
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    made = 0
    batches = iter(swarm.until([torch.ones(4, 8)], steps=1000000))
    while not os.path.exists("met"):
        next(batches)
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
        made += 1
        if swarm.stats()["completed"] >= 3:  # there is somebody to exchange with
            open("met", "w").close()
print("done")
"""


@pytest.mark.slow
def test_the_jobs_of_an_array_find_each_other(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "swarmsgd"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m swarmsgd "$@"\n')
    command.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    slurm = {"SLURM_ARRAY_JOB_ID": "4711", "PORT": str(free_port()), "PATH": path}
    jobs = [
        subprocess.Popen(
            ["bash", str(MACHINES / "slurm_array.sbatch"), "train.py"],
            cwd=tmp_path,
            env=os.environ | slurm | {"SLURM_ARRAY_TASK_ID": index},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        for index in ("1", "0")
    ]
    try:
        outputs = [job.communicate(timeout=300)[0] for job in jobs]
    finally:
        for job in jobs:
            if job.poll() is None:
                os.killpg(job.pid, 9)
                job.wait()
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert all("done" in output for output in outputs)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MACHINES / name).read_text()))


def test_the_pods_join_the_store_that_is_beside_them(launched: Any, monkeypatch: Any) -> None:
    service, store, job = documents("kubernetes.yaml")
    name = service["metadata"]["name"]
    template = store["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"]
    port = str(service["spec"]["ports"][0]["port"])
    assert template["spec"]["containers"][0]["args"] == ["store", "--port", port]
    pod = job["spec"]["template"]["spec"]
    node = pod["containers"][0]
    assert node["env"] == [{"name": "SWARMSGD_SWARM", "value": f"{name}:{port}"}]
    found = launched(node["args"])
    assert (found["nodes"], found["argv"]) == (1, ["train.py"])
    assert found["grace_s"] < pod["terminationGracePeriodSeconds"]
    assert job["spec"]["completionMode"] == "Indexed"


def test_a_spot_machine_adds_one_node(launched: Any) -> None:
    (task,) = documents("skypilot.yaml")
    words = task["run"].split()
    assert words[:2] == ["exec", "swarmsgd"] and "SWARM" in task["envs"]
    found = launched([word.replace('"$SWARM"', "10.0.0.1:29500") for word in words[2:]])
    assert (found["nodes"], found["swarm"]) == (1, "10.0.0.1:29500")
    assert task["resources"]["use_spot"]


def test_the_image_is_made_of_what_there_is() -> None:
    text = (MACHINES / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    steps = [line.split(" ", 1) for line in lines]
    assert {name for name, _ in steps} == {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "ENTRYPOINT"}
    for name, rest in steps:
        if name == "COPY":
            assert (MACHINES.parent.parent / rest.split()[0]).exists()
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", rest], check=True)
    assert ["ENTRYPOINT", '["swarmsgd"]'] in steps


def test_every_file_has_its_place_on_the_page() -> None:
    page = (MACHINES.parent.parent / "docs" / "machines.md").read_text()
    linked = set(re.findall(r"examples/machines/([\w.]+)\)", page))
    assert linked == {path.name for path in MACHINES.iterdir()}
