"""Quadratics: the optimum is where it is said to be, and all gradients agree."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.tasks import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.synthetic import VectorModel


def make(nodes: int = 5, **options) -> SyntheticTask:
    return SyntheticTask(SyntheticOptions(**options), nodes)


def local_losses(task: SyntheticTask, x: torch.Tensor) -> torch.Tensor:
    """f_i(x) of every node, by its definition."""
    return 0.5 * (task.curvature_D * (x - task.centers_ND).square()).sum(dim=1)


@given(
    st.integers(1, 30), st.integers(1, 12), st.floats(1, 1e4), st.floats(0, 3), st.integers(0, 99)
)
@settings(max_examples=50, deadline=None)
def test_the_optimum_of_the_mean_is_known(dim, nodes, condition, heterogeneity, seed):
    task = make(
        nodes, dimension=dim, condition=condition, heterogeneity=heterogeneity, noise=0, seed=seed
    )
    every = torch.arange(nodes)
    at_optimum = task.gradient(task.optimum_D.expand(nodes, dim), every, None)
    assert at_optimum.mean(dim=0).abs().max() < 1e-5
    mean_loss = local_losses(task, task.optimum_D).mean().item()
    assert task.optimal_loss == pytest.approx(mean_loss, rel=1e-4, abs=1e-6)


def test_the_loss_elsewhere_is_the_mean_of_the_nodes_losses():
    task = make()
    model = task.make_model(1)
    score = task.evaluate(model)
    assert score.loss == pytest.approx(local_losses(task, model.x.detach()).mean().item(), rel=1e-5)
    assert score.extra["excess"] == pytest.approx(score.loss - task.optimal_loss, rel=1e-5)
    assert score.extra["distance"] == pytest.approx(
        (model.x.detach() - task.optimum_D).norm().item()
    )
    assert score == task.train_score(model)


def test_the_score_at_the_optimum_is_perfect():
    task = make()
    score = task.evaluate(VectorModel(task.optimum_D.clone()))
    assert score.extra == {"excess": 0.0, "distance": 0.0}
    assert score.loss == task.optimal_loss


def test_the_gradient_is_the_one_of_autograd():
    task = make(dimension=9, noise=0.0)
    model = task.make_model(0)
    for node in range(5):
        model.zero_grad()
        task.loss(model, next(task.batches(node))).backward()
        assert model.x.grad is not None
        expected = task.gradient(model.x.detach(), torch.tensor(node), None)
        torch.testing.assert_close(model.x.grad, expected)


def test_the_noise_of_a_batch_is_added_to_the_gradient():
    task = make(dimension=9, noise=0.5)
    model = task.make_model(0)
    center, noise = batch = next(task.batches(3))
    task.loss(model, batch).backward()
    assert model.x.grad is not None
    torch.testing.assert_close(model.x.grad, task.curvature_D * (model.x.detach() - center) + noise)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_a_stack_of_gradients_is_the_gradients_stacked(shape: tuple[int, ...]):
    task = make(dimension=6)
    nodes = torch.from_numpy(np.random.default_rng(0).integers(0, 5, size=shape))
    x = torch.randn(*shape, 6, generator=torch.Generator().manual_seed(0))
    stacked = task.gradient(x, nodes, None)
    assert stacked.shape == x.shape
    for place in np.ndindex(shape):
        assert torch.equal(stacked[place], task.gradient(x[place], nodes[place], None))


@pytest.mark.parametrize(
    "make_rng", [np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)]
)
def test_the_noise_has_the_given_deviation_and_belongs_to_the_generator(make_rng):
    task = make(nodes=2000, dimension=16, noise=0.3)
    x, nodes = torch.zeros(2000, 16), torch.arange(2000)
    noisy = task.gradient(x, nodes, make_rng(0))
    noise = noisy - task.gradient(x, nodes, None)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().abs() < 0.01
    assert torch.equal(noisy, task.gradient(x, nodes, make_rng(0)))
    assert not x.any(), "the model was changed"


def test_the_batches_carry_noise_of_the_same_deviation():
    task = make(nodes=1, noise=0.3)
    noise = torch.stack([noise for _, noise in islice(task.batches(0), 300)])
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)


def test_heterogeneity_is_the_spread_of_the_nodes_optima():
    assert make(3, heterogeneity=0.0).centers_ND.std(dim=0).max() < 1e-6
    spread = make(3000, heterogeneity=2.0).centers_ND.std(dim=0).mean().item()
    assert spread == pytest.approx(2.0, rel=0.02)


def test_the_curvatures_span_the_condition_number():
    curvature = make(condition=50.0).curvature_D
    assert curvature.max().item() == pytest.approx(1.0)
    assert curvature.min().item() == pytest.approx(1 / 50)


def test_an_epoch_counts_all_nodes():
    assert make(7, samples_per_node=30).samples_per_epoch == 210


def test_gradients_of_a_hundred_thousand_nodes_come_at_once():
    task = make(nodes=100_000)
    nodes = torch.arange(100_000)
    gradient = task.gradient(task.optimum_D.expand(100_000, 64), nodes, np.random.default_rng(0))
    assert gradient.shape == (100_000, 64)
    assert gradient.mean(dim=0).abs().max() < 0.01
