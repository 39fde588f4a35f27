"""A graph is a value whose views of itself, and draws from itself, agree."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sample_graphs import every_graph

from swarmsgd import graphs
from swarmsgd.graphs import Graph


@every_graph
def test_edges_neighbours_and_degrees_tell_the_same_story(graph: Graph) -> None:
    assert list(graph.edges) == sorted(set(graph.edges))
    assert all(0 <= i < j < graph.num_nodes for i, j in graph.edges)
    assert graph.num_edges == len(graph.edges) == len(graph.edge_array)
    beside = {node: set[int]() for node in range(graph.num_nodes)}
    for i, j in graph.edges:
        beside[i].add(j)
        beside[j].add(i)
    for node in range(graph.num_nodes):
        assert graph.neighbours(node) == tuple(sorted(beside[node]))
        assert graph.degree(node) == graph.degrees[node] == len(beside[node])


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (graphs.ring(8), "<Graph ring(8): 8 nodes, 8 edges, degree 2, lambda_2 0.5858>"),
        (graphs.star(4), "<Graph star(4): 4 nodes, 3 edges, degree 1 to 3, lambda_2 1>"),
        (graphs.complete(1), "<Graph complete(1): 1 node, 0 edges, degree 0>"),
        (
            graphs.complete(10_000),
            "<Graph complete(10000): 10,000 nodes, 49,995,000 edges, degree 9999, lambda_2 10,000>",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Graph) else "",
)
def test_a_graph_prints_itself_on_one_line(graph: Graph, text: str) -> None:
    assert repr(graph) == text
    assert str(graph) == text.removeprefix("<Graph ").removesuffix(">")


def test_equality_and_hash_are_by_structure_whatever_the_name() -> None:
    same = [graphs.ring(4), graphs.torus(2, 2), graphs.hypercube(4), graphs.torus(1, 4)]
    as_listed = [graphs.from_edges(4, [(0, 1), (1, 2), (2, 3), (3, 0)]), graphs.ring(4)]
    assert same[0] == same[3] == as_listed[0]
    assert len({same[0], same[3], *as_listed}) == 1
    assert same[1] == same[2] != same[0]  # a square too, but numbered otherwise
    assert graphs.complete(3) == graphs.ring(3) == graphs.from_edges(3, [(2, 1), (0, 2), (1, 0)])
    assert graphs.complete(4) != graphs.complete(5)
    assert graphs.exponential(8) != graphs.one_peer_exponential(8)
    assert graphs.ring(4) != "ring(4)"


@every_graph
def test_a_graph_travels_between_processes(graph: Graph) -> None:
    assert pickle.loads(pickle.dumps(graph)) == graph


def test_a_graph_cannot_be_changed() -> None:
    graph = graphs.ring(5)
    with pytest.raises(AttributeError):
        graph.num_nodes = 6  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="read-only"):
        graph.edge_array[0, 0] = 3
    with pytest.raises(ValueError, match="read-only"):
        graph.degrees[0] = 3


@every_graph
def test_random_edges_are_uniform_over_the_edges(graph: Graph) -> None:
    if graph.num_nodes == 1:
        return
    rng = np.random.default_rng(7)
    draws = 40 * graph.num_edges
    counts = Counter(graph.random_edge(rng) for _ in range(draws))
    assert set(counts) <= set(graph.edges)
    chi_squared = sum((counts[edge] - 40) ** 2 / 40 for edge in graph.edges)
    freedom = graph.num_edges - 1
    assert chi_squared <= freedom + 5 * math.sqrt(2 * freedom) + 1e-9


@pytest.mark.parametrize("graph", [graphs.complete(6), graphs.star(6), graphs.torus(3, 3)])
def test_random_neighbours_are_uniform_over_the_neighbours(graph: Graph) -> None:
    rng = np.random.default_rng(3)
    for node in range(graph.num_nodes):
        counts = Counter(graph.random_neighbour(node, rng) for _ in range(100 * graph.degree(node)))
        assert set(counts) == set(graph.neighbours(node))
        assert all(abs(count - 100) < 50 for count in counts.values())


def test_big_graphs_stay_light() -> None:
    rng = np.random.default_rng(0)
    everyone = graphs.complete(10_000)
    assert everyone.degree(3) == 9_999
    assert len(everyone.random_matching(rng)) == 5_000
    i, j = everyone.random_edge(rng)
    assert 0 <= i < j < 10_000
    assert everyone.random_neighbour(3, rng) != 3
    assert not {"edges", "_adjacency"} & everyone.__dict__.keys()
    circle = graphs.ring(100_000)
    assert circle.neighbours(0) == (1, 99_999)
    assert circle.lambda_2 == pytest.approx((2 * math.pi / 100_000) ** 2, rel=1e-6)
    assert circle.spectral_gap == pytest.approx(circle.lambda_2 / 3, rel=1e-6)
    assert len(circle.random_matching(rng)) > 33_333


def test_networkx_is_imported_only_by_the_builders_that_use_it() -> None:
    code = (
        "import sys; from swarmsgd import graphs; graphs.parse('ring', 8).lambda_2;"
        "sys.exit('networkx' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
