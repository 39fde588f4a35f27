"""lambda_2 and the spectral gap are those of the dense matrices, however they are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from sample_graphs import any_graph, every_graph

from swarmsgd import graphs
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph


def laplacian(graph: Graph) -> np.ndarray:
    matrix = np.zeros((graph.num_nodes, graph.num_nodes))
    for i, j in graph.edges:
        matrix[i, j] = matrix[j, i] = -1
    return matrix - np.diag(matrix.sum(axis=1))


@every_graph
def test_lambda_2_and_spectral_gap_are_those_of_the_dense_matrices(graph: Graph) -> None:
    if graph.num_nodes == 1:
        assert graph.lambda_2 == math.inf
        assert graph.spectral_gap == 1
        return
    values = np.linalg.eigvalsh(laplacian(graph))
    assert graph.laplacian_ends == pytest.approx((values[1], values[-1]), abs=1e-12)
    sizes = np.sort(np.abs(np.linalg.eigvalsh(graph.mixing_matrix())))
    assert graph.spectral_gap == pytest.approx(1 - sizes[-2], abs=1e-12)


@pytest.mark.parametrize("n", [3, 8, 50, 1000])
def test_lambda_2_is_the_closed_form_of_the_literature(n: int) -> None:
    assert graphs.complete(n).lambda_2 == n
    assert graphs.ring(n).lambda_2 == pytest.approx(2 - 2 * math.cos(2 * math.pi / n), rel=1e-9)
    assert graphs.star(n).lambda_2 == 1
    assert graphs.hypercube(1 << n.bit_length()).lambda_2 == 2
    longest = graphs.torus(3, n).lambda_2
    assert longest == pytest.approx(2 - 2 * math.cos(2 * math.pi / n), rel=1e-9)


@every_graph
def test_the_mixing_matrix_is_symmetric_and_doubly_stochastic_on_the_graph(graph: Graph) -> None:
    w = graph.mixing_matrix()
    assert np.array_equal(w, w.T)
    assert w.min() >= 0
    assert np.diag(w).min() > 0
    np.testing.assert_allclose(w.sum(axis=0), 1, atol=1e-12)
    off = {(int(i), int(j)) for i, j in np.argwhere(np.triu(w, 1) > 0)}
    assert off == set(graph.edges)
    for i, j in graph.edges:
        assert w[i, j] == pytest.approx(1 / (1 + max(graph.degree(i), graph.degree(j))))


@given(any_graph())
@settings(max_examples=40, deadline=None)
def test_any_connected_edge_list_is_a_graph_with_sound_spectra(graph: Graph) -> None:
    if graph.num_nodes > 1:
        assert graph.lambda_2 == pytest.approx(np.linalg.eigvalsh(laplacian(graph))[1], abs=1e-9)
        assert 0 < graph.spectral_gap <= 1
    w = graph.mixing_matrix()
    np.testing.assert_allclose(w.sum(axis=1), 1, atol=1e-12)
    assert graph == graphs.from_edges(graph.num_nodes, [(j, i) for i, j in graph.edges] * 2)


def test_eigenvalues_of_a_large_graph_without_a_closed_form_are_refused_not_guessed() -> None:
    path = graphs.from_edges(2000, [(i, i + 1) for i in range(1999)])
    with pytest.raises(
        ConfigError, match=r"from_edges\(2000\) .* 2,000 nodes, wanted at most 1,024"
    ):
        _ = path.lambda_2
    with pytest.raises(ConfigError, match="take a ring"):
        _ = path.spectral_gap
    assert "lambda_2" not in str(path)
