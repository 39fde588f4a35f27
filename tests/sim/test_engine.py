"""Swarms in virtual time: who waits for whom, how steps are counted, and torch's own arithmetic."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from still import INSTANT, config, finish, spread, swarm_of

from swarmsgd.errors import ModelError
from swarmsgd.observe.records import read_records
from swarmsgd.settings.swarm import MODES
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import Result, simulate
from swarmsgd.sim.engine.world import World
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.tasks import TASKS, SyntheticOptions, VisionOptions

BUSY = {
    "step_jitter": 0.4,
    "speed_spread": 0.3,
    "latency_ms": 4.0,
    "bandwidth_mbit_s": 0.5,
    "stragglers": ("1:3@0.1-0.4",),
    "slow_links": ("2:4",),
    "events": ("cut:0@0.1-0.3", "kill:4@0.5", "join:5@0.2", "join:4@0.7"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# A function of the config alone.


def same(one: Result, other: Result) -> bool:
    return one.models_KD.tobytes() == other.models_KD.tobytes() and one.curve == other.curve


@pytest.mark.parametrize("mode", MODES)
def test_two_runs_of_one_config_end_with_the_same_bits_and_records(mode: str, tmp_path: Path):
    made = config(BUSY, mode=mode, local_steps="geometric:4")
    runs: list[Result] = []
    for name in "ab":
        (tmp_path / name).mkdir()
        runs.append(simulate(made, folder=tmp_path / name))
    assert same(*runs)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["curve.jsonl", *(f"node-{i}.jsonl" for i in range(6))]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_seed_gives_another_run():
    one, other = (simulate(config(BUSY, seed=seed)) for seed in (0, 1))
    assert not same(one, other)
    assert one.summary["wall_s"] != other.summary["wall_s"]


@pytest.mark.parametrize("budget", ["each", "together"])
@pytest.mark.parametrize("world", [BUSY, {}, {"latency_ms": 1000.0}], ids=["busy", "ties", "far"])
def test_how_often_a_run_is_scored_changes_nothing_of_it(budget: str, world: dict[str, Any]):
    seldom, often = (simulate(config(world, budget=budget, evals=n)) for n in (1, 100))
    assert seldom.models_KD.tobytes() == often.models_KD.tobytes()
    assert seldom.summary["wall_s"] == often.summary["wall_s"]
    assert len(often.curve) > 20


# Who waits for whom.


def test_nobody_ever_waits_in_non_blocking_mode_whatever_happens():
    world = {"latency_ms": 60.0, "bandwidth_mbit_s": 0.05, "slow_links": ("2:10",)}
    world |= {"stragglers": ("3:5",), "events": ("cut:0@0.2-0.6",)}
    swarm, fleet, ledger = swarm_of(world)
    finished_s: dict[int, float] = {}
    for now in swarm.run():
        for node in np.flatnonzero(fleet.steps_N == 80).tolist():
            finished_s.setdefault(node, now)
    swarm.tally()
    assert not ledger.blocked_s_N.any()
    own_s = [80 * 0.01 * (5 if node == 3 else 1) for node in range(6)]
    assert ledger.compute_s_N == pytest.approx(own_s)
    assert [finished_s[node] for node in range(6)] == pytest.approx(own_s)


def test_a_slow_link_makes_bursts_longer_and_exchanges_fewer_and_costs_no_time():
    task = SyntheticOptions(dimension=4096, samples_per_node=200)
    quick, slow = (
        swarm_of({"bandwidth_mbit_s": 4.0, "slow_links": links}, task=task, nodes=4)
        for links in ((), ("0:40",))
    )
    ends = [finish(quick[0]), finish(slow[0])]
    assert ends == pytest.approx([2.0, 2.0])
    # A message is 4 KB: 8 ms at 4 Mbit/s, and 0.33 s over the slow link.
    # Of 50: at times several want the same link. Offers that cross are one exchange.
    assert all(node.endpoint.machine.counts.started >= 40 for node in quick[0].nodes)
    assert 1 <= slow[2].initiated_N[0] <= 5
    assert slow[1].steps_N.tolist() == [200] * 4
    assert slow[2].bytes_sent_N[0] < 0.5 * quick[2].bytes_sent_N[0]


def test_blocking_mode_waits_a_round_trip_for_each_exchange_and_no_longer():
    world = INSTANT | {"latency_ms": 3.0}
    swarm, _, ledger = swarm_of(world, mode="blocking")
    assert finish(swarm) == pytest.approx(80 * 0.01 + 20 * 0.006)
    assert [node.endpoint.machine.counts.started for node in swarm.nodes] == [20] * 6
    assert ledger.blocked_s_N == pytest.approx(20 * 0.006)
    assert ledger.compute_s_N == pytest.approx(0.8)


def test_a_straggler_holds_up_those_that_are_paired_with_it_only_in_matching_mode():
    def ends_s(mode: str) -> list[float]:
        swarm, fleet, _ = swarm_of(INSTANT | {"stragglers": ("0:4",)}, mode=mode)
        found: dict[int, float] = {}
        for now in swarm.run():
            for node in np.flatnonzero(fleet.steps_N == 80).tolist():
                found.setdefault(node, now)
        return [found[node] for node in range(6)]

    for mode in ("non-blocking", "blocking"):
        assert ends_s(mode) == pytest.approx([3.2] + [0.8] * 5)
    assert min(ends_s("matching")) > 2.0


# How steps are counted.


@pytest.mark.parametrize("mode", MODES)
def test_with_a_budget_each_all_make_the_same_number_of_steps(mode: str):
    world = {"step_jitter": 0.3, "stragglers": ("0:4",)}
    result = simulate(config(world, mode=mode, local_steps="geometric:3"))
    assert result.fleet.steps_N.tolist() == [80] * 6
    assert result.summary["samples"] == result.curve[-1]["samples"] == 480
    assert result.summary["steps_of_nodes"] == [80, 80]


@pytest.mark.parametrize("local_steps", [1, 4, 1000])
@pytest.mark.parametrize("mode", ["non-blocking", "blocking"])
def test_with_a_budget_together_the_fast_make_more_and_the_sum_is_exact(
    mode: str, local_steps: int
):
    world = {"step_jitter": 0.1, "stragglers": ("0:4",)}
    result = simulate(config(world, mode=mode, budget="together", local_steps=local_steps))
    steps = result.fleet.steps_N
    assert steps.sum() == 480
    assert steps[0] == pytest.approx(480 / 5.25 / 4, abs=3)
    assert steps[1:].min() > 3 * steps[0]
    assert result.summary["wall_s"] == pytest.approx(480 / 5.25 * 0.01, rel=0.1)


@pytest.mark.parametrize("budget", ["each", "together"])
@pytest.mark.parametrize(
    ("world", "settings"),
    [
        ({}, {}),
        ({}, {"local_steps": 1000}),
        ({"latency_ms": 1e5}, {}),
        ({"bandwidth_mbit_s": 1e-3}, {}),
        ({"step_jitter": 0.5}, {"mode": "blocking", "local_steps": "geometric:7"}),
    ],
)
def test_the_curve_has_a_point_wherever_one_is_due(
    world: dict[str, Any], settings: dict[str, Any], budget: str
):
    curve = simulate(config(world, evals=8, budget=budget, **settings)).curve
    assert len(curve) == 9
    for number, point in enumerate(curve):
        assert abs(point["samples"] - 60 * number) <= 6 * 7
    assert curve[-1]["samples"] == 480


def test_a_run_ends_when_the_last_step_does_however_slow_the_links():
    for world in ({"latency_ms": 1e5}, {"bandwidth_mbit_s": 1e-3}, {"events": ("cut:0@0.1-50",)}):
        result = simulate(config(world))
        assert result.summary["wall_s"] == pytest.approx(0.8)
        assert result.summary["lost_exchanges"] == 0


def test_more_evals_than_steps_score_each_step_once():
    curve = simulate(config(exchanges_per_node=1, evals=1000, local_steps=1)).curve
    samples = [point["samples"] for point in curve]
    assert samples == sorted(set(samples)) and samples[-1] == 6


@pytest.mark.parametrize(("mode", "wanted"), [("non-blocking", 20), ("matching", 20)])
def test_exchanges_per_node_says_in_how_many_a_node_takes_part(mode: str, wanted: int):
    swarm, _, ledger = swarm_of(INSTANT, mode=mode, exchanges_per_node=20.0)
    finish(swarm)
    assert ledger.exchanges_N.sum() == wanted * 6 - 2 * declined(swarm)


def test_geometric_bursts_have_the_mean_that_was_asked_for_and_vary():
    swarm, _, _ = swarm_of(
        INSTANT | {"latency_ms": 0.001}, nodes=2, local_steps="geometric:4", epochs=50
    )
    finish(swarm)
    started = [node.endpoint.machine.counts.started for node in swarm.nodes]
    lengths = [4000 / bursts for bursts in started]
    assert lengths == pytest.approx([4, 4], abs=4 * 3.5 / np.sqrt(1000))
    assert len(set(started)) == 2


def test_in_matching_mode_all_draw_bursts_alike_so_that_rounds_match():
    swarm, _, ledger = swarm_of({"step_jitter": 0.2}, mode="matching", local_steps="geometric:4")
    assert finish(swarm) < 2  # nobody waits in vain for a partner that has fewer rounds
    assert len(set(ledger.exchanges_N.tolist())) == 1


# Alone, and small.


def test_a_node_alone_trains_and_sends_nothing():
    result = simulate(config(nodes=1))
    assert result.summary["exchanges"] == result.summary["bytes_sent"] == 0
    assert result.summary["gamma"] == 0
    assert result.curve[-1]["scores"]["excess"] < 0.1 * result.curve[0]["scores"]["excess"]


SGD = [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01), (0.0, 0.01)]


@pytest.mark.parametrize(("momentum", "weight_decay"), SGD)
@pytest.mark.parametrize(
    "task",
    [
        SyntheticOptions(dimension=33, samples_per_node=60),
        VisionOptions(dataset="digits", model="mlp"),
    ],
    ids=["synthetic", "digits"],
)
def test_virtual_steps_are_torchs_sgd_and_those_by_autograd_to_the_bit(
    task: Any, momentum: float, weight_decay: float
):
    made = SimConfig.of(
        task=task, nodes=1, epochs=1, optimizer="sgd", lr=0.1, momentum=momentum,
        weight_decay=weight_decay, nesterov=False, clip_norm=None, schedule="cosine",
        world=World(), evals=3, score_nodes=0,
    )  # fmt: skip
    result = simulate(made)
    plain = TASKS[made.task_name].make(made.task, 1, print)
    model = plain.make_model(made.seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=made.optimizer.lr, momentum=momentum, weight_decay=weight_decay
    )
    batches, total = plain.batches(0), result.fleet.total_steps
    for step in range(total):
        optimizer.param_groups[0]["lr"] = made.optimizer.rate(step / total)
        optimizer.zero_grad()
        plain.loss(model, next(batches)).backward()
        optimizer.step()
    wanted = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    assert total >= 40
    if made.task_name == "synthetic":  # many nodes matter more there than the last bit
        assert np.allclose(result.models_KD[0], wanted, rtol=1e-5, atol=1e-6)
    else:
        assert np.array_equal(result.models_KD[0], wanted)


# Coming and going.


def test_neighbours_of_a_node_that_dies_go_on_without_it():
    result = simulate(config({"events": ("kill:2@0.405",)}, evals=8))
    lives = [point["live"] for point in result.curve]
    assert lives[0] == 6 and lives[-1] == 5 and lives == sorted(lives, reverse=True)
    exchanges = [point["exchanges"] for point in result.curve]
    assert exchanges[-1] > exchanges[4] + 30
    assert result.summary["mean_of"] == [0, 1, 3, 4, 5]
    assert result.fleet.steps_N.tolist() == [80, 80, 40, 80, 80, 80]


def test_a_late_node_begins_with_a_neighbours_model_and_takes_its_place():
    swarm, fleet, ledger = swarm_of({"events": ("join:3@0.305",)}, graph="ring")
    assert swarm.live() == [0, 1, 2, 4, 5]
    own, run = fleet.x_ND[3].copy(), swarm.run()
    for _ in run:
        if swarm.nodes[3].alive:
            break
        assert np.array_equal(fleet.x_ND[3], own)
    assert swarm._agenda.now > 0.305 + 2 * 0.0001  # a latency there and one back
    assert np.array_equal(fleet.x_ND[3], swarm.copy_ND[4])  # what node 4 exchanges now
    assert np.array_equal(swarm.copy_ND[3], fleet.x_ND[3])
    assert fleet.steps_N[3] == fleet.steps_N[4] == 30
    assert swarm.nodes[3].endpoint.machine.incarnation == 1
    for _ in run:
        pass
    swarm.tally()
    assert fleet.steps_N.tolist() == [80] * 6
    assert ledger.initiated_N[3] == 12  # of 50 steps
    assert ledger.exchanges_N[3] > 15
    assert spread(fleet.x_ND) < 1


@pytest.mark.parametrize("gap_s", [1e-6, 0.2])
def test_a_node_that_comes_back_is_trusted_and_its_earlier_figures_are_kept(gap_s: float):
    world = {"latency_ms": 5.0, "events": ("kill:1@0.403", f"join:1@{0.403 + gap_s}")}
    swarm, _, ledger = swarm_of(world)
    seen: list[int] = []
    for _ in swarm.run():
        swarm.tally()
        seen.append(int(ledger.exchanges_N[1]))
    assert seen == sorted(seen)
    assert seen[-1] > 15
    assert all(node.endpoint.traffic.distrusted == 0 for node in swarm.nodes)
    assert all(node.endpoint.machine.membership.gone == frozenset() for node in swarm.nodes)
    assert ledger.compute_s_N[1] == pytest.approx(0.8 - gap_s, abs=0.02)


def test_nobody_that_could_help_a_node_in_is_no_obstacle():
    world = {"events": ("kill:0@0.2", "kill:2@0.2", "join:1@0.4")}  # both neighbours are dead
    swarm, fleet, ledger = swarm_of(world, nodes=4, graph="ring")
    own = fleet.x_ND[1].copy()
    finish(swarm)
    assert np.array_equal(fleet.x_ND[1], own)
    assert ledger.exchanges_N[1] == 0 and fleet.steps_N[1] == 80


def test_a_run_that_is_over_is_not_disturbed_by_what_would_happen_later():
    world = {"latency_ms": 500.0, "events": ("kill:1@0.9", "join:2@1.0")}
    result = simulate(config(world))
    assert result.summary["mean_of"] == [0, 1, 3, 4, 5]
    assert result.summary["wall_s"] == pytest.approx(0.8)


# Big.


def declined(swarm: SwarmEngine) -> int:
    """Offers declined because they crossed another, whose exchange stands for both."""
    return sum(node.endpoint.machine.counts.refused for node in swarm.nodes)


@pytest.mark.parametrize("algorithm", ["d-psgd", "sgp", "ad-psgd"])
def test_what_baselines_exchange_is_counted_and_what_happens_has_its_time(
    algorithm: str, tmp_path: Path
):
    world = {"latency_ms": 1, "events": ("kill:1@0.125",)}
    simulate(config(world, nodes=3, algorithm=algorithm), folder=tmp_path)
    (killed,) = (r for r in read_records(tmp_path / "node-1.jsonl") if r.get("what") == "killed")
    assert killed["t"] == 0.125
    *_, last = read_records(tmp_path / "curve.jsonl")
    assert last["exchanges"] > 0


def test_a_run_that_ends_before_its_first_step_has_no_time_of_a_step():
    made = config({"events": ("kill:1@0.001",)}, nodes=3, algorithm="allreduce")
    assert simulate(made).summary["step_ms"] is None


def test_a_run_that_diverges_breaks_off_its_curve(tmp_path: Path):
    with pytest.raises(ModelError, match="diverged"):
        simulate(config(nodes=2, lr=1e30), folder=tmp_path)
    assert [r["loss"] is None for r in read_records(tmp_path / "curve.jsonl", "curve")][-1]


def test_done_nodes_tell_nobody_where_nobody_waits_for_them():
    swarm, _, ledger = swarm_of(INSTANT, nodes=300, exchanges_per_node=4.0)
    finish(swarm)
    messages = sum(node.endpoint.traffic.messages_sent for node in swarm.nodes)
    assert messages == 2 * 600  # an offer and its reply for each burst
    assert ledger.initiated_N.sum() + declined(swarm) == 600


def test_a_node_keeps_one_watch_for_its_patience():
    swarm, _, _ = swarm_of({"latency_ms": 1.0}, epochs=10)
    longest = 0
    for _ in swarm.run():
        longest = max(longest, len(swarm._agenda._heap))
    assert longest < 6 * 8


@pytest.mark.slow
def test_batch_norm_is_each_nodes_own():
    task = VisionOptions(dataset="digits", model="resnet20")
    result = simulate(config(task=task, optimizer="sgd", nodes=3, epochs=0.5))
    buffers = result.fleet.buffers_NB
    assert buffers.shape[1] > 1000 and np.isfinite(buffers).all()
    assert not np.array_equal(buffers[0], buffers[1])
    assert result.summary["mean_accuracy"] > 0.15
    names = result.state_dict()
    assert any(name.endswith("running_mean") for name in names)


def test_bfloat16_is_what_a_step_computes_in_and_not_what_it_keeps():
    models = []
    for precision in ("float32", "bfloat16"):
        config = SimConfig.of(task="digits", model="mlp", nodes=2, epochs=0.2, precision=precision)
        result = simulate(config)
        assert result.summary["precision"] == precision
        assert (", bfloat16" in config.title()) == (precision == "bfloat16")
        models.append(result.mean_D)
    exact, rounded = models
    assert rounded.dtype == np.float32
    moved = np.linalg.norm(rounded - exact)
    assert 0 < moved < 0.1 * np.linalg.norm(exact)
