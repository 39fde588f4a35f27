"""Real processes that end and begin again with their checkpoints."""

import json
import signal

import pytest
import torch
from nodes import Nodes, run
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

TRAIN = """
import random
random.seed(RANK); np.random.seed(RANK); torch.manual_seed(100)
settings = json.loads(os.environ["SETTINGS"])
stop, end, means = (json.loads(os.environ[name]) for name in ("STOP", "END", "MEANS"))
model = nn.Sequential(nn.Linear(8, 700), nn.BatchNorm1d(700), nn.Tanh(), nn.Dropout(0.2),
                      nn.Linear(700, 1))
torch.manual_seed(RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 9], gamma=0.5)
sampler = swarmsgd.NodeSampler(range(200), seed=1)
loader = torch.utils.data.DataLoader(
    range(200), batch_size=8, sampler=sampler, generator=torch.Generator())
table = torch.randn(200, 8, generator=torch.Generator().manual_seed(9))
path = os.environ["RUN"]
begun = swarmsgd.load(path, model, optimizer, scheduler=scheduler, sampler=sampler)
def forever():
    while True:
        yield from sampler.batches(loader)
with swarmsgd.join(model, optimizer, **settings) as swarm:
    for index in forever():
        x = table[index] + random.random() / 10 + np.random.rand() / 10
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        scheduler.step()
        if swarm.steps in means:
            swarm.mean_model()
        if swarm.steps == stop:
            swarm.save(path, scheduler=scheduler, sampler=sampler)
            say(saved=swarm.steps)
            threading.Event().wait()  # for the end
        if swarm.steps == end:
            break
    stats = swarm.stats()
state = model.state_dict() | {f"{i}": s["momentum_buffer"]
                              for i, s in optimizer.state_dict()["state"].items()}
from safetensors.torch import save_file
save_file(state, f"{path}-{RANK}.safetensors")
say(begun=begun.steps, exchanges=stats["completed"] + stats["answered"], lr=scheduler.get_last_lr())
"""


def variables(path, settings, *, stop=-1, end=16, means="[]"):
    settings = json.dumps({"mode": "matching", "seed": 3, **settings})
    return {
        "RUN": str(path),
        "SETTINGS": settings,
        "STOP": str(stop),
        "END": str(end),
        "MEANS": means,
    }


def train_until_killed(count, environment):
    with Nodes(TRAIN, count, **environment) as nodes:
        for rank in range(count):
            nodes.wait_said(rank, "saved")
        for rank in range(count):
            nodes.signal(rank, signal.SIGKILL)


@pytest.mark.parametrize(
    ("settings", "means", "stops"),
    [
        # Saved within a burst, after a mean, with codes that have learned.
        (
            {"bits": 8, "local_steps": "geometric:2", "exchange_state": ["momentum_buffer"]},
            "[4]",
            (7, 12),
        ),
        ({"bits": 4, "local_steps": 2, "graph": "ring"}, "[6, 7]", (7,)),
    ],
)
def test_the_same_nodes_end_with_the_bits_of_a_run_that_was_not_broken(
    settings, means, stops, tmp_path
):
    unbroken = run(TRAIN, 3, **variables(tmp_path / "a", settings, means=means))
    for stop in stops:
        train_until_killed(3, variables(tmp_path / "b", settings, stop=stop, means=means))
    resumed = run(TRAIN, 3, **variables(tmp_path / "b", settings, means=means))
    assert [said["begun"] for said in resumed] == [stops[-1]] * 3
    assert [said["lr"] for said in resumed] == [said["lr"] for said in unbroken]
    assert all(said["exchanges"] > 3 for said in unbroken)
    for rank in range(3):
        whole = load_file(tmp_path / f"a-{rank}.safetensors")
        broken = load_file(tmp_path / f"b-{rank}.safetensors")
        assert whole.keys() == broken.keys()
        assert all(value.isfinite().all() for value in whole.values())
        different = [name for name in whole if not torch.equal(whole[name], broken[name])]
        assert not different, (rank, different)
