"""How long the baselines take: formulas on small cases by hand, slow nodes, what goes wrong."""

from typing import Any

import numpy as np
import pytest

from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.sim.baselines.costs import Collective, TransferTimes
from swarmsgd.sim.baselines.d_psgd import DPsgd
from swarmsgd.sim.baselines.noloco import NoLoCo
from swarmsgd.sim.baselines.pairwise import Pairwise
from swarmsgd.sim.baselines.push_sum import PushSum
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.makers import MAKERS
from swarmsgd.sim.command.run import Result, simulate
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import TASKS, SyntheticOptions

ASYNCHRONOUS = ["ad-psgd", "a2cid2"]
LOCK_STEP = [n for n in ALGORITHMS if n not in ("swarm", "sgd", *ASYNCHRONOUS)]
MEGABYTE_S = 8.0
"""In Mbit/s."""
INSTANT: dict[str, Any] = {"bandwidth_mbit_s": float("inf"), "latency_ms": 0.0}


def config(dimension: int = 8, **changes: Any) -> SimConfig:
    settings: dict[str, Any] = {
        "task": SyntheticOptions(dimension=dimension, samples_per_node=40, noise=0.2),
        "nodes": 4,
        "epochs": 1.0,
        "world": World(),
        "evals": 2,
        "score_nodes": 2,
        "lr": 0.02,
        "momentum": 0.0,
    }
    return SimConfig.of(**(settings | changes))


def fleet_of(settings: SimConfig) -> Fleet:
    return Fleet(TASKS[settings.task_name].make(settings.task, settings.nodes, print), settings)


def run(name: str, world: World, **changes: Any) -> Result:
    return simulate(config(algorithm=name, world=world, **changes))


def links(nodes: int = 4, **world: Any) -> TransferTimes:
    return TransferTimes(World(bandwidth_mbit_s=MEGABYTE_S, latency_ms=100, **world), nodes)


# Formulas.


def test_a_ring_sends_twice_all_but_one_share_and_has_a_latency_a_round():
    assert links().allreduce_end(10, 1e6) == pytest.approx(10 + 2 * 3 / 4 * 1.0 + 4 * 0.1)
    assert links(nodes=1).allreduce_end(10, 1e6) == 10


def test_a_ring_is_as_slow_as_its_slowest_link_at_every_moment():
    assert links(slow_links=("2:2",)).allreduce_end(0, 1e6) == pytest.approx(3.0 + 0.4)
    half_way = links(slow_links=("2:2@0.5-1.5",))  # of 1.5 s at full speed, 1 s at half speed
    assert half_way.allreduce_end(0, 1e6) == pytest.approx(2.0 + 0.4)


def test_a_ring_waits_for_the_end_of_a_cut():
    assert links(events=("cut:1-2@1-7",)).allreduce_end(0, 1e6) == pytest.approx(1.5 + 6 + 0.4)
    assert links(events=("cut:0-3@1-7",)).allreduce_end(0, 1e6) == pytest.approx(1.5 + 0.4)


def test_transfers_share_what_both_ends_have_and_wait_for_cuts_between_them():
    net = links(slow_links=("1:4",), events=("cut:3@0-5",))
    sources, targets = np.array([0, 0, 2, 3]), np.array([2, 1, 3, 3])
    ends = net.sent(sources, targets, np.array([0.0, 1, 2, 3]), 1e6, np.array([0.5, 1, 1, 1]))
    assert ends == pytest.approx([2.0, 5.0, 6.0, 4.0])


def test_unlimited_links_take_no_time():
    free = TransferTimes(World(**INSTANT), 4)
    assert free.allreduce_end(3, 1e9) == 3
    ends = free.sent(np.array([0]), np.array([1]), np.array([2.0]), 1e9, np.ones(1))
    assert ends == pytest.approx([2.0])


@pytest.mark.parametrize(("megabytes", "step_s"), [(1, 10), (4, 10 + 6 + 0.4 - 5)])
def test_all_reduce_hides_as_much_as_half_of_the_compute(megabytes: int, step_s: float):
    world = World(bandwidth_mbit_s=MEGABYTE_S, latency_ms=100)
    begin, computed = np.zeros(4), np.array([9.0, 10, 4, 6])
    dim = megabytes * 250_000
    ends = Collective(world, 4, dim, overlap=True).ends(begin, computed)
    assert ends == pytest.approx(np.full(4, step_s))
    plain = Collective(world, 4, dim).ends(begin, computed)
    assert plain == pytest.approx(np.full(4, 10 + 1.5 * megabytes + 0.4))


def by_hand(nodes: int = 4, events: tuple[str, ...] = (), **changes: Any) -> Fleet:
    """A model of one megabyte, which a free link carries in a second."""
    world = World(bandwidth_mbit_s=MEGABYTE_S, latency_ms=100, events=events)
    return fleet_of(config(250_000, nodes=nodes, world=world, **changes))


def test_d_psgd_waits_for_its_neighbours_models_of_this_step():
    rule = DPsgd(by_hand(graph="ring"))  # two models out and two in at once: 2 s, and 0.1
    first = rule.ends(np.zeros(4), np.array([1.0, 1, 5, 1]))
    assert first == pytest.approx([2.1, 2.1, 5, 2.1])
    second = rule.ends(first, first + 1)
    assert second == pytest.approx([4.2, 7.1, 6, 7.1])  # nodes 1 and 3 had to wait for node 2


def test_sgp_waits_for_this_step_s_push_and_overlap_for_the_one_before():
    computed = np.array([1.0, 1, 5, 1])
    rule = PushSum(by_hand(), overlap=False)
    first = rule.ends(np.zeros(4), computed)
    assert first == pytest.approx([2.1, 2.1, 5, 6.1])
    second = rule.ends(first, first + 1)  # from two places before
    assert second == pytest.approx([7.1, 8.2, 6.0, 7.1])
    rule = PushSum(by_hand(), overlap=True)
    assert rule.ends(np.zeros(4), computed) == pytest.approx(computed)
    second = rule.ends(computed, computed + 1)
    assert second == pytest.approx([2.1, 2.1, 6, 6.1])


def test_noloco_waits_for_its_partner_only():
    rule = NoLoCo(by_hand(), 0.5, 0.7, 0.7)
    computed = np.array([1.0, 2, 3, 4])
    ends = rule.ends(np.zeros(4), computed)
    partners = rule.partners(0)
    assert sorted(partners) == [0, 1, 2, 3] and (partners[partners] == np.arange(4)).all()
    assert ends == pytest.approx(np.maximum(computed, computed[partners]) + 2.1)


@pytest.mark.parametrize("name", LOCK_STEP)
def test_traffic_is_counted_in_float32_models(name: str):
    sent = run(name, World(), graph="ring").summary["bytes_a_node"]
    steps, model = 40, 4 * 8
    ring = 2 * 3 / 4 * model
    expected = {
        "allreduce": steps * ring,
        "local-sgd": steps / 4 * ring,
        "diloco": steps / 4 * ring,
        "d-psgd": steps * 2 * model,
        "sgp": steps * model,
        "osgp": steps * model,
        "noloco": steps / 4 * 2 * model,
    }
    # A random matching of a ring of 4 is always perfect.
    assert sent == pytest.approx(expected[name])


# Slow nodes.


@pytest.mark.parametrize("name", LOCK_STEP)
def test_a_straggler_slows_lock_step_algorithms_by_its_factor(name: str):
    even = run(name, World(**INSTANT)).summary
    slow = run(name, World(stragglers=("2:3",), **INSTANT)).summary
    assert even["wall_s"] == pytest.approx(40 * 0.01)
    factor = slow["wall_s"] / even["wall_s"]
    assert factor == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_a_straggler_does_not_slow_the_others_of_asynchronous_algorithms(name: str):
    world = World(stragglers=("2:3",), **INSTANT)
    settings = config(algorithm=name, world=world)
    ledger = Ledger(4, None)
    for _ in MAKERS[name].make(fleet_of(settings), ledger).run():
        pass
    assert ledger.compute_s_N == pytest.approx([0.4, 0.4, 1.2, 0.4])
    assert ledger.blocked_s_N == pytest.approx(np.zeros(4), abs=1e-9)


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_with_a_common_budget_the_fast_nodes_make_more_steps(name: str):
    world = World(stragglers=("2:3",), **INSTANT)
    result = run(name, world, budget="together")
    assert result.fleet.steps == result.fleet.budget == 160
    assert result.fleet.steps_N == pytest.approx([48, 48, 16, 48], abs=1)


# Atomic averages.


class Diary:
    """A `Mixing` that does nothing but write down who was averaged when; one average a step."""

    def __init__(self) -> None:
        self.averages: list[tuple[float, int, int]] = []
        self.steps = 0

    def begins(self, node: int, now: float) -> int:
        return 1

    def step(self, node: int, seen_D: Vector, now: float) -> None:
        self.steps += 1
        self.fleet.steps_N[node] += 1

    def average(self, i: int, j: int, now: float) -> None:
        self.averages.append((now, i, j))

    def models(self, nodes: list[int], now: float) -> Vector:
        return self.fleet.x_ND[nodes]

    def joined(self, node: int, now: float) -> None:
        pass


def test_a_node_takes_part_in_one_average_at_a_time_and_nobody_starves():
    diary = diary_of(5)  # a model takes 1.1 s, a step 10 ms
    assert diary.steps == len(diary.averages) == 5 * 40
    for node in range(5):
        times = np.array([when for when, i, j in diary.averages if node in (i, j)])
        assert np.diff(times).min() > 1.1 - 1e-9
    assert all(0 in (i, j) for _, i, j in diary.averages)


def diary_of(nodes: int, *events: str) -> Diary:
    """What happens on a star whose nodes all want its centre."""
    diary = Diary()
    diary.fleet = by_hand(nodes=nodes, graph="star", events=events)
    for _ in Pairwise(diary.fleet, Ledger(nodes, None), diary).run():
        pass
    return diary


def test_who_waits_for_a_node_that_dies_goes_on_without_it():
    diary = diary_of(4, "kill:0@5")
    assert len(diary.averages) == 4  # at 1.1, 2.2, 3.3 and 4.4 s
    assert diary.fleet.steps_N[1:].tolist() == [40, 40, 40]


def test_an_average_does_not_outlive_one_of_its_ends():
    diary = diary_of(2, "kill:0@1.05", "join:0@1.06")  # on its way from 1.0 to 1.1 s
    assert min(when for when, _, _ in diary.averages) > 2.1


def test_a_step_waits_for_its_average_and_the_wait_counts_as_blocked():
    world = World(bandwidth_mbit_s=MEGABYTE_S, latency_ms=0, step_time_ms=400)
    settings = config(250_000, nodes=2, algorithm="ad-psgd", world=world, epochs=0.05)
    result = simulate(settings)  # two steps each; both ask at once, and the pair has one link
    assert result.summary["wall_s"] == pytest.approx(4.0)
    assert result.summary["compute_s"] == pytest.approx(0.8)
    assert result.summary["exchanges"] == 4
    assert result.summary["bytes_sent"] == 8_000_000
    assert result.summary["blocked_s"] == pytest.approx((0.6 + 1.6 + 1.6 + 1.6) / 2)


# What goes wrong.


@pytest.mark.parametrize("name", LOCK_STEP)
def test_a_killed_node_ends_a_lock_step_run(name: str):
    result = run(name, World(events=("kill:1@0.2",), **INSTANT))
    summary = result.summary
    assert summary["wall_s"] == pytest.approx(0.2)
    assert summary["mean_of"] == [0, 2, 3] and len(result.models_KD) == 3
    assert 0 < summary["samples"] <= 80


@pytest.mark.parametrize("name", LOCK_STEP)
def test_lock_step_algorithms_begin_when_the_last_node_has_joined(name: str):
    summary = run(name, World(events=("join:1@2",), **INSTANT)).summary
    assert summary["wall_s"] == pytest.approx(2.4)
    assert summary["samples"] == 160


def test_sgd_alone_cares_for_its_own_node_only():
    assert run("sgd", World(events=("kill:1@0.2",))).summary["samples"] == 160
    killed = run("sgd", World(events=("kill:0@0.2",))).summary
    assert killed["samples"] == pytest.approx(20, abs=1)


@pytest.mark.parametrize("name", ASYNCHRONOUS)
@pytest.mark.parametrize("latency_ms", [0.0, 3.0])
def test_asynchronous_algorithms_go_on_without_the_dead(name: str, latency_ms: float):
    world = World(events=("kill:1-2@0.205",), latency_ms=latency_ms, step_jitter=0.2)
    result = run(name, world, graph="ring", nodes=5)
    assert result.summary["mean_of"] == [0, 3, 4]
    assert result.fleet.steps_N[[0, 3, 4]].tolist() == [40, 40, 40]
    assert 10 < result.fleet.steps_N[1] < 40


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_a_node_that_joins_takes_a_neighbour_s_model_and_its_place_in_the_schedule(name: str):
    world = World(events=("kill:1@0.1", "join:1@0.2", "join:3@0.1"), step_jitter=0.2)
    result = run(name, world, graph="ring", epochs=2)
    assert result.summary["mean_of"] == [0, 1, 2, 3]
    assert result.fleet.steps_N.tolist() == [80, 80, 80, 80]
    assert result.fleet.steps < 4 * 80  # what they missed nobody made


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_an_average_across_a_cut_is_over_when_the_cut_is(name: str):
    summary = run(name, World(events=("cut:0-1@0.1-3",)), graph="ring").summary
    assert summary["samples"] == 160
    assert 3 < summary["wall_s"] < 4
