"""The kinds of graph, one function each; `kinds` has the table of their names."""

# networkx has no types:
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError
from swarmsgd.graphs.changing import Cycles
from swarmsgd.graphs.graph import Edge, Graph, frozen, sorted_edges
from swarmsgd.graphs.spectrum import Ends, Ints, circulant_ends
from swarmsgd.seeds import seed_for

if TYPE_CHECKING:
    import networkx as nx

REDRAWS = 100


def complete(n: int) -> Graph:
    """Every node beside every other; lambda_2 = n. `complete(1)` is one node without edges."""
    n = whole(
        "the number of nodes", n, 1, move="give one node per process, for example complete(8)"
    )
    return Graph(n, f"complete({n})", None)


def ring(n: int) -> Graph:
    """Each node beside the next and the one before; lambda_2 = 2 - 2 cos(2 pi / n)."""
    n = whole("the number of nodes of a ring", n, 3, move="below that use a complete graph")
    return _circulant(f"ring({n})", n, [1])


def torus(rows: int, cols: int) -> Graph:
    """A grid with joined borders; node (r, c) is r * cols + c.

    A side of 2 has one edge between its nodes, not two; a side of 1 none. lambda_2 is that of the
    ring of the longest side.
    """
    move = "give two sides whose product is the number of nodes, for example torus(4, 8)"
    rows = whole("the number of rows of a torus", rows, 1, move=move)
    cols = whole("the number of columns of a torus", cols, 1, move=move)
    grid = np.arange(rows * cols).reshape(rows, cols)
    pairs = np.concatenate([_pairs(grid, np.roll(grid, -1, axis)) for axis in (0, 1)])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    (low_r, high_r), (low_c, high_c) = (circulant_ends(side, [1]) for side in (rows, cols))
    ends = min(low_r, low_c), high_r + high_c  # the eigenvalues of a product graph add up
    return _graph(f"torus({rows}x{cols})", rows * cols, pairs, ends)


def hypercube(n: int) -> Graph:
    """Nodes whose numbers differ in one bit are neighbours; n a power of two; lambda_2 = 2."""
    n = _power_of_two("a hypercube", n, 1)
    nodes, bits = np.arange(n)[:, None], np.arange(n.bit_length() - 1)
    pairs = _pairs(nodes, nodes ^ (1 << bits))
    return _graph(f"hypercube({n})", n, pairs, (2.0, 2.0 * len(bits)))


def exponential(n: int) -> Graph:
    """Node i beside i +- 1, 2, 4, 8, ... modulo n: the static exponential graph, undirected."""
    n = whole("the number of nodes", n, 1, move="give one node per process, for example 16")
    offsets = {min(1 << k, n - (1 << k)) for k in range((n - 1).bit_length())}
    return _circulant(f"exponential({n})", n, sorted(offsets))


def one_peer_exponential(n: int) -> Graph:
    """The exponential graph, with fixed rounds in which each node has one partner.

    The pairwise form of the one-peer exponential graph (Ying et al., NeurIPS 2021, arXiv
    2110.13363), for n a power of two. In `matching_schedule` a pass has a round for each offset
    1, 2, 4, ..., n/2: in one pass i meets i + offset for every i whose bit `offset` is 0, in the
    next for every i whose bit is 1. Each pass, log2(n) rounds, averages all nodes exactly. Outside
    of matchings this acts as exponential(n).
    """
    n = _power_of_two("a one-peer exponential graph", n, 2)
    nodes, rounds = np.arange(n), list[tuple[Edge, ...]]()
    for bit_value in (0, 1):
        for bit in range(n.bit_length() - 1):
            first = nodes[(nodes >> bit) & 1 == bit_value]
            rounds.append(sorted_edges(_pairs(first, (first + (1 << bit)) % n)))
    return replace(exponential(n), name=f"one-peer-exponential({n})", rounds=tuple(rounds))


def cycles(n: int, degree: int, seed: int = 0) -> Graph:
    """A union of `degree` / 2 random cycles: `changing.Cycles` over nodes 0 to n - 1."""
    n = whole("the number of nodes of cycles", n, 2, move="one node alone has no neighbours")
    live = Cycles(degree, seed, range(n))
    pairs = [(i, j) for i in range(n) for j in live.neighbours(i) if i < j]
    return _graph(f"cycles:{degree}({n})", n, np.array(pairs))


def star(n: int) -> Graph:
    """Node 0 beside all others, which have no other neighbour; lambda_2 = 1 from 3 nodes on."""
    n = whole("the number of nodes of a star", n, 1, move="count the centre too, as in star(8)")
    return _graph(f"star({n})", n, _pairs(0, np.arange(1, n)), (1.0, float(n)))


def random_regular(n: int, degree: int, seed: int) -> Graph:
    """A random connected graph whose nodes all have `degree` neighbours (networkx draws it)."""
    n = whole("the number of nodes", n, 2, move="for a single node use a complete graph")
    degree = whole("the degree", degree, 1, move="give each node a neighbour, for example degree 4")
    if degree >= n or n * degree % 2 or (degree == 1 and n > 2):
        wanted = f"2 to {n - 1} with nodes x degree even" if n > 2 else "1"
        raise ConfigError(
            f"no connected graph of {n} nodes has degree {degree}, wanted {wanted}; take another "
            "degree, or a complete graph"
        )
    import networkx as nx

    def draw(seed: int) -> nx.Graph[Any]:
        left_out = degree > n // 2  # networkx is slow at dense graphs: draw what they leave out
        drawn = nx.random_regular_graph(n - 1 - degree if left_out else degree, n, seed)
        return nx.complement(drawn) if left_out else drawn

    name = f"random-regular({n}, degree={degree}, seed={seed})"
    move = "raise the degree: from 3 on nearly every draw is connected"
    return _first_connected(name, n, draw, seed, move)


def erdos_renyi(n: int, p: float, seed: int) -> Graph:
    """A random graph in which each pair is an edge with probability p, redrawn until connected."""
    n = whole("the number of nodes", n, 1, move="give one node per process, for example 16")
    enough = f"{min(1.0, 2 * math.log(n + 1) / n):.2g} (2 ln n / n)"
    if not 0 < p <= 1:
        raise ConfigError(
            f"the edge probability is {p!r}, wanted above 0 and at most 1; "
            f"nearly every draw of {n} nodes is connected from about {enough} on"
        )
    import networkx as nx

    name = f"erdos-renyi({n}, p={p:g}, seed={seed})"
    move = f"raise p to about {enough}"
    return _first_connected(name, n, lambda s: nx.fast_gnp_random_graph(n, p, s), seed, move)


def from_edges(n: int, edges: Iterable[Edge]) -> Graph:
    """The graph with these edges, each given once or more, in either direction."""
    n = whole("the number of nodes", n, 1, move="count the nodes of the edge list")
    wanted, listed = f"cannot be used, wanted two nodes of 0 to {n - 1}", list[Edge]()
    for edge in edges:
        try:
            i, j = map(operator.index, edge)
        except (TypeError, ValueError):
            move = "give pairs (i, j) of whole numbers, without weights or labels"
            raise ConfigError(f"edge {edge!r} {wanted}; {move}") from None
        if i == j or not (0 <= i < n and 0 <= j < n):
            move = "drop it, no node exchanges with itself" if i == j else "renumber the nodes"
            raise ConfigError(f"edge ({i}, {j}) {wanted}; {move}")
        listed.append((i, j))
    name, pairs = f"from_edges({n})", np.array(listed, np.int64).reshape(-1, 2)
    component = _components(n, pairs)
    if component.any():
        raise ConfigError(
            f"{name} has {len(np.unique(component))} components, wanted 1: node "
            f"{np.flatnonzero(component)[0]} cannot be reached from node 0, so their models would "
            "never mix; add edges between the components"
        )
    return _graph(name, n, pairs)


def reachable(graph: Graph, hidden: Collection[int]) -> Graph:
    """The graph without its edges between two `hidden` nodes, neither of which can be dialled.
    Raises ConfigError if that cuts it apart.
    """
    if len(hidden) < 2:
        return graph
    cut = {edge for edge in graph.edges if edge[0] in hidden and edge[1] in hidden}
    if not cut:
        return graph
    try:
        left = from_edges(graph.num_nodes, [edge for edge in graph.edges if edge not in cut])
    except ConfigError:
        raise ConfigError(
            f"nodes {', '.join(map(str, sorted(hidden)))} do not listen (listen=False), and two "
            f"such nodes have no edge, which cuts {graph.name} apart. Let more nodes listen, or "
            "take a graph with more edges"
        ) from None
    rounds = graph.rounds
    if rounds is not None:
        rounds = tuple(tuple(edge for edge in each if edge not in cut) for each in rounds)
    return replace(left, name=graph.name, rounds=rounds)


def from_networkx(graph: nx.Graph[Any]) -> Graph:
    """An undirected networkx graph: its nodes, sorted, become 0..n-1; weights are ignored."""
    import networkx as nx

    if not isinstance(graph, nx.Graph) or graph.is_directed():  # pyright: ignore
        raise ConfigError(
            f"got a {type(graph).__name__}, wanted an undirected networkx graph, since both ends "
            "of an edge exchange; call its to_undirected() first"
        )
    try:
        ids = {node: index for index, node in enumerate(sorted(graph.nodes))}
    except TypeError as error:
        raise ConfigError(
            f"the nodes of the networkx graph do not sort ({error}), wanted nodes of one kind, "
            "to number them in order; call networkx.convert_node_labels_to_integers first"
        ) from None
    made = from_edges(len(ids), ((ids[i], ids[j]) for i, j in graph.edges()))
    return replace(made, name=f"from_networkx({len(ids)})")


def _power_of_two(what: str, n: int, least: int) -> int:
    n = whole(f"the number of nodes of {what}", n, least, move="take a power of two")
    if n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise ConfigError(
            f"the number of nodes of {what} is {n}, wanted a power of two; "
            f"take {below} or {2 * below}, or an exponential graph"
        )
    return n


def _pairs(i: npt.ArrayLike, j: npt.ArrayLike) -> Ints:
    """Edges [edges, 2] between the nodes i and j, arrays that are broadcast."""
    return np.stack(np.broadcast_arrays(i, j), axis=-1).reshape(-1, 2)


def _circulant(name: str, n: int, offsets: list[int]) -> Graph:
    """Edges i, i + offset modulo n, for offsets up to n / 2."""
    nodes = np.arange(n)[:, None]
    pairs = _pairs(nodes, (nodes + np.array(offsets, np.int64)) % n)
    return _graph(name, n, pairs, circulant_ends(n, offsets))


def _graph(name: str, n: int, pairs: Ints, ends: Ends | None = None) -> Graph:
    """The graph with these edges, which must connect all nodes: sorted, each once."""
    flat = np.unique(pairs.min(axis=1) * n + pairs.max(axis=1))
    if len(flat) == n * (n - 1) // 2:
        return Graph(n, name, None)
    return Graph(n, name, frozen(np.stack([flat // n, flat % n], axis=1)), ends)


def _first_connected(
    name: str, n: int, draw: Callable[[int], nx.Graph[Any]], seed: int, move: str
) -> Graph:
    """The first connected graph of the draws that belong to `seed`."""
    seed = whole("the seed", seed, 0, move="take any whole number from 0 on")
    for attempt in range(REDRAWS):
        drawn = draw(seed_for("graph", seed, attempt))
        pairs = np.array(list(drawn.edges), np.int64).reshape(-1, 2)
        if not _components(n, pairs).any():
            return _graph(name, n, pairs)
    raise ConfigError(f"{name}: none of {REDRAWS} draws is connected, wanted one; {move}")


def _components(n: int, pairs: Ints) -> Ints:
    """The smallest node of each node's component, [n]; all 0 if the graph is connected."""
    smallest = np.arange(n)
    while True:
        i, j = smallest[pairs[:, 0]], smallest[pairs[:, 1]]
        if np.array_equal(i, j):
            return smallest
        np.minimum.at(smallest, np.maximum(i, j), np.minimum(i, j))  # a root joins a smaller one
        while not np.array_equal(smallest, above := smallest[smallest]):
            smallest = above
