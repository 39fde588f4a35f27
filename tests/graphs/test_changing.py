"""Graphs over nodes that come and go: the same for all who see the same, and little disturbed."""

import networkx as nx
import numpy as np
import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.graphs import LiveGraph, parse, reachable
from swarmsgd.graphs.changing import Cycles


def edges(cycles: Cycles, live: set[int]) -> set[tuple[int, int]]:
    return {(i, j) for i in live for j in cycles.neighbours(i) if i < j}


def test_neighbours_see_each_other_and_all_hang_together_through_comings_and_goings():
    rng, cycles, live = np.random.default_rng(0), Cycles(8, seed=3), set[int]()
    found: set[tuple[int, int]] = set()
    for id in range(300):
        cycles.add(id)
        live.add(id)
        if len(live) > 40:
            gone = int(rng.choice(sorted(live)))
            cycles.remove(gone)
            live.discard(gone)
        found = edges(cycles, live)
        assert all((min(i, j), max(i, j)) in found for i in live for j in cycles.neighbours(i))
        assert max(len(cycles.neighbours(i)) for i in live) <= 8
    graph = nx.Graph(found)
    assert set(graph) == live and nx.is_connected(graph)


def test_an_arrival_changes_what_lies_beside_it_alone():
    cycles, live = Cycles(8, seed=0), set(range(100))
    for id in live:
        cycles.add(id)
    before = edges(cycles, live)
    cycles.add(1000)
    after = edges(cycles, live | {1000})
    assert len(before - after) <= 4  # one edge of each cycle makes room
    cycles.remove(1000)
    assert edges(cycles, live) == before


def test_each_node_works_out_the_same_graph_for_itself():
    live = [2, 3, 5, 8, 13, 21, 34]
    own = {id: set(LiveGraph("cycles:4", 7, id).neighbours(live)) for id in live}
    assert all(i in own[j] for i in live for j in own[i])
    fixed = parse("cycles:4", 7, seed=7)
    assert {len(fixed.neighbours(i)) for i in range(7)} <= {2, 3, 4}


def test_a_live_graph_follows_who_lives():
    graph = LiveGraph("complete", 0, 5)
    assert list(graph.neighbours([1, 9])) == [1, 9] and graph.num_nodes == 3
    cycles = LiveGraph("cycles:2", 0, 5)
    assert set(cycles.neighbours([1])) == {1} and set(cycles.neighbours([])) == set()


@pytest.mark.parametrize("name", ["complete", "cycles:4"])
@pytest.mark.parametrize("hidden", [{8}, {2, 3, 8, 13, 21}, {2, 3, 5, 8, 13, 21}])
def test_two_hidden_nodes_have_no_edge_and_all_hang_together(name: str, hidden: set[int]):
    live = [2, 3, 5, 8, 13, 21, 34]
    graphs = {id: LiveGraph(name, 7, id) for id in live}
    for id, graph in graphs.items():
        graph.neighbours(live)  # before it was known who is hidden
        assert graph.num_nodes == 7, id
    own = {id: set(graph.neighbours(live, hidden)) for id, graph in graphs.items()}
    assert all(i in own[j] for i in live for j in own[i])
    assert all(not own[i] & hidden for i in hidden)
    found = nx.Graph([(i, j) for i in live for j in own[i]])
    assert set(found) == set(live) and nx.is_connected(found)


def test_a_fixed_graph_loses_its_edges_between_hidden_nodes_or_is_refused():
    left = reachable(parse("complete", 4), [1, 3])
    assert left.edges == ((0, 1), (0, 2), (0, 3), (1, 2), (2, 3)) and left.name == "complete(4)"
    rounds = reachable(parse("one-peer-exponential", 8), [0, 1]).rounds
    assert rounds is not None and not any((0, 1) in each for each in rounds)
    for graph in (parse("star", 4), parse("complete", 4)):
        assert reachable(graph, [2]) is graph
        with pytest.raises(
            ConfigError, match=r"nodes 0, 1, 2, 3 do not listen .* cuts \w+\(4\) apart"
        ):
            reachable(graph, [0, 1, 2, 3])
    with pytest.raises(ConfigError, match="nodes 0, 1 do not listen"):
        reachable(parse("star", 4), [0, 1])


@pytest.mark.parametrize("name", ["ring", "cycles", "complete:3", "cycles:x", "torus:2x2"])
def test_a_graph_of_a_fixed_list_is_refused_with_what_there_is(name: str):
    with pytest.raises(ConfigError, match="cycles:8"):
        LiveGraph(name, 0, 1)


def test_cycles_want_an_even_degree():
    with pytest.raises(ConfigError, match="even number"):
        parse("cycles:3", 8)
