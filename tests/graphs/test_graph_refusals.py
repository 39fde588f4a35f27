"""What cannot be used is refused, in a text that says what to do instead."""

from __future__ import annotations

import math
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest

from swarmsgd import graphs
from swarmsgd.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: graphs.complete(0),
            "the number of nodes is 0, wanted a whole number of at least 1; give one node per "
            "process, for example complete(8)",
        ),
        (lambda: graphs.complete(-3), "is -3, wanted a whole number of at least 1"),
        (lambda: graphs.complete(2.5), "is 2.5, wanted a whole number"),  # pyright: ignore
        (lambda: graphs.complete(True), "is True, wanted a whole number"),
        (
            lambda: graphs.ring(2),
            "nodes of a ring is 2, wanted a whole number of at least 3; below that use a complete",
        ),
        (lambda: graphs.torus(0, 4), "rows of a torus is 0, wanted a whole number of at least 1;"),
        (
            lambda: graphs.hypercube(12),
            "nodes of a hypercube is 12, wanted a power of two; take 8 or 16, or an exponential",
        ),
        (lambda: graphs.one_peer_exponential(6), "is 6, wanted a power of two; take 4 or 8"),
        (lambda: graphs.one_peer_exponential(1), "is 1, wanted a whole number of at least 2"),
        (
            lambda: graphs.random_regular(5, 3, 0),
            "no connected graph of 5 nodes has degree 3, wanted 2 to 4 with nodes x degree even; "
            "take another degree, or a complete",
        ),
        (lambda: graphs.random_regular(8, 3, -1), "the seed is -1, wanted a whole number of at"),
        (
            lambda: graphs.erdos_renyi(10, 1.5, 0),
            "the edge probability is 1.5, wanted above 0 and at most 1; nearly every draw of 10",
        ),
        (lambda: graphs.erdos_renyi(10, math.nan, 0), "the edge probability is nan, wanted"),
        (
            lambda: graphs.erdos_renyi(60, 0.01, 0),
            "erdos-renyi(60, p=0.01, seed=0): none of 100 draws is connected, wanted one; raise p "
            "to about 0.14 (2 ln n / n)",
        ),
        (
            lambda: graphs.from_edges(5, [(0, 1), (2, 3), (3, 4)]),
            "from_edges(5) has 2 components, wanted 1: node 2 cannot be reached from node 0, so "
            "their models would never mix; add edges between the components",
        ),
        (lambda: graphs.from_edges(3, []), "has 3 components, wanted 1: node 1 cannot be reached"),
        (
            lambda: graphs.from_edges(3, [(0, 1), (2, 2)]),
            "edge (2, 2) cannot be used, wanted two nodes of 0 to 2; drop it, no node exchanges",
        ),
        (
            lambda: graphs.from_edges(3, [(0, 3)]),
            "edge (0, 3) cannot be used, wanted two nodes of 0 to 2; renumber the nodes",
        ),
        (
            lambda: graphs.from_edges(3, [(0, 1, 2.5)]),  # pyright: ignore
            "edge (0, 1, 2.5) cannot be used, wanted two nodes of 0 to 2; give pairs (i, j) of "
            "whole numbers, without weights or labels",
        ),
        (lambda: graphs.from_edges(3, [(0, 1.5)]), "edge (0, 1.5) cannot be"),  # pyright: ignore
        (lambda: graphs.from_edges(3, [("a", "b")]), "edge ('a', 'b') cannot"),  # pyright: ignore
        (lambda: graphs.from_edges(3, [7]), "edge 7 cannot be used, wanted two"),  # pyright: ignore
        (
            lambda: graphs.from_networkx(nx.DiGraph([(0, 1)])),
            "got a DiGraph, wanted an undirected networkx graph, since both ends of an edge "
            "exchange; call its to_undirected() first",
        ),
        (lambda: graphs.from_networkx([(0, 1)]), "got a list, wanted"),  # pyright: ignore
        (lambda: graphs.from_networkx(nx.Graph([(0, "a")])), "do not sort ('<' not supported"),
        (
            lambda: graphs.ring(4).neighbours(4),
            "there is no node 4 in ring(4), wanted one of 0 to 3; use one of these or build a",
        ),
        (lambda: graphs.ring(4).degree(-1), "there is no node -1 in ring(4)"),
        (
            lambda: graphs.complete(1).random_edge(np.random.default_rng(0)),
            "complete(1) has 1 node, wanted at least 2 to draw an edge; build a larger graph or",
        ),
        (
            lambda: graphs.complete(1).random_neighbour(0, np.random.default_rng(0)),
            "complete(1) has 1 node, wanted at least 2",
        ),
        (lambda: graphs.matching_schedule(graphs.ring(4), 0, -1), "the round is -1, wanted a"),
        (lambda: graphs.matching_schedule(graphs.ring(4), -2, 0), "the seed is -2, wanted a"),
        (
            lambda: graphs.parse("rng", 8),
            "graph is 'rng', wanted one of complete, ring, torus[:ROWSxCOLS], hypercube, "
            "exponential, one-peer-exponential, random-regular:DEGREE, erdos-renyi:P, "
            'cycles:DEGREE, star; did you mean "ring"?',
        ),
        (
            lambda: graphs.parse("random-regular", 8),
            "the graph 'random-regular' cannot be read, wanted random-regular:DEGREE; put numbers "
            "for the capitals",
        ),
        (lambda: graphs.parse("random-regular:four", 8), "wanted random-regular:DEGREE; put"),
        (lambda: graphs.parse("torus:4", 8), "wanted torus[:ROWSxCOLS]; put numbers"),
        (lambda: graphs.parse("torus:", 8), "'torus:' cannot be read, wanted torus[:ROWSxCOLS]"),
        (lambda: graphs.parse("ring:4", 8), "wanted ring; drop the colon and the rest"),
        (
            lambda: graphs.parse("torus:4x8", 33),
            "torus:4x8 has 32 nodes, wanted 33; give sides whose product is 33, or just torus for",
        ),
        (lambda: graphs.parse("torus", 0), "the number of nodes is 0, wanted a whole number"),
        (lambda: graphs.parse("torus:0x0", 4), "torus:0x0 has 0 nodes, wanted 4"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_got_wanted_and_the_next_move(
    make: Callable[[], object], text: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        make()
    assert text in str(raised.value)
    assert "wanted" in str(raised.value)
    assert ";" in str(raised.value)
