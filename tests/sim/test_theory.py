"""The claims of docs/theory.md: what the theory says of a swarm, measured in the simulator.

Each random figure comes with a standard error from batch means and must lie within four of them.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import theory_formulas as formulas
from theory_measure import cliff
from theory_runs import (
    INSTANT,
    Mean,
    Run,
    Steady,
    pure_noise,
    rounds,
    setting,
    steady,
    synthetic,
)

from swarmsgd import graphs
from swarmsgd.settings.swarm import BITS

pytestmark = pytest.mark.slow

REGULAR = ["complete", "hypercube", "torus", "random-regular:4", "ring"]


def in_errors(found: Mean, wanted: float) -> float:
    """How many standard errors `found` is off."""
    return abs(found.value - wanted) / found.error


def noisy(nodes: int, bursts: int, warm: int, **changes) -> tuple[Steady, float]:
    """A swarm that sees noise alone, and v, the mean squared norm of a burst."""
    config = setting(nodes, **changes)
    assert config.swarm.local_steps in (4, "geometric:4")
    found = steady(config, pure_noise(config), bursts, warm=warm / bursts)
    return found, formulas.burst_norm_sq(config.optimizer.lr, 4, 256, 1.0)


@pytest.mark.parametrize("name", REGULAR)
def test_an_exchange_on_a_random_edge_takes_the_mean_squared_edge_from_gamma(name: str):
    graph = graphs.parse(name, 16)
    rng = np.random.default_rng(1)
    copies_ND = np.round(1024 * rng.standard_normal((16, 32))).astype(np.float32) / 1024
    measured = formulas.averaged_gamma(graph, copies_ND)
    assert measured == pytest.approx(formulas.averaged_gamma_predicted(graph, copies_ND), rel=1e-14)
    assert measured < formulas.contraction(graph) * formulas.gamma_of(copies_ND) * (1 + 1e-14)


@pytest.mark.parametrize("name", REGULAR)
def test_no_state_loses_less_of_gamma_than_the_fiedler_vector(name: str):
    graph = graphs.parse(name, 16)
    slowest = formulas.fiedler(graph)[:, None].astype(np.float32)
    left = formulas.averaged_gamma(graph, slowest) / formulas.gamma_of(slowest)
    assert left == pytest.approx(formulas.contraction(graph), abs=1e-7)


@pytest.mark.parametrize("nodes", [4, 16])
def test_without_waiting_a_pair_is_twice_a_burst_apart_less_what_the_mean_moved(nodes: int):
    # The initiator's burst has landed. Measured: ||Q_i - Q_j||^2 as both ends of the exchange
    # recorded it; float32 on the wire, exchanges that take no time.
    found, v = noisy(nodes, 900 // nodes + 10, 10)
    assert found.exchanges >= 800
    wanted = 2 * v * (1 - 1 / nodes)
    assert in_errors(found.apart_sq, wanted) < 4
    assert found.apart_sq.error < 0.01 * wanted


def test_that_distance_is_the_same_on_a_ring_and_when_nodes_wait_for_replies():
    ring, v = noisy(8, 130, 30, graph="ring")
    world = replace(INSTANT, latency_ms=0.02)  # 0.1 % of a burst: enough to wait for
    waiting, _ = noisy(8, 100, 10, mode="blocking", world=world)
    for found in (ring, waiting):
        assert in_errors(found.apart_sq, 2 * v * (1 - 1 / 8)) < 4
        assert found.apart_sq.error < 0.02 * found.apart_sq.value


@pytest.mark.parametrize("nodes", [4, 16])
def test_in_a_matching_both_bursts_land_on_a_pair_that_was_closer(nodes: int):
    # Measured: the copies at the end of each round, in the pairs of the next one; then the
    # ||Q_i - Q_j||^2 that the exchanges of these pairs recorded.
    config = setting(nodes, mode="matching", world=replace(INSTANT, step_jitter=0.0))
    v = formulas.burst_norm_sq(config.optimizer.lr, 4, 256, 1.0)
    found = rounds(config, pure_noise(config), 2000 // nodes + 10, warm=10)
    assert found.pairs >= 900
    assert in_errors(found.before, 2 * v * (1 - 2 / nodes)) < 4
    assert in_errors(found.averaged, 4 * v * (1 - 1 / nodes)) < 4
    assert found.before.error < 0.03 * found.before.value


@pytest.mark.parametrize("name", REGULAR)
def test_gamma_in_steady_state_is_as_derived_and_far_below_the_potential_bound(name: str):
    graph = graphs.parse(name, 16)
    found, v = noisy(16, 130, 40, graph=name, local_steps="geometric:4")
    assert in_errors(found.gamma, formulas.steady_gamma(graph, v)) < 4
    assert found.gamma.error < 0.08 * found.gamma.value
    bound = formulas.potential_bound(graph, 0.01, 4, 256.0)
    assert 300 * found.gamma.value < bound


@pytest.mark.parametrize("name", ["complete", "hypercube", "torus", "ring"])
def test_the_closed_form_of_gamma_is_the_fixed_point_on_graphs_whose_edges_are_alike(name: str):
    graph = graphs.parse(name, 16)
    closed = formulas.steady_gamma_closed(graph, 3.0)
    assert formulas.steady_gamma(graph, 3.0) == pytest.approx(closed, rel=1e-8)


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_errors_of_the_code_widen_a_pair_by_twice_their_size(bits: int):
    # An exchange takes half of the true squared distance P from Gamma, and errors of squared norm
    # N give N/2 back: P = 2v(1 - 1/n) + N, and P + N is what the ends record.
    found, v = noisy(16, 60, 10, bits=bits)
    recorded, noise = found.apart_sq, found.noise_sq.value
    assert noise > 0
    assert in_errors(recorded, 2 * v * (1 - 1 / 16) + 2 * noise) < 4
    assert recorded.error < 0.015 * recorded.value
    assert in_errors(found.gamma, formulas.coded_gamma(16, v, noise)) < 4


@pytest.mark.parametrize("bits", BITS)
def test_exchanges_alone_never_move_the_mean_of_the_copies(bits: int | None):
    # No gradient at all, nodes that begin apart, exchanges as long as a burst, so that most
    # overlap.
    world = replace(INSTANT, latency_ms=20.0)
    config = replace(setting(8, noise=0.0, bits=bits, world=world), budget="each")
    config = replace(config, exchanges_per_node=60)
    run = Run(config, pure_noise(config))
    start_ND = np.random.default_rng(2).standard_normal(run.fleet.x_ND.shape, dtype=np.float32)
    run.fleet.x_ND[:] = run.swarm.copy_ND[:] = start_ND
    for _ in run.swarm.run():
        pass
    mixes = sum(node.exchanges for node in run.swarm.nodes)
    before, after = (a.astype(np.float64) for a in (start_ND, run.swarm.copy_ND))
    assert mixes > 300
    assert formulas.gamma_of(after) < 0.01 * formulas.gamma_of(before)
    # Each end rounds once a mix, by at most half a unit in the last place of a value below 8.
    rounding = mixes * 2.0**-22 / 8
    assert np.abs(after.mean(0) - before.mean(0)).max() < rounding


def test_the_mean_of_n_nodes_has_an_nth_of_the_excess_loss():
    # Curvatures from 1/4 to 1 and constant steps: SGD ends in a ball of known size.
    config = setting(8, condition=4.0, lr=0.05)
    task = synthetic(config)
    found = steady(config, task, 200, warm=0.2, batches=10, samples=10)
    one = formulas.sgd_floor(0.05, 1.0, task.curvature_D.double().numpy())
    assert in_errors(found.excess, one / 8) < 4
    assert found.excess.error < 0.04 * found.excess.value


@pytest.mark.parametrize("bits", [8, 4])
def test_a_coordinate_past_its_reach_decodes_wrongly_as_often_as_derived_and_is_caught(bits: int):
    assert cliff(bits, 1.0)["wrong"] == 0
    past = cliff(bits, 1.005)
    share = past["predicted"]
    assert share == pytest.approx({8: 0.6375, 4: 0.0375}[bits])
    assert abs(past["wrong"] - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert past["caught"]
    assert past["variance"] == pytest.approx(1, rel=0.02)  # of s^2/12, 64,000 coordinates
