"""Each builder makes the graph it is named for, from arguments or from text."""

from __future__ import annotations

import math
import re

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd import graphs
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph


def test_builders_have_the_degrees_of_their_kind() -> None:
    for n in range(3, 20):
        assert set(graphs.ring(n).degrees) == {2}
        assert sorted(graphs.star(n).degrees) == [1] * (n - 1) + [n - 1]
    assert set(graphs.torus(4, 5).degrees) == {4}
    assert set(graphs.torus(2, 5).degrees) == {3}
    assert set(graphs.hypercube(32).degrees) == {5}
    assert graphs.exponential(16).neighbours(0) == (1, 2, 4, 8, 12, 14, 15)
    assert graphs.torus(3, 4).neighbours(5) == (1, 4, 6, 9)


@given(st.integers(2, 24), st.integers(1, 23), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_random_regular_graphs_are_regular_or_refused(n: int, degree: int, seed: int) -> None:
    possible = degree < n and n * degree % 2 == 0 and (degree > 1 or n == 2)
    if possible:
        graph = graphs.random_regular(n, degree, seed)
        assert set(graph.degrees) == {degree}
        assert graph == graphs.random_regular(n, degree, seed)
    else:
        with pytest.raises(ConfigError, match=f"no connected graph of {n} nodes has degree"):
            graphs.random_regular(n, degree, seed)


def test_other_seeds_give_other_random_graphs() -> None:
    assert len({graphs.random_regular(20, 3, seed) for seed in range(10)}) == 10
    assert len({graphs.erdos_renyi(20, 0.3, seed) for seed in range(10)}) == 10


def test_erdos_renyi_has_about_the_edges_asked_for_and_is_redrawn_until_connected() -> None:
    graph = graphs.erdos_renyi(200, 0.2, seed=0)
    expected = 0.2 * 200 * 199 / 2
    assert abs(graph.num_edges - expected) < 5 * math.sqrt(expected)
    for seed in range(10):  # at this p about one draw in five is connected
        graphs.erdos_renyi(12, 0.2, seed)
    assert graphs.erdos_renyi(6, 1.0, seed=0) == graphs.complete(6)


def test_a_networkx_graph_keeps_its_shape_under_sorted_names() -> None:
    graph = graphs.from_networkx(nx.Graph([("c", "a"), ("a", "b"), ("d", "c")]))
    assert graph.edges == ((0, 1), (0, 2), (2, 3))
    assert graph.name == "from_networkx(4)"
    assert graphs.from_networkx(nx.MultiGraph([(0, 1), (0, 1), (1, 2)])).num_edges == 2
    assert graphs.from_networkx(nx.petersen_graph()).lambda_2 == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "n", "graph"),
    [
        ("complete", 5, graphs.complete(5)),
        ("ring", 6, graphs.ring(6)),
        ("torus", 12, graphs.torus(3, 4)),
        ("torus", 7, graphs.torus(1, 7)),
        ("torus:2x6", 12, graphs.torus(2, 6)),
        ("hypercube", 8, graphs.hypercube(8)),
        ("exponential", 9, graphs.exponential(9)),
        ("one-peer-exponential", 8, graphs.one_peer_exponential(8)),
        ("random-regular:4", 10, graphs.random_regular(10, 4, seed=3)),
        (" Random_Regular:4", 10, graphs.random_regular(10, 4, seed=3)),
        ("erdos-renyi:0.5", 10, graphs.erdos_renyi(10, 0.5, seed=3)),
        ("star", 5, graphs.star(5)),
    ],
)
def test_text_names_the_graph_its_builder_makes(text: str, n: int, graph: Graph) -> None:
    assert graphs.parse(text, n, seed=3) == graph


def test_the_table_names_every_kind_with_a_line_of_help() -> None:
    for name, kind in graphs.GRAPHS.items():
        assert kind.usage.startswith(name)
        assert len(kind.help) > 10
        spelled = re.sub(r"\[.*\]", "", kind.usage).replace("DEGREE", "4").replace("P", "0.5")
        assert graphs.parse(spelled, 16).num_nodes == 16
