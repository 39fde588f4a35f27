"""While a node saves: kills, a full disk, and what the others do meanwhile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import one_node
import pytest
from nodes import Nodes, run

import swarmsgd
from swarmsgd.errors import DataError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_node_that_is_killed_while_it_saves_loses_no_checkpoint_and_breaks_none():
    command = [sys.executable, ROOT / "benchmarks" / "kills.py", "--kills", "6"]
    result = subprocess.run(
        [*map(str, command), "--parameters", "400000"],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads(result.stdout)
    print(figures)
    assert figures["kills"] == 6 and figures["saves"] >= 6
    assert figures["broken"] == figures["lost"] == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_former_checkpoint(small_disk):
    def large(_seed):
        model, optimizer = one_node.make()
        model.append(one_node.nn.Linear(2, 40_000))
        return model, optimizer

    model, optimizer = large(0)
    with swarmsgd.join(model, optimizer) as swarm:
        one_node.step(model, optimizer)
        with pytest.raises(DataError, match=r"No space left on device.*Make room, or save to"):
            swarm.save(small_disk)
        assert not [path for path in small_disk.rglob("*") if path.is_file()]
    one_node.write(small_disk / "a", 0, 1, steps=5)
    resumed = swarmsgd.train.checkpoint.resumed.Resumed(str(small_disk / "a"), era=0)
    with pytest.raises(DataError, match="No space left on device"):
        one_node.write(small_disk / "a", 0, 1, steps=6, make=large, resumed=resumed)
    assert swarmsgd.load(small_disk / "a", *one_node.make(3)).steps == 5


TRAIN = """
model = Vector(1000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
class Slow:
    "A part whose state takes as long as the test wants."
    def state_dict(self):
        say(saving=answered())
        told.wait()
        return {}
    def load_state_dict(self, state): pass
def answered():
    return swarm.stats()["answered"]
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    told = when_told()
    while not told.is_set():
        optimizer.zero_grad()
        model.x.square().sum().backward()
        optimizer.step()
        if swarm.steps % 100 == 0:
            say(steps=swarm.steps)
        if RANK == 0 and swarm.steps == 50:
            swarm.save(os.environ["RUN"], slow=Slow())
            say(saved=answered())
            break
    told.wait()
    swarm.mean_model()
"""


def test_the_others_train_on_and_are_answered_while_a_node_saves(tmp_path):
    with Nodes(TRAIN, 3, RUN=str(tmp_path / "run")) as nodes:
        before = nodes.wait_said(0, "saving")["saving"]
        for rank in (1, 2):
            steps = max([said["steps"] for said in nodes.said(rank)], default=0)
            nodes.wait_said(rank, "steps", steps + 200)
        nodes.go()
        after = nodes.wait_said(0, "saved")["saved"]
        assert nodes.wait() == [0, 0, 0], nodes.everything()
    assert after > before + 10


BEGIN = """
torch.manual_seed(RANK)
model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
begun = swarmsgd.load(os.environ["RUN"], model, optimizer)
with swarmsgd.join(model, optimizer, local_steps=2) as swarm:
    mean = swarm.mean_model()
    gamma = swarm.gamma
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
    told = when_told()
    swarm.save(os.environ["RUN"])
    say(saved=swarm.steps)
    told.wait()
    after = swarm.mean_model()
flat = lambda state: torch.cat([v.double().flatten() for v in state.values()]).tolist()
say(begun=begun.steps, nodes=begun.nodes, steps=swarm.steps, mean=flat(mean), gamma=gamma,
    after=flat(after), own=flat(model.state_dict()))
"""


def test_more_nodes_begin_alike_with_the_mean_of_the_old(tmp_path):
    with Nodes(BEGIN, 4, RUN=str(tmp_path)) as nodes:
        for rank in range(4):
            nodes.wait_said(rank, "saved")
        nodes.go()
        assert nodes.wait() == [0] * 4, nodes.everything()
    old = swarmsgd.export(tmp_path)
    flat = [float(x) for value in old.values() for x in value.double().flatten()]
    with Nodes(BEGIN, 6, RUN=str(tmp_path)) as nodes:
        for rank in range(6):
            nodes.wait_said(rank, "saved")
        nodes.go()
        assert nodes.wait() == [0] * 6, nodes.everything()
        said = [nodes.said(rank)[-1] for rank in range(6)]
    for each in said:
        assert (each["begun"], each["nodes"], each["steps"]) == (10, 4, 20)
        assert each["gamma"] == 0.0
        assert each["mean"] == pytest.approx(flat, rel=1e-6)


LOST = """
torch.manual_seed(RANK)
model = nn.Linear(5, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
begun = swarmsgd.load(os.environ["RUN"] + f"/{RANK}", model, optimizer)
own = model.weight.detach().clone()
with swarmsgd.join(model, optimizer) as swarm:
    taken = model.weight.detach().clone()
    if not begun:
        taken = taken - torch.load(os.environ["RUN"] + "/1.pt")
    else:
        taken = taken - own
    swarm.mean_model()
say(begun=begun.steps, moved=float(taken.abs().max()))
"""


def test_a_node_that_lost_its_disk_begins_with_the_model_of_one_that_did_not(tmp_path):
    import torch

    def linear(seed):
        torch.manual_seed(seed)
        model = torch.nn.Linear(5, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, optimizer

    for rank in (1, 2):
        model = one_node.write(tmp_path / str(rank), rank, 3, make=lambda r: linear(10 + r))
        torch.save(model.weight.detach(), tmp_path / f"{rank}.pt")
    said = run(LOST, 3, RUN=str(tmp_path))
    assert said == [{"begun": steps, "moved": 0.0} for steps in (0, 2, 2)]
