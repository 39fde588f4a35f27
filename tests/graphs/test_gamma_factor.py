"""What the distances of neighbours say of the disagreement of all."""

import numpy as np
import pytest

from swarmsgd import graphs
from swarmsgd.graphs.changing import Cycles


def test_uniform_pairs_show_two_gamma_over_n_minus_1():
    rng = np.random.default_rng(0)
    models_ND = rng.normal(size=(12, 40))
    gamma = np.square(models_ND - models_ND.mean(axis=0)).sum()
    pairs = [(i, j) for i in range(12) for j in range(i)]
    mean_sq = np.mean([np.square(models_ND[i] - models_ND[j]).sum() for i, j in pairs])
    assert graphs.gamma_of(graphs.complete(12), mean_sq, 1) == pytest.approx(gamma)


def test_the_formula_for_any_graph_agrees_with_the_one_for_all_pairs():
    pairs = [(i, j) for i in range(9) for j in range(i)]
    assert graphs.from_edges(9, pairs).gamma_factor == pytest.approx(4.0)


def test_a_ring_has_its_closed_form():
    # The mean of 1 / eigenvalue over a cycle: sum_k 1 / (2 - 2 cos) = (n^2 - 1) / 12
    for n in (5, 16, 64):
        assert graphs.ring(n).gamma_factor == pytest.approx(n * (n + 1) / 24 + (n - 1) / 4)


@pytest.mark.parametrize("graph", [graphs.ring(16), graphs.torus(4, 4), graphs.star(6)])
def test_noise_and_averaging_settle_at_the_factor(graph: graphs.Graph):
    rng = np.random.default_rng(1)
    n, dim = graph.num_nodes, 200
    x_ND = np.zeros((n, dim))
    gammas, distances = [], []
    for step in range(60 * n * n):
        x_ND[rng.integers(n)] += rng.normal(size=dim) * 0.05
        i = int(rng.integers(n))
        j = graph.random_neighbour(i, rng)
        if step > 20 * n * n:
            gammas.append(np.square(x_ND - x_ND.mean(axis=0)).sum())
            distances.append(np.square(x_ND[i] - x_ND[j]).sum())
        x_ND[i] = x_ND[j] = (x_ND[i] + x_ND[j]) / 2
    estimate = graphs.gamma_of(graph, float(np.mean(distances)), 1)
    assert estimate == pytest.approx(np.mean(gammas), rel=0.15)


def test_where_it_is_not_known_it_says_so():
    assert graphs.gamma_of(graphs.ring(2000), 1.0, 5) is None
    assert graphs.gamma_of(graphs.complete(2000), 1.0, 5) == 999.5
    assert graphs.gamma_of(graphs.ring(8), 0.0, 0) is None


@pytest.mark.parametrize(("degree", "close"), [(2, 1e-9), (4, 0.1), (8, 0.05)])
def test_a_graph_whose_nodes_come_and_go_has_the_factor_of_one_like_it(degree: int, close: float):
    n = 200
    live = graphs.LiveGraph(f"cycles:{degree}", seed=0, node=0)
    live.neighbours(range(n))
    cycles = Cycles(degree, seed=0)
    for node in range(n):
        cycles.add(node)
    pairs = {(min(i, j), max(i, j)) for i in range(n) for j in cycles.neighbours(i)}
    fixed = graphs.from_edges(n, sorted(pairs))
    assert live.gamma_factor == pytest.approx(fixed.gamma_factor, rel=close)


def test_few_live_nodes_are_all_neighbours():
    for name in ("complete", "cycles:8"):
        live = graphs.LiveGraph(name, seed=0, node=3)
        live.neighbours([1, 2, 3, 7])
        assert live.gamma_factor == 1.5
