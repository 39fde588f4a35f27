"""Schedule-free AdamW: the published rule, and what it reports."""

import pytest
import torch
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.optim import OFFSET, ScheduleFreeAdamW, reporting
from swarmsgd.settings.run import RunConfig


def model_and_data() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(5, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(64, 5, generator=generator)
    return model, x, torch.randn(64, 2, generator=generator)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, x, y, rates: list[float]) -> None:
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def test_it_steps_and_reports_as_the_authors_package_does():
    schedulefree = pytest.importorskip("schedulefree")
    rates = [0.01 * min(1, (k + 1) / 5) for k in range(40)]
    ours, x, y = model_and_data()
    theirs, _, _ = model_and_data()
    settings = {"betas": (0.9, 0.99), "weight_decay": 0.02}
    mine = ScheduleFreeAdamW(ours.parameters(), **settings)
    reference = schedulefree.AdamWScheduleFree(theirs.parameters(), **settings)
    reference.train()
    train(ours, mine, x, y, rates)
    train(theirs, reference, x, y, rates)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert torch.allclose(a + mine.state[a][OFFSET], reference.state[b]["z"], atol=1e-6)
    reference.eval()
    with reporting(mine):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_what_is_reported_comes_and_goes_and_no_step_is_made_on_it():
    model, x, y = model_and_data()
    optimizer = ScheduleFreeAdamW(model.parameters(), lr=0.05)
    train(model, optimizer, x, y, [0.05] * 10)
    before = model.weight.detach().clone()
    with reporting(optimizer):
        assert not torch.allclose(model.weight, before)
        with pytest.raises(RuntimeError, match="call train"):
            optimizer.step()
    assert torch.allclose(model.weight, before, atol=1e-6)


def test_the_mean_of_what_nodes_report_is_what_a_node_with_their_means_reports():
    nodes = [model_and_data() for _ in range(2)]
    made = [ScheduleFreeAdamW(model.parameters(), lr=0.05) for model, _, _ in nodes]
    for k, ((model, x, y), optimizer) in enumerate(zip(nodes, made, strict=True)):
        train(model, optimizer, x[k::2], y[k::2], [0.05] * 10)
    weights = [model.weight for model, _, _ in nodes]
    y_mean = sum(w.detach() for w in weights) / 2
    offset = sum(o.state[w][OFFSET] for o, w in zip(made, weights, strict=True)) / 2
    for optimizer in made:
        optimizer.eval()
    reported = sum(w.detach() for w in weights) / 2
    assert torch.allclose(y_mean + (1 - 1 / 0.9) * offset, reported, atol=1e-6)


def test_a_swarm_exchanges_it_unasked_and_others_do_not():
    options = {"task": "synthetic", "optimizer": "schedulefree-adamw", "schedule": "constant"}
    assert RunConfig.of(**options).swarm.exchange_state == (OFFSET,)
    fewer = RunConfig.of(**options, exchange_state=(f"{OFFSET}:4",))
    assert fewer.swarm.exchange_state == (f"{OFFSET}:4",)
    assert RunConfig.of(**options, algorithm="allreduce").swarm.exchange_state == ()
    with pytest.raises(ConfigError, match="beta1"):
        RunConfig.of(**options, beta1=0.0)


def test_an_average_that_forgets_is_a_running_mean_of_the_base_sequence():
    model, x, y = model_and_data()
    optimizer = ScheduleFreeAdamW(model.parameters(), lr=0.05, least_share=0.2)
    w, z_now = model.weight, model.weight.detach().clone()
    average = z_now.clone()
    for step in range(30):
        train(model, optimizer, x, y, [0.05])
        z_now = w.detach() + optimizer.state[w][OFFSET]
        average = average + max(0.2, 1 / (step + 1)) * (z_now - average)
        assert torch.allclose(w, 0.1 * z_now + 0.9 * average, atol=1e-5)
    with reporting(optimizer):
        assert torch.allclose(w, average, atol=1e-5)


def test_an_average_that_forgets_is_not_exchanged_unasked():
    options = {"task": "synthetic", "optimizer": "schedulefree-adamw", "schedule": "constant"}
    assert RunConfig.of(**options, least_share=0.05).swarm.exchange_state == ()
    with pytest.raises(ConfigError, match="least_share"):
        RunConfig.of(**options, least_share=1.0)
    with pytest.raises(ConfigError, match="sgd has no least_share"):
        RunConfig.of(task="synthetic", least_share=0.1)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"betas": (0.0, 0.9)}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="betas"):
        ScheduleFreeAdamW([nn.Parameter(torch.zeros(1))], **wrong)


def test_a_share_that_leaves_nothing_of_what_was_is_refused():
    with pytest.raises(ValueError, match="least_share 1"):
        ScheduleFreeAdamW([nn.Parameter(torch.zeros(1))], least_share=1.0)


def test_parameters_that_had_no_gradient_for_a_while_step_as_if_each_were_alone():
    def run(names: str) -> list[torch.Tensor]:
        weights = {name: torch.ones(3, requires_grad=True) for name in names}
        optimizer = ScheduleFreeAdamW(list(weights.values()), lr=0.1, weight_decay=0.1)
        for step in range(6):
            for name, weight in weights.items():
                here = name == "a" or step % 2
                weight.grad = weight.detach() * (step + 1) if here else None
            optimizer.step()
        return [weight.detach() for weight in weights.values()]

    together, apart = run("ab"), [*run("a"), *run("b")]
    assert all(map(torch.equal, together, apart))
    assert not torch.equal(*together)
