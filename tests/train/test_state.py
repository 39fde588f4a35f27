"""Optimizer state that is exchanged with the model."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from nodes import run
from torch import nn

from swarmsgd.core.layout import Layout
from swarmsgd.errors import ConfigError
from swarmsgd.train.node.join import join
from swarmsgd.train.node.state import OptimizerState, warn_of_states


def trained(
    steps: int, *, adopt: bool, load_at: int = -1
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small model after some steps of SGD with momentum, alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    state = OptimizerState("momentum_buffer", Layout(model), [optimizer]) if adopt else None
    for step in range(steps):
        if step == load_at:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        if state is not None:
            state.adopt()
    return model, optimizer


@pytest.mark.parametrize("load_at", [-1, 2])
def test_an_optimizer_whose_state_lies_in_a_vector_steps_as_it_would_without(load_at: int):
    (mine, _), (plain, _) = trained(5, adopt=True, load_at=load_at), trained(5, adopt=False)
    for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_came_before_an_optimizers_first_step_counts_and_its_tensors_stay_its_own():
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = OptimizerState("momentum_buffer", Layout(model), [optimizer])
    state.live.write(np.ones(10, np.float32))  # brought by an exchange
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    made = optimizer.state[model.weight]["momentum_buffer"]
    state.adopt()
    seen = np.empty(10, np.float32)
    state.live.read(seen)
    np.testing.assert_array_equal(seen, 2.0)
    state.live.write(seen + 1)
    assert optimizer.state[model.weight]["momentum_buffer"] is made
    assert torch.equal(made, torch.full((2, 4), 3.0))
    assert made.untyped_storage().nbytes() == 4 * 8


@pytest.mark.parametrize(
    ("make", "name", "says"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), "momentum_buffer", "its momentum is 0, perhaps"),
        (lambda p: torch.optim.AdamW(p), "momentum_buffer", "has only exp_avg, exp_avg_sq, step"),
        (
            lambda p: torch.optim.AdamW(p),
            "step",
            r"of shape \[\] for a parameter of shape \[2, 4\]",
        ),
    ],
)
def test_a_state_that_cannot_be_exchanged_is_named_at_the_first_step(make, name, says):
    model = nn.Linear(4, 2)
    optimizer = make(model.parameters())
    with join(model, optimizer, exchange_state=(name,)):
        model(torch.ones(1, 4)).sum().backward()
        with pytest.raises(ConfigError, match=says):
            optimizer.step()


CONSERVE = """
D = 50_000
model = Vector(D, seed=RANK)
start = model.x.detach().double().clone()
optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=1.0)  # all that moves is exchanged
model.x.grad = torch.randn(D, generator=torch.Generator().manual_seed(100 + RANK)) * 10.0 ** RANK
first = model.x.grad.double().clone()
bits = None if os.environ["BITS"] == "none" else int(os.environ["BITS"])
with swarmsgd.join(model, optimizer, local_steps=1, broadcast_start=False, bits=bits,
                   exchange_state=("momentum_buffer",)) as swarm:
    optimizer.step()
    model.x.grad.zero_()
    swarm.mean_model()
    began = time.monotonic()
    while swarm.stats()["started"] < 60 and time.monotonic() - began < 60:
        optimizer.step()
        time.sleep(0.001)
    swarm.mean_model()
    lost = swarm.stats()["lost"]
optimizer.step()
momentum = optimizer.state[model.x]["momentum_buffer"].double().clone()
torch.save((start, model.x.detach().double(), first, momentum), os.environ["TMP"] + f"/{RANK}.pt")
say(lost=lost)
"""


@pytest.mark.slow
@pytest.mark.parametrize("bits", ["none", "8", "4"])
def test_momentum_that_is_exchanged_keeps_its_sum_and_comes_together(bits: str, tmp_path):
    said = run(CONSERVE, 3, BITS=bits, TMP=str(tmp_path))
    assert all(s["lost"] == 0 for s in said)
    saved = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    starts, finals, firsts, momenta = (torch.stack(vectors) for vectors in zip(*saved, strict=True))
    for before, after in ((starts, finals), (firsts, momenta)):
        drift = (after.sum(0) - before.sum(0)).norm() / before.norm()
        assert drift < 1e-6
        spread = (after - after.mean(0)).norm() / (before - before.mean(0)).norm()
        assert spread < 1e-2


@pytest.mark.parametrize(
    ("make", "warned"),
    [
        (lambda p: torch.optim.AdamW(p), True),
        (lambda p: torch.optim.NAdam(p), True),
        (lambda p: torch.optim.AdamW(p, eps=1e-4), False),
        (lambda p: Lion(p), False),
    ],
)
def test_a_mean_that_is_divided_by_what_stays_on_the_node_is_warned_of(
    make: Callable[..., torch.optim.Optimizer], warned: bool, caplog: pytest.LogCaptureFixture
):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    warn_of_states([optimizer], {"exp_avg"})
    assert ("is divided by stays on each node" in caplog.text) == warned
    assert (type(optimizer).__name__ in caplog.text) == warned


class Lion(torch.optim.Optimizer):
    """Steps by the sign of a mean, which nothing divides."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("exp_avg", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 0.1)
                parameter.data.sub_(group["lr"] * mean.sign())
