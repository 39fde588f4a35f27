"""Virtual nodes step with torch's own optimizer: the bits of one module and one optimizer each."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from still import config, swarm_of
from torch import Tensor, nn

from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.settings.optimizer import OPTIMIZERS, OptimizerSettings
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.learners import learner_of
from swarmsgd.sim.engine.module_learner import ModuleLearner
from swarmsgd.sim.engine.optimizer_states import OptimizerStates, zero_rows
from swarmsgd.sim.engine.quadratic_learner import QuadraticLearner
from swarmsgd.tasks import TASKS, Batch, Score, SyntheticOptions, VisionOptions, node_generator

NODES = 3


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Odd(nn.Module):
    """Parameters of all kinds: without a gradient, with one now and then, of no dimension."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.unused = nn.Parameter(torch.randn(5, generator=g))
        self.weight = nn.Parameter(torch.randn(7, 3, generator=g))
        self.frozen = nn.Parameter(torch.randn(3, generator=g), requires_grad=False)
        self.seldom = nn.Parameter(torch.randn(3, generator=g))
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.across = nn.Parameter(torch.randn(3, 4, generator=g).t())

    def forward(self, x: Tensor, seldom: bool) -> Tensor:
        hidden = (x @ self.weight) * self.scale + self.frozen
        return ((hidden + self.seldom if seldom else hidden) @ self.across.t()).sin().sum()


class OddTask:
    """A `Task` for `Odd`."""

    name, num_nodes, batch_size, samples_per_epoch = "odd", NODES, 1, 30

    def make_model(self, seed: int) -> nn.Module:
        return Odd(seed)

    def batches(self, node: int) -> Iterator[Batch]:
        rng = node_generator(5, node)
        for number in range(1000):
            yield torch.from_numpy(rng.standard_normal((2, 7), np.float32)), torch.tensor(number)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, number = batch
        return model(x, int(number) % 3 == 2)

    def evaluate(self, model: nn.Module) -> Score:
        return Score(loss=0.0, samples=1)

    train_score = evaluate


def flat(values: Any) -> np.ndarray:
    return torch.cat([v.detach().flatten() for v in values]).numpy()


def as_row(values: list[Any]) -> np.ndarray:
    """Tensors of the trained parameters' shapes as one vector; the last lies in memory across."""
    return flat([*values[:-1], values[-1].t()])


class Alone:
    """One node as a plain training loop has it, step by step as `train.trainee`."""

    def __init__(self, node: int, settings: OptimizerSettings) -> None:
        self.task = OddTask()
        self.model = self.task.make_model(0)
        self.optimizer = settings.make(self.model.parameters())
        self.settings = settings
        self.batches = self.task.batches(node)

    def step(self, rate: float) -> None:
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        self.task.loss(self.model, next(self.batches)).backward()
        self.settings.clip(self.model.parameters())
        self.optimizer.step()

    def x(self) -> np.ndarray:
        """[D] as a learner lays it out."""
        return as_row([p for p in self.model.parameters() if p.requires_grad])


class Turns:
    """The same nodes on one learner."""

    def __init__(self, settings: OptimizerSettings) -> None:
        self.learner = ModuleLearner(OddTask(), 0, settings)
        start, self.buffers = self.learner.start()
        self.x_ND = zero_rows(NODES, self.learner.dim)
        self.x_ND[:] = start
        self.states = OptimizerStates(NODES, self.learner.dim)

    def steps(self, node: int, rates: list[float]) -> None:
        self.learner.steps(node, self.x_ND[node], self.states, self.buffers, rates)


def settings_of(name: str, **more: Any) -> OptimizerSettings:
    return OptimizerSettings(optimizer=name, lr=0.02, schedule="constant", **more)


CASES = [
    *(settings_of(name) for name in OPTIMIZERS),
    *(settings_of(name, weight_decay=0.1, clip_norm=0.7) for name in OPTIMIZERS),
    settings_of("sgd", momentum=0.0),
    settings_of("sgd", nesterov=True, weight_decay=0.1),
    settings_of("adamw", beta1=0.5, beta2=0.9, eps=1e-3),
    settings_of("adamw", clip_norm=1e-3),
]
OTHERS = [torch.optim.Adagrad, torch.optim.NAdam, torch.optim.RMSprop, torch.optim.Adafactor]
"""Not in the table; their states begin in the constructor, or are of other shapes."""


def same_in_turns(settings: OptimizerSettings) -> Turns:
    turns, alone = Turns(settings), [Alone(node, settings) for node in range(NODES)]
    for node, rates in [(0, [0.1]), (1, [0.1, 0.05]), (0, [0.02] * 4), (2, [0.3, 0.1]), (1, [0.1])]:
        turns.steps(node, rates)
        for rate in rates:
            alone[node].step(rate)
    assert np.isfinite(turns.x_ND).all()
    for node in range(NODES):
        assert np.array_equal(turns.x_ND[node], alone[node].x())
    return turns


@pytest.mark.parametrize("settings", CASES, ids=lambda s: f"{s.optimizer}")
def test_nodes_in_turn_on_one_module_have_the_bits_of_a_module_each(settings: OptimizerSettings):
    same_in_turns(settings)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_another_of_torch_s_optimizers_needs_a_line_in_the_table(
    kind: Any, monkeypatch: pytest.MonkeyPatch
):
    entry = OPTIMIZERS["adam"]._replace(make=kind, takes=("weight_decay",))
    monkeypatch.setitem(OPTIMIZERS, "other", entry)
    same_in_turns(OptimizerSettings(optimizer="other", lr=0.02, weight_decay=0.01))


def test_a_parameter_without_a_gradient_is_passed_over_not_decayed():
    turns = same_in_turns(settings_of("adamw", weight_decay=0.5))
    assert np.array_equal(turns.x_ND[0, :5], turns.learner.start()[0][:5])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_a_given_gradient_is_a_local_step(name: str):
    local, given = (Turns(settings_of(name, weight_decay=0.1)) for _ in range(2))
    gradient = np.zeros(given.learner.dim, np.float32)
    for node in (0, 1, 0):
        x = given.x_ND[node]
        given.learner.gradient(node, x, given.buffers, gradient)
        given.learner.step(node, x, given.states, gradient, 0.1)
        local.steps(node, [0.1])
    assert np.array_equal(given.x_ND, local.x_ND)


# What optimizers remember.


def test_the_state_of_all_nodes_lies_in_rows_as_their_models_do():
    settings = settings_of("adamw")
    turns, alone = Turns(settings), Alone(1, settings)
    early_ND = turns.states.rows("exp_avg")
    assert early_ND.shape == turns.x_ND.shape and not early_ND.any()
    for _ in range(4):
        turns.steps(1, [0.1])
        alone.step(0.1)
    for name in ("exp_avg", "exp_avg_sq"):
        kept = [
            alone.optimizer.state[p].get(name, torch.zeros_like(p))
            for p in alone.model.parameters()
            if p.requires_grad
        ]
        rows_ND = turns.states.rows(name)
        assert np.array_equal(rows_ND[1], as_row(kept))
        assert not rows_ND[[0, 2]].any()
    assert turns.states.rows("exp_avg") is early_ND


def test_what_was_added_to_a_row_before_the_first_step_stays_and_counts_in_the_next():
    settings = settings_of("sgd", momentum=0.5)
    changed, plain = Turns(settings), Turns(settings)
    changed.states.rows("momentum_buffer")[0, 5] = 3.0  # of `weight`
    for turns in (changed, plain):
        turns.steps(0, [0.1])
    assert np.array_equal(changed.x_ND, plain.x_ND)
    buffers = [t.states.rows("momentum_buffer")[0, 5] for t in (changed, plain)]
    assert buffers[0] == buffers[1] + 3
    for turns in (changed, plain):
        turns.steps(0, [0.1])
    assert changed.x_ND[0, 5] == pytest.approx(plain.x_ND[0, 5] - 0.1 * 0.5 * 3, abs=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_node_that_was_reset_steps_as_if_it_were_its_first(name: str):
    settings = settings_of(name)
    turns, alone = Turns(settings), Alone(0, settings)
    turns.steps(0, [0.1, 0.1])
    turns.steps(1, [0.1])
    for _ in range(2):
        alone.step(0.1)
    others = {n: turns.states.rows(n)[1].copy() for n in ("exp_avg", "momentum_buffer")}
    turns.states.reset(0)
    alone.optimizer = settings.make(alone.model.parameters())
    turns.steps(0, [0.1, 0.05])
    for rate in (0.1, 0.05):
        alone.step(rate)
    assert np.array_equal(turns.x_ND[0], alone.x())
    assert all(np.array_equal(turns.states.rows(n)[1], kept) for n, kept in others.items())


def test_a_node_that_joins_begins_with_no_state():
    swarm, fleet, _ = swarm_of({"events": ("kill:1@0.2", "join:1@0.4")})
    run = swarm.run()
    while swarm.nodes[1].alive:
        next(run)
    assert fleet.state_ND("momentum_buffer")[1].any()
    while not swarm.nodes[1].alive:
        next(run)
    assert not fleet.state_ND("momentum_buffer")[1].any()
    assert fleet.state_ND("momentum_buffer")[2].any()


# Whole runs.


def test_quadratics_have_a_fast_way_for_plain_sgd_only():
    task = TASKS["synthetic"].make(SyntheticOptions(dimension=8), NODES, print)
    fast = [OptimizerSettings(), OptimizerSettings(momentum=0.0, weight_decay=0.1)]
    slow = [
        OptimizerSettings(optimizer="adamw"),
        OptimizerSettings(nesterov=True),
        OptimizerSettings(clip_norm=1.0),
    ]
    assert all(isinstance(learner_of(task, 0, s), QuadraticLearner) for s in fast)
    assert all(isinstance(learner_of(task, 0, s), ModuleLearner) for s in slow)


def test_the_fast_way_keeps_the_momentum_that_the_slow_one_keeps():
    task = TASKS["synthetic"].make(SyntheticOptions(dimension=9), NODES, print)
    settings = OptimizerSettings(weight_decay=0.01)
    kept: list[np.ndarray] = []
    for kind in (QuadraticLearner, ModuleLearner):
        learner, states = kind(task, 0, settings), OptimizerStates(NODES, 9)
        x, buffers = learner.start()
        learner.steps(1, x, states, buffers, [0.1] * 5)
        learner.step(1, x, states, np.ones(9, np.float32), 0.1)
        kept.append(states.rows("momentum_buffer").copy())
    assert kept[0][1].any() and np.allclose(*kept, atol=1e-5)


ADAMW = OptimizerSettings(optimizer="adamw", lr=0.05, weight_decay=0.01, clip_norm=2.0)


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"diloco", "noloco"}))
def test_on_a_single_node_every_algorithm_is_torch_s_adamw(name: str):
    made = config(algorithm=name, nodes=1, optimizer=ADAMW)
    result = simulate(made)
    task = TASKS["synthetic"].make(made.task, 1, print)
    model = task.make_model(made.seed)
    optimizer, batches = ADAMW.make(model.parameters()), task.batches(0)
    for step in range(80):
        optimizer.param_groups[0]["lr"] = ADAMW.rate(step / 80)
        optimizer.zero_grad()
        task.loss(model, next(batches)).backward()
        ADAMW.clip(model.parameters())
        optimizer.step()
    assert np.allclose(result.mean_D, flat(model.parameters()), atol=1e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_the_digits_with_adamw(name: str):
    pytest.importorskip("sklearn")
    task = VisionOptions(dataset="digits", model="mlp")
    settings = OptimizerSettings(optimizer="adamw", lr=0.003, weight_decay=0.01, clip_norm=5.0)
    made = config(algorithm=name, task=task, nodes=3, epochs=4, optimizer=settings)
    assert simulate(made).summary["mean_accuracy"] > 0.75


def test_no_step_of_sgd_is_longer_than_lr_times_clip_norm():
    settings = OptimizerSettings(momentum=0.0, lr=0.1, clip_norm=0.2, schedule="constant")
    made = config(optimizer=settings)
    fleet = Fleet(TASKS["synthetic"].make(made.task, made.nodes, print), made)
    before = fleet.x_ND[0].copy()
    fleet.steps_of(0, 1)
    assert np.linalg.norm(fleet.x_ND[0] - before) == pytest.approx(0.02, rel=1e-3)
