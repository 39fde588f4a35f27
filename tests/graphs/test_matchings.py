"""A matching is disjoint, maximal, fair, and the same on every machine."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_graphs import any_graph, every_graph

from swarmsgd import graphs
from swarmsgd.graphs import Graph


def check_is_maximal_matching(graph: Graph, matching: tuple[tuple[int, int], ...]) -> None:
    taken = [node for edge in matching for node in edge]
    assert len(taken) == len(set(taken)), "edges share a node"
    assert set(matching) <= set(graph.edges)
    assert all(i in taken or j in taken for i, j in graph.edges), "an edge could be added"


@given(any_graph(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_random_matching_is_disjoint_and_maximal(graph: Graph, seed: int) -> None:
    check_is_maximal_matching(graph, graph.random_matching(np.random.default_rng(seed)))


@pytest.mark.parametrize("n", range(1, 10))
def test_a_matching_of_a_complete_graph_leaves_out_one_node_at_most(n: int) -> None:
    graph = graphs.complete(n)
    for seed in range(20):
        matching = graph.random_matching(np.random.default_rng(seed))
        check_is_maximal_matching(graph, matching)
        assert len(matching) == n // 2


@pytest.mark.parametrize("graph", [graphs.complete(6), graphs.ring(6), graphs.hypercube(8)])
def test_edges_of_an_edge_transitive_graph_are_matched_equally_often(graph: Graph) -> None:
    rng, rounds = np.random.default_rng(0), 1500
    counts = Counter(edge for _ in range(rounds) for edge in graph.random_matching(rng))
    mean = sum(counts.values()) / graph.num_edges
    assert all(abs(counts[edge] - mean) < 5 * math.sqrt(mean) for edge in graph.edges)


@every_graph
def test_the_matching_of_a_round_depends_on_graph_seed_and_round_alone(graph: Graph) -> None:
    def rounds(seed: int) -> list[tuple[tuple[int, int], ...]]:
        return [graphs.matching_schedule(graph, seed, round) for round in range(12)]

    forward = rounds(3)
    backward = [graphs.matching_schedule(graph, 3, round) for round in reversed(range(12))]
    assert forward == backward[::-1]
    for matching in forward:
        check_is_maximal_matching(graph, matching)
    if graph.num_edges > 3 and graph.rounds is None:
        assert len(set(forward)) > 1
        assert forward != rounds(4)


def test_the_matching_of_a_round_is_the_same_in_another_process() -> None:
    code = (
        "from swarmsgd.graphs import *;"
        "print(matching_schedule(random_regular(20, 3, 1), 5, 9), erdos_renyi(12, 0.4, 2).edges)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    here = graphs.matching_schedule(graphs.random_regular(20, 3, 1), 5, 9)
    assert printed.strip() == f"{here} {graphs.erdos_renyi(12, 0.4, 2).edges}"


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_one_pass_of_one_peer_exponential_rounds_averages_all_nodes(n: int) -> None:
    graph = graphs.one_peer_exponential(n)
    length = n.bit_length() - 1
    met = set[tuple[int, int]]()
    for start in (0, length, 2 * length):
        x = np.random.default_rng(start).standard_normal(n)
        mean = x.mean()
        for round in range(start, start + length):
            matching = graphs.matching_schedule(graph, 0, round)
            assert len(matching) == n // 2
            met |= set(matching)
            for i, j in matching:
                x[i] = x[j] = (x[i] + x[j]) / 2
        np.testing.assert_allclose(x, mean, atol=1e-12)
    assert met == set(graph.edges) == set(graphs.exponential(n).edges)
