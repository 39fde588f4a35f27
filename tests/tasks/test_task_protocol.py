"""What every task promises, held against each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy_language
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.tasks import Batch, Task, make_task
from swarmsgd.tasks.base import evaluating

NODES = 3
CASES: dict[str, dict[str, Any]] = {
    "vision": {"dataset": "digits", "model": "mlp"},
    "vision skewed": {"dataset": "digits", "model": "cnn", "partition": "dirichlet:0.3"},
    "vision augmented": {"dataset": "digits", "augment": True},
    "vision with batch norm": {"dataset": "digits", "model": "resnet20", "batch_size": 4},
    "language": {"text": Path(__file__), "model": "tiny", "context": 16, "dropout": 0.1},
    "synthetic": {"dimension": 7},
    "translation": {"dropout": 0.1},
}


def fresh(case: str, **more: Any) -> Task:
    return make_task(case.split()[0], num_nodes=NODES, **CASES[case], **more)


@pytest.fixture(scope="module", autouse=True)
def _files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the case of translation is on, and an empty cache."""
    folder = tmp_path_factory.mktemp("toy")
    CASES["translation"] |= toy_language.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


def take(task: Task, node: int, count: int = 4) -> list[Batch]:
    return list(islice(task.batches(node), count))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(
        torch.equal(x, y)
        for batch_a, batch_b in zip(a, b, strict=True)
        for x, y in zip(batch_a, batch_b, strict=True)
    )


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def test_batches_are_a_function_of_seed_and_node(case: str):
    assert same(take(fresh(case), 1), take(fresh(case), 1))


def test_batches_start_anew_at_every_call(case: str):
    task = fresh(case)
    assert same(take(task, 0), take(task, 0))


def test_nodes_get_different_batches(case: str):
    task = fresh(case)
    assert not same(take(task, 0), take(task, 1))


def test_another_seed_gives_other_batches(case: str):
    assert not same(take(fresh(case, seed=0), 0), take(fresh(case, seed=1), 0))


def test_weights_are_a_function_of_the_seed(case: str):
    first, again, other = (weights(fresh(case).make_model(seed)) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def global_states() -> tuple[str, ...]:
    numpy_state = np.random.get_state(legacy=False)["state"]
    assert isinstance(numpy_state, dict)
    return (
        torch.get_rng_state().numpy().tobytes().hex(),
        numpy_state["key"].tobytes().hex(),
        str(numpy_state["pos"]),
        str(random.getstate()),
    )


def test_no_global_generator_is_used(case: str):
    before = global_states()
    task = fresh(case)
    model = task.make_model(0)
    task.loss(model, take(task, 0)[0]).backward()
    task.evaluate(model)
    task.train_score(model)
    assert global_states() == before


def test_a_few_steps_lower_the_loss_and_the_score(case: str):
    task = fresh(case)
    model = task.make_model(0)
    before = task.train_score(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for batch in take(task, 0, 30):
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        assert loss.shape == ()
        loss.backward()
        optimizer.step()
    assert task.train_score(model).loss < before.loss


def test_scoring_leaves_every_module_in_its_own_mode(case: str):
    task = fresh(case)
    model = task.make_model(0)
    assert all(module.training for module in model.modules())
    list(model.modules())[-1].eval()
    before = [module.training for module in model.modules()], weights(model)
    score = task.evaluate(model)
    assert [module.training for module in model.modules()] == before[0]
    assert all(torch.equal(a, b) for a, b in zip(before[1], weights(model), strict=True))
    assert score.samples > 0
    assert score == task.evaluate(model)


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(KeyError), evaluating(model):
        assert not model[0].training
        raise KeyError
    assert model[0].training


@pytest.mark.parametrize("node", [-1, NODES])
def test_a_node_that_is_not_there_is_refused_at_once(case: str, node: int):
    with pytest.raises(ConfigError, match=r"is not one of this task's nodes 0 \.\. 2"):
        fresh(case).batches(node)


def test_a_task_without_nodes_is_refused(case: str):
    with pytest.raises(ConfigError, match="at least 1 node, got 0"):
        make_task(case.split()[0], num_nodes=0, **CASES[case])
