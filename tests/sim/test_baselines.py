"""What each baseline promises, and that all of them learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from swarmsgd import graphs
from swarmsgd.errors import ConfigError
from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.sim.baselines.a2cid2 import A2cid2, chis
from swarmsgd.sim.baselines.ad_psgd import AdPsgd
from swarmsgd.sim.baselines.d_psgd import DPsgd
from swarmsgd.sim.baselines.diloco import diloco
from swarmsgd.sim.baselines.noloco import NoLoCo
from swarmsgd.sim.baselines.pairwise import Pairwise
from swarmsgd.sim.baselines.push_sum import PushSum
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.makers import MAKERS
from swarmsgd.sim.command.run import Result, check_run, simulate
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import TASKS, SyntheticOptions, Task, VisionOptions

BASELINES = [name for name in ALGORITHMS if name != "swarm"]
STILL = 1e-30
"""A learning rate at which no float32 moves."""


def config(**changes: Any) -> SimConfig:
    settings: dict[str, Any] = {
        "task": SyntheticOptions(dimension=8, samples_per_node=60, noise=0.2),
        "nodes": 6,
        "epochs": 1.0,
        "world": World(step_jitter=0.3),
        "evals": 2,
        "score_nodes": 2,
        "lr": 0.1,
        "momentum": 0.5,
    }
    return SimConfig.of(**(settings | changes))


def fleet_of(settings: SimConfig) -> Fleet:
    return Fleet(TASKS[settings.task_name].make(settings.task, settings.nodes, print), settings)


def scattered(**changes: Any) -> Fleet:
    """A fleet whose models begin apart, for rules that are driven by hand."""
    fleet = fleet_of(config(**({"lr": STILL} | changes)))
    fleet.x_ND[:] = np.random.default_rng(1).standard_normal(fleet.x_ND.shape)
    return fleet


def spread(rows_ND: np.ndarray) -> float:
    return float(np.square(rows_ND - rows_ND.mean(0)).sum())


def digits(algorithm: str, **changes: Any) -> Result:
    task = VisionOptions(dataset="digits", model="mlp")
    settings = {
        "task": task,
        "nodes": 3,
        "epochs": 2,
        "lr": 0.05,
        "momentum": 0.9,
        "recipe": "plain",
    }
    return simulate(config(algorithm=algorithm, **(settings | changes)))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# All of them.


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_finds_the_optimum_of_quadratics(name: str):
    start, *_, end = simulate(config(algorithm=name, epochs=3)).curve
    assert end["scores"]["excess"] < 0.01 * start["scores"]["excess"]
    assert end["samples"] == 3 * 6 * 60


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_learns_the_digits(name: str):
    pytest.importorskip("sklearn")
    assert digits(name, epochs=4).summary["mean_accuracy"] > 0.88


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_a_function_of_its_settings(name: str):
    first, again = (simulate(config(algorithm=name)) for _ in range(2))
    assert np.array_equal(first.models_KD, again.models_KD)
    assert first.summary["wall_s"] == again.summary["wall_s"]
    other = simulate(config(algorithm=name, seed=1))
    assert not np.array_equal(first.models_KD, other.models_KD)


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"diloco", "noloco"}))
def test_on_a_single_node_a_baseline_is_plain_sgd(name: str):
    alone, sgd = (simulate(config(algorithm=a, nodes=1)) for a in (name, "sgd"))
    assert np.allclose(alone.models_KD, sgd.models_KD, atol=1e-6)
    assert alone.summary["bytes_sent"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("graph", ("ring", "complete")),
        ("local_steps", (2, 5)),
        ("mode", ("non-blocking", "blocking")),
        ("bits", (8, 5)),
        ("rotation", (True, False)),
    ],
)
def test_a_summary_names_the_options_that_matter(name: str, option: str, values: tuple[Any, ...]):
    runs = [simulate(config(algorithm=name, **{option: value})) for value in values]
    same = np.array_equal(*(run.models_KD for run in runs))
    named = [str(run.summary[option]) for run in runs]
    assert named == (["None", "None"] if same else [str(value) for value in values])


def test_an_algorithm_that_is_none_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r'algorithm is "?\'?adpsgd.*did you mean "ad-psgd"'):
        simulate(config(algorithm="adpsgd"))


# SGD, small batch and large.


def by_torch(task: Task, settings: SimConfig, batches_of_a_step: list[list[int]]) -> torch.Tensor:
    """Parameters after steps on the mean loss over one batch of each listed node."""
    model = task.make_model(settings.seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.optimizer.lr,
        momentum=settings.optimizer.momentum,
        weight_decay=settings.optimizer.weight_decay,
    )
    streams = [task.batches(node) for node in range(settings.nodes)]
    for nodes in batches_of_a_step:
        optimizer.zero_grad()
        losses = [task.loss(model, next(streams[node])) for node in nodes]
        torch.stack(losses).mean().backward()
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("name", ["sgd", "allreduce"])
def test_sgd_with_small_and_large_batches_is_torch_s(name: str):
    pytest.importorskip("sklearn")
    result = digits(name, schedule="constant", weight_decay=1e-3)
    steps, nodes = result.fleet.total_steps, list(range(3))
    plan = [nodes] * steps if name == "allreduce" else [[n] for _ in range(steps) for n in nodes]
    expected = by_torch(result.task, result.fleet.config, plan)
    assert len(plan) > 25
    assert torch.allclose(torch.from_numpy(result.mean_D), expected, atol=1e-5)


def test_all_reduce_keeps_all_models_equal():
    models_ND = simulate(config(algorithm="allreduce")).models_KD
    assert models_ND.shape == (6, 8) and np.ptp(models_ND, axis=0).max() == 0


def test_sgd_is_one_model_whose_node_makes_all_the_steps():
    result = simulate(config(algorithm="sgd", world=World()))
    assert result.models_KD.shape == (1, 8)
    summary = result.summary
    assert summary["mean_of"] == [0] and summary["steps_of_nodes"] == [360, 360]
    assert summary["step_ms"] == pytest.approx(10) and summary["wall_s"] == pytest.approx(3.6)


def test_sgd_s_schedule_spans_all_its_steps():
    settings = config(algorithm="sgd")
    fleet = fleet_of(settings)
    steps = MAKERS["sgd"].make(fleet, Ledger(6, None)).run()
    for _ in range(180):
        next(steps)
    assert fleet.lr(0) == pytest.approx(settings.optimizer.lr / 2)


# Local steps.


def test_local_sgd_with_one_local_step_and_no_momentum_is_all_reduce():
    one, other = (
        simulate(config(algorithm=name, local_steps=1, momentum=0))
        for name in ("local-sgd", "allreduce")
    )
    assert np.allclose(one.mean_D, other.mean_D, atol=1e-6)


def test_lock_step_algorithms_do_not_ask_how_the_budget_is_counted():
    each, together = (
        simulate(config(algorithm="local-sgd", budget=budget)) for budget in ("each", "together")
    )
    assert np.array_equal(each.models_KD, together.models_KD)


def run_by_hand(settings: SimConfig, **outer: float) -> Fleet:
    """DiLoCo with other outer settings."""
    fleet = fleet_of(settings)
    for _ in diloco(fleet, Ledger(settings.nodes, None), **outer).run():
        pass
    return fleet


def test_diloco_without_its_outer_optimizer_is_local_sgd():
    fleet = run_by_hand(config(), outer_lr=1.0, outer_momentum=0.0)
    local = simulate(config(algorithm="local-sgd"))
    assert np.allclose(fleet.x_ND, local.models_KD, atol=1e-5)


def test_diloco_s_outer_step_is_torch_s_nesterov():
    settings = config(local_steps=20, nodes=1, lr=0.02)  # three rounds
    fleet = run_by_hand(settings)
    inner = fleet_of(settings)
    outer = torch.from_numpy(inner.x_ND[0].copy()).requires_grad_()
    optimizer = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=True)
    for _ in range(3):
        inner.steps_of(0, 20)
        outer.grad = outer.detach() - torch.from_numpy(inner.x_ND[0])
        optimizer.step()
        inner.x_ND[0] = outer.detach().numpy()
    assert np.allclose(fleet.x_ND[0], outer.detach().numpy(), atol=1e-5)


def test_noloco_s_pulls_bring_models_together_and_leave_their_mean_alone():
    fleet = scattered()
    rule = NoLoCo(fleet, outer_momentum=0.5, outer_lr=0.7, pull=0.7)
    mean_D, before = fleet.x_ND.mean(0), spread(fleet.x_ND)
    for _ in range(40):
        rule.train(1)
    assert np.allclose(fleet.x_ND.mean(0), mean_D, atol=1e-5)
    assert spread(fleet.x_ND) < 1e-3 * before


def test_noloco_s_mean_moves_as_with_momentum_alone():
    fleet = scattered()
    rule = NoLoCo(fleet, outer_momentum=0.5, outer_lr=0.7, pull=0.7)
    start_D = fleet.x_ND.mean(0)
    moved = np.float32(0.1)
    fleet.x_ND += moved  # all nodes' local steps went the same way
    rule.train(1)
    assert np.allclose(fleet.x_ND.mean(0), start_D + 0.7 * moved, atol=1e-5)
    rule.train(1)
    assert np.allclose(fleet.x_ND.mean(0), start_D + 0.7 * moved * (1 + 0.5), atol=1e-5)


# Gossip in lock step.


@pytest.mark.parametrize("graph", ["ring", "star", "complete"])
def test_d_psgd_multiplies_with_the_doubly_stochastic_matrix(graph: str):
    fleet = scattered(graph=graph)
    before = fleet.x_ND.copy()
    DPsgd(fleet).train(1)
    matrix = graphs.parse(graph, 6, 0).mixing_matrix()
    assert np.allclose(fleet.x_ND, matrix @ before, atol=1e-6)
    assert np.allclose(fleet.x_ND.mean(0), before.mean(0), atol=1e-6)
    assert spread(fleet.x_ND) < spread(before)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("nodes", [2, 5, 8])
def test_push_sum_conserves_what_is_pushed_and_finds_the_mean(nodes: int, overlap: bool):
    fleet = scattered(nodes=nodes)
    rule = PushSum(fleet, overlap=overlap)
    total_D = fleet.x_ND.sum(0)
    for _ in range(80):
        rule.train(1)
        assert rule.w_N.sum() + rule.inbox_w_N.sum() == pytest.approx(nodes, rel=1e-12)
        assert np.allclose(fleet.x_ND.sum(0) + rule.inbox_ND.sum(0), total_D, atol=1e-4)
    assert np.allclose(rule.models(), total_D / nodes, atol=1e-4)


def test_push_sum_reaches_the_exact_mean_after_all_offsets_of_a_power_of_two():
    fleet = scattered(nodes=8)
    rule, mean_D = PushSum(fleet, overlap=False), fleet.x_ND.mean(0)
    rule.train(3)
    assert np.allclose(rule.models(), mean_D, atol=1e-6)


def test_overlap_has_weights_under_way():
    rule = PushSum(scattered(), overlap=True)
    rule.train(1)
    assert np.allclose(rule.w_N, 0.5) and np.allclose(rule.inbox_w_N, 0.5)


# Pairs.


def test_an_atomic_average_conserves_the_sum_of_the_models():
    fleet = scattered()
    total_D = fleet.x_ND.sum(0, dtype=np.float64)
    AdPsgd(fleet).average(1, 4, 0.0)
    assert np.array_equal(fleet.x_ND[1], fleet.x_ND[4])
    assert np.allclose(fleet.x_ND.sum(0, dtype=np.float64), total_D, atol=1e-6)


@pytest.mark.parametrize("mixing_of", [AdPsgd, lambda fleet: A2cid2(fleet, 1.0)])
def test_a_step_applies_the_gradient_at_the_model_it_began_with(mixing_of: Any):
    task = SyntheticOptions(dimension=8, noise=0, condition=1)  # the gradient is x - b
    fleet = scattered(task=task, lr=0.1, momentum=0)
    seen_D, now_D = fleet.x_ND[2].copy() + 1, fleet.x_ND[2].copy()
    mixing_of(fleet).step(2, seen_D, 0.0)
    center_D = fleet_center(task, 2)
    assert np.allclose(fleet.x_ND[2], now_D - 0.1 * (seen_D - center_D), atol=1e-6)


def fleet_center(task: SyntheticOptions, node: int) -> np.ndarray:
    return TASKS["synthetic"].make(task, 6, print).centers_ND[node].numpy()


def test_a2cid2_s_mixing_conserves_a_node_s_two_vectors_and_its_averages_each_sum():
    fleet = scattered(graph="ring")
    mixing = A2cid2(fleet, rate=1.0)
    mixing.tilde_ND += np.random.default_rng(2).standard_normal(fleet.x_ND.shape)
    both_ND = fleet.x_ND + mixing.tilde_ND
    models_ND = mixing.models(list(range(6)), 0.05)
    for node in range(6):
        mixing._mix(node, 0.05)
    assert np.allclose(fleet.x_ND + mixing.tilde_ND, both_ND, atol=1e-5)
    assert np.allclose(models_ND, fleet.x_ND, atol=1e-6)  # looking changes nothing
    sums = fleet.x_ND.sum(0), mixing.tilde_ND.sum(0)
    mixing.average(0, 1, 0.05)
    assert np.allclose(fleet.x_ND.sum(0), sums[0], atol=1e-5)
    assert np.allclose(mixing.tilde_ND.sum(0), sums[1], atol=1e-5)


def test_a2cid2_integrates_the_dynamic_of_its_paper():
    fleet = scattered(graph="ring", world=World(step_time_ms=1000))
    mixing = A2cid2(fleet, rate=1.0)
    mixing.tilde_ND *= 3
    x, tilde, small = fleet.x_ND[0].copy(), mixing.tilde_ND[0].copy(), 1e-4
    for _ in range(20_000):
        x, tilde = (
            x + small * mixing.eta * (tilde - x),
            tilde + small * mixing.eta * (x - tilde),
        )
    mixing._mix(0, 2.0)
    assert np.allclose(fleet.x_ND[0], x, atol=1e-3)
    assert np.allclose(mixing.tilde_ND[0], tilde, atol=1e-3)


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_a2cid2_s_constants_of_complete_graphs_and_rings_have_their_closed_forms(rate: float):
    chi_1, chi_2 = chis(graphs.complete(6), rate)
    assert chi_1 == chi_2 == pytest.approx(5 / (6 * rate))
    chi_1, chi_2 = chis(graphs.ring(12), rate)
    assert chi_1 == pytest.approx(1 / (rate * (1 - np.cos(2 * np.pi / 12))))
    assert chi_2 == pytest.approx(11 / (12 * rate))  # Foster: all edges alike


def test_a2cid2_mixes_at_the_paper_s_rate():
    mixing = A2cid2(scattered(nodes=12, graph="ring"), rate=1.0)
    chi_1, chi_2 = 1 / (1 - np.cos(2 * np.pi / 12)), 11 / 12
    assert mixing.eta == pytest.approx(0.5 / np.sqrt(chi_1 * chi_2))
    assert mixing.alpha_tilde == pytest.approx(0.5 * np.sqrt(chi_1 / chi_2))


def test_a2cid2_refuses_a_graph_whose_constants_would_take_too_long():
    too_many = config(algorithm="a2cid2", nodes=3000, graph="ring")
    with pytest.raises(ConfigError, match="3,000 nodes, wanted at most 2,048"):
        check_run(too_many)
    check_run(config(algorithm="a2cid2", nodes=3000, graph="complete"))


@pytest.mark.parametrize("name", ["ad-psgd", "a2cid2"])
def test_asynchronous_averages_bring_all_models_to_their_mean(name: str):
    settings = config(algorithm=name, graph="ring", lr=STILL, world=World(step_jitter=0.5))
    fleet = fleet_of(settings)
    fleet.x_ND[:] = np.random.default_rng(1).standard_normal(fleet.x_ND.shape)
    mean_D, before = fleet.x_ND.mean(0), spread(fleet.x_ND)
    algorithm = MAKERS[name].make(fleet, Ledger(6, None))
    if isinstance(algorithm.mixing, A2cid2):
        algorithm.mixing.tilde_ND[:] = fleet.x_ND
    for _ in algorithm.run():
        pass
    models_ND = algorithm.models()
    assert spread(models_ND) < 0.01 * before
    assert np.allclose(models_ND.mean(0), mean_D, atol=0.02 if name == "a2cid2" else 1e-5)


def spread_after(mixing_of: Callable[[Fleet], A2cid2]) -> float:
    """What is left of the models' spread after some parallel time on a large ring."""
    fleet = scattered(nodes=32, graph="ring", epochs=0.5)
    engine = Pairwise(fleet, Ledger(32, None), mixing_of(fleet))
    for _ in engine.run():
        pass
    return spread(engine.models())


def test_a2cid2_mixes_a_large_ring_faster_than_the_same_averages_alone():
    def plain(fleet: Fleet) -> A2cid2:
        mixing = A2cid2(fleet, rate=2.0)
        mixing.eta = 0.0
        return mixing

    assert spread_after(lambda fleet: A2cid2(fleet, rate=2.0)) < 0.2 * spread_after(plain)
