"""Batch norm of a mean model: estimated anew on request, warned of otherwise."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from nodes import run
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

import swarmsgd
from swarmsgd.errors import ConfigError
from swarmsgd.train.node.recalibrate import Batches, as_buffers, statistics


class Net(nn.Module):
    """Batch norm behind a recurrent layer, which keeps a list of its weights apart; dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = nn.LSTM(3, 4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4, momentum=0.3)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return self.norm(self.drop(self.recurrent(scale * x)[0]))


BATCHES = [torch.randn(8, 3, generator=torch.Generator().manual_seed(i)) for i in range(5)]


def update_bn_of(model: nn.Module) -> dict[str, Tensor]:
    """What torch's own function makes of a copy without dropout."""
    twin = copy.deepcopy(model)
    twin.drop.p = 0.0
    update_bn(BATCHES, twin)
    return twin.state_dict()


@pytest.mark.parametrize(
    "batches",
    [
        BATCHES,
        iter(BATCHES),
        [(x, torch.zeros(8)) for x in BATCHES],
        [{"x": x / 2, "scale": 2.0} for x in BATCHES],
        lambda model: [model(x) for x in BATCHES],
    ],
    ids=["tensors", "iterator", "tuples", "mappings", "function"],
)
def test_statistics_of_a_mean_are_those_of_torchs_update_bn(batches: Batches):
    model = Net().train()
    model(BATCHES[0])
    before = copy.deepcopy(model.state_dict())
    with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
        random = torch.get_rng_state()
        mean = swarm.mean_model(recalibrate=batches)
        assert torch.equal(torch.get_rng_state(), random)
    for name, value in update_bn_of(model).items():
        assert torch.equal(mean[name], value), name
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in model.modules()) and model.norm.momentum == 0.3


def test_statistics_are_those_of_the_mean_weights_and_the_model_stays_as_it_is():
    model, other = Net().eval(), Net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    before = copy.deepcopy(model.state_dict())
    model.register_buffer("seen", torch.zeros(1))
    model.register_forward_hook(lambda m, *_: setattr(m, "seen", torch.ones(1)))
    values = zip(model.parameters(), other.parameters(), strict=True)
    found = statistics(model, {id(p): v.detach() for p, v in values}, {}, BATCHES)
    buffers = as_buffers(model, found / 2, 2)
    for name, value in update_bn_of(other).items():
        if name.startswith("norm.") and name in buffers:
            torch.testing.assert_close(buffers[name], value.to(buffers[name].dtype))
    assert len(buffers) == 3 and buffers["norm.num_batches_tracked"] == 5
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.seen == 0 and not model.training


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        (iter(()), "recalibrate ran no batch"),
        (lambda model: None, "recalibrate ran no batch"),
        ([("words", 1)], "a batch that is a tuple, wanted a tensor"),
        ([3], "a batch that is a int"),
        ([[]], "a batch that is a list"),
    ],
)
def test_batches_that_are_none_are_refused(batches: Any, says: str):
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
        with pytest.raises(ConfigError, match=says):
            swarm.mean_model(recalibrate=batches)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
        swarm.mean_model(recalibrate=BATCHES)


def test_batch_norm_that_is_not_estimated_anew_is_warned_of(caplog: pytest.LogCaptureFixture):
    model, plain = Net(), nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING, "swarmsgd"):
        with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
            caplog.clear()
            swarm.mean_model(recalibrate=False)
            swarm.mean_model(recalibrate=BATCHES)
            assert not caplog.text
            swarm.mean_model()
            assert "batch norm in the mean model has this node's own statistics" in caplog.text
        with swarmsgd.join(plain, torch.optim.SGD(plain.parameters(), lr=0.1)) as swarm:
            caplog.clear()
            swarm.mean_model(recalibrate=BATCHES)
            assert not caplog.text


NORM = """
import logging
logging.basicConfig(stream=sys.stdout)
model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def batches(node, count):
    draw = torch.Generator().manual_seed(node)
    return [node + (1 + node) * torch.randn(16, 2, generator=draw) for _ in range(count)]
with swarmsgd.join(model, optimizer, buffers=os.environ["BUFFERS"]) as swarm:
    for x in batches(RANK, 3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    own = model[0].running_mean.tolist()
    without = swarm.mean_model(recalibrate=False)
    each = swarm.mean_model(recalibrate=batches(RANK, 2 + 3 * RANK))
    of_one = swarm.mean_model(recalibrate=batches(0, 2) if RANK == 0 else None)
hand = batches(0, 2) + batches(1, 5)
means, variances = sum(x.mean(0) for x in hand) / 7, sum(x.var(0) for x in hand) / 7
names = ("0.running_mean", "0.running_var", "0.num_batches_tracked")
say(own=own, without=without["0.running_mean"].tolist(),
    each=[each[name].tolist() for name in names], hand=[means.tolist(), variances.tolist(), 7],
    of_one=of_one["0.running_mean"].tolist(),
    one=sum(x.mean(0) for x in batches(0, 2)).div(2).tolist(), gamma=swarm.gamma)
"""


@pytest.mark.slow
@pytest.mark.parametrize("buffers", ["local", "average"])
def test_all_nodes_get_statistics_over_the_batches_of_all(buffers: str):
    first, second = run(NORM, 2, BUFFERS=buffers)
    average = [(a + b) / 2 for a, b in zip(first["own"], second["own"], strict=True)]
    for said in (first, second):
        wanted = said["own"] if buffers == "local" else average
        assert said["without"] == pytest.approx(wanted, abs=1e-6)
        for got, by_hand in zip(said["each"], said["hand"], strict=True):
            assert got == pytest.approx(by_hand, abs=1e-5)
        assert said["of_one"] == pytest.approx(said["one"], abs=1e-5)
        assert said["gamma"] == first["gamma"] and said["each"] == first["each"]
