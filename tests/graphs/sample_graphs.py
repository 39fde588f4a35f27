"""Graphs to test on: one of each kind and size of interest, and random ones."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from swarmsgd import graphs
from swarmsgd.graphs import Graph

BUILT = [
    graphs.complete(1),
    graphs.complete(2),
    graphs.complete(7),
    graphs.complete(8),
    graphs.ring(3),
    graphs.ring(4),
    graphs.ring(9),
    graphs.torus(1, 5),
    graphs.torus(2, 2),
    graphs.torus(2, 5),
    graphs.torus(4, 6),
    graphs.torus(3, 3),
    graphs.hypercube(2),
    graphs.hypercube(16),
    graphs.exponential(2),
    graphs.exponential(6),
    graphs.exponential(13),
    graphs.exponential(16),
    graphs.one_peer_exponential(16),
    graphs.star(3),
    graphs.star(9),
    graphs.random_regular(12, 3, seed=5),
    graphs.random_regular(9, 6, seed=5),
    graphs.erdos_renyi(15, 0.3, seed=1),
    graphs.from_edges(5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 2)]),
]
every_graph = pytest.mark.parametrize("graph", BUILT, ids=lambda graph: graph.name)


@st.composite
def any_graph(draw: st.DrawFn) -> Graph:
    """A random tree with random further edges, under random numbers."""
    n = draw(st.integers(1, 12))
    tree = [(draw(st.integers(0, node - 1)), node) for node in range(1, n)]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    more = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    number = draw(st.permutations(range(n)))
    return graphs.from_edges(n, [(number[i], number[j]) for i, j in tree + more])
