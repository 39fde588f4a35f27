"""The graph as a value: its edges, its random draws, its matchings, how fast it mixes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import spectrum
from swarmsgd.graphs.changing import Cycles, LiveGraph
from swarmsgd.graphs.spectrum import Ends, Floats, Ints
from swarmsgd.seeds import stream

Edge = tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """An undirected, connected graph without loops; made and checked by the builders.

    A complete graph stores no edges, any other one array: 10,000 nodes in a complete graph, or
    100,000 in a ring, are cheap. Graphs of the same nodes, edges and rounds are equal, whatever
    their names.
    """

    num_nodes: int
    name: str
    stored_edges: Ints | None  # [edges, 2], sorted, i < j, each once; None: all of them
    known_ends: Ends | None = None  # laplacian_ends, where a closed form is known
    rounds: tuple[tuple[Edge, ...], ...] | None = None  # fixed matchings for matching_schedule

    @property
    def num_edges(self) -> int:
        """How many edges there are."""
        n = self.num_nodes
        return n * (n - 1) // 2 if self.stored_edges is None else len(self.stored_edges)

    @property
    def edge_array(self) -> Ints:
        """The edges as an array [num_edges, 2], sorted, i < j; made anew each time if complete."""
        if self.stored_edges is None:
            return np.stack(np.triu_indices(self.num_nodes, 1), axis=1)
        return self.stored_edges

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The edges as sorted pairs i < j, about 100 bytes each; edge_array is lighter."""
        return sorted_edges(self.edge_array)

    @cached_property
    def degrees(self) -> Ints:
        """The number of neighbours of each node, [num_nodes]."""
        if self.stored_edges is None:
            return frozen(np.full(self.num_nodes, self.num_nodes - 1))
        return frozen(np.bincount(self.stored_edges.ravel(), minlength=self.num_nodes))

    def degree(self, node: int) -> int:
        """The number of neighbours of `node`."""
        self._check_node(node)
        return int(self.degrees[node])

    def neighbours(self, node: int) -> tuple[int, ...]:
        """The neighbours of `node`, in rising order."""
        self._check_node(node)
        if self.stored_edges is None:
            return (*range(node), *range(node + 1, self.num_nodes))
        starts, ids = self._adjacency
        return tuple(ids[starts[node] : starts[node + 1]].tolist())

    def random_neighbour(self, node: int, rng: np.random.Generator) -> int:
        """A uniformly drawn neighbour of `node`."""
        self._check_node(node)
        self._check_has_edges()
        if self.stored_edges is None:
            other = int(rng.integers(self.num_nodes - 1))
            return other + (other >= node)
        starts, ids = self._adjacency
        return int(ids[rng.integers(starts[node], starts[node + 1])])

    def random_edge(self, rng: np.random.Generator) -> Edge:
        """A uniformly drawn edge (i, j), i < j; a node takes part in proportion to its degree."""
        self._check_has_edges()
        if self.stored_edges is None:
            i = int(rng.integers(self.num_nodes))
            j = self.random_neighbour(i, rng)
        else:
            i, j = self.stored_edges[rng.integers(len(self.stored_edges))].tolist()
        return min(i, j), max(i, j)

    def random_matching(self, rng: np.random.Generator) -> tuple[Edge, ...]:
        """Disjoint edges to which none can be added, sorted.

        Edges are taken in random order while both their ends are free. On a complete graph everyone
        has a partner, all but one if the number of nodes is odd.
        """
        if self.stored_edges is None:
            order = rng.permutation(self.num_nodes)[: self.num_nodes // 2 * 2]
            return sorted_edges(order.reshape(-1, 2))
        free = [True] * self.num_nodes
        taken: list[Edge] = []
        for i, j in self.stored_edges[rng.permutation(len(self.stored_edges))].tolist():
            if free[i] and free[j]:
                free[i] = free[j] = False
                taken.append((i, j))
        return tuple(sorted(taken))

    def mixing_matrix(self) -> Floats:
        """The Metropolis-Hastings matrix W, [num_nodes, num_nodes], symmetric, doubly stochastic.

        W_ij = 1 / (1 + max(degree_i, degree_j)) on edges, the rest of each row on the diagonal.
        """
        n = self.num_nodes
        if self.stored_edges is None:
            return np.full((n, n), 1 / n)
        return np.eye(n) - spectrum.laplacian(n, self.stored_edges, self._edge_weights)

    @property
    def lambda_2(self) -> float:
        """The second-smallest eigenvalue of the Laplacian: the larger, the faster models mix.

        A closed form where the builder knows one, else computed once. Infinite for a single node,
        which has nothing to mix. Raises ConfigError above 1,024 nodes without a closed form.
        """
        return self.laplacian_ends[0]

    @cached_property
    def spectral_gap(self) -> float:
        """1 - the second-largest modulus of an eigenvalue of mixing_matrix(); 1: mixed in one step.

        Raises ConfigError as `lambda_2` does.
        """
        if self.stored_edges is None:
            return 1.0
        weights = self._edge_weights
        if np.ptp(weights) == 0:  # W = I - weight * Laplacian
            low, high = (float(weights[0]) * end for end in self.laplacian_ends)
        else:
            low, high = self._ends(weights)
        return 1 - max(abs(1 - low), abs(1 - high))

    @cached_property
    def laplacian_ends(self) -> Ends:
        """The second-smallest and the largest eigenvalue of the Laplacian."""
        if self.stored_edges is None:
            n = float(self.num_nodes)
            return (n, n) if n > 1 else (math.inf, 0.0)
        return self.known_ends or self._ends(np.ones(self.num_edges))

    @cached_property
    def gamma_factor(self) -> float | None:
        """Gamma over the mean squared distance of the two ends of an exchange, for models that
        gather equal, independent noise at all nodes and are averaged along edges.

        (n - 1) / 2 where all pairs are equally likely: E||x_i - x_j||^2 = 2 Gamma / (n - 1). On
        other graphs neighbours are closer than that. With u_e = e_i - e_j, w_e the share of
        exchanges on edge e, L = sum_e w_e u_e u_e^T and D the mean squared distance, an exchange
        turns the covariance C into C - (L C + C L) / 2 + sum_e w_e (u_e^T C u_e) u_e u_e^T / 4,
        where the last term is D L / 4 if all edges are alike. What noise s puts into each mode is
        then in balance with what exchanges take out: lambda_k v_k = s + D lambda_k / 4. Summed
        over k, with trace(L) = 2 and D = sum_k lambda_k v_k: s = D / 2 (n - 1). So
        Gamma = sum_k v_k = D (trace(L^+) / 2 (n - 1) + (n - 1) / 4).

        0 for a single node; None above 1,024 nodes that are not a complete graph.
        """
        n = self.num_nodes
        if self.stored_edges is None or n == 1:
            return (n - 1) / 2
        if n > spectrum.DENSE_NODES:
            return None
        shares = (1 / self.degrees[self.edge_array]).sum(axis=1) / n  # a node asks any neighbour
        modes = np.linalg.eigvalsh(spectrum.laplacian(n, self.edge_array, shares))[1:]
        return float((1 / modes).sum() / (2 * (n - 1)) + (n - 1) / 4)

    def _ends(self, weights: Floats) -> Ends:
        return spectrum.laplacian_ends(self.name, self.num_nodes, self.edge_array, weights)

    @cached_property
    def _edge_weights(self) -> Floats:
        return 1 / (1 + self.degrees[self.edge_array].max(axis=1))

    @cached_property
    def _adjacency(self) -> tuple[Ints, Ints]:
        """Row starts [num_nodes + 1] and neighbours [2 num_edges], rising within each row."""
        both = np.concatenate([self.edge_array, self.edge_array[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        return np.searchsorted(both[:, 0], np.arange(self.num_nodes + 1)), both[:, 1].copy()

    def _check_node(self, node: int) -> None:
        if not 0 <= node < self.num_nodes:
            raise ConfigError(
                f"there is no node {node} in {self.name}, wanted one of 0 to {self.num_nodes - 1}; "
                "use one of these or build a larger graph"
            )

    def _check_has_edges(self) -> None:
        if self.num_nodes == 1:
            raise ConfigError(
                f"{self.name} has 1 node, wanted at least 2 to draw an edge; "
                "build a larger graph or train without exchanges"
            )

    def _structure(self) -> tuple[object, ...]:
        edges = None if self.stored_edges is None else self.stored_edges.tobytes()
        return self.num_nodes, edges, self.rounds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._structure() == other._structure()

    def __hash__(self) -> int:
        return hash(self._structure())

    def __str__(self) -> str:
        low, high = int(self.degrees.min()), int(self.degrees.max())
        text = (
            f"{self.name}: {self.num_nodes:,} node{'s' * (self.num_nodes != 1)}, "
            f"{self.num_edges:,} edge{'s' * (self.num_edges != 1)}, degree {low}"
        ) + (f" to {high}" * (high > low))
        small = self.num_nodes <= spectrum.DENSE_NODES
        if self.num_nodes > 1 and (small or self.stored_edges is None or self.known_ends):
            return f"{text}, lambda_2 {self.lambda_2:{'.4g' if self.lambda_2 < 1000 else ',.0f'}}"
        return text

    def __repr__(self) -> str:
        return f"<Graph {self}>"


def matching_schedule(graph: Graph, seed: int, round: int) -> tuple[Edge, ...]:
    """The matching of a round: the same on every machine, from (graph, seed, round) alone.

    A random maximal matching, or the graph's own fixed rounds in turn (`one_peer_exponential`),
    which do not depend on the seed.
    """
    round = whole("the round", round, 0, move="count rounds from 0")
    seed = whole("the seed", seed, 0, move="take any whole number from 0 on")
    if graph.rounds is not None:
        return graph.rounds[round % len(graph.rounds)]
    return graph.random_matching(stream("matching", seed, round))


def gamma_of(graph: Graph | LiveGraph | Cycles, distance_sq: float, exchanges: int) -> float | None:
    """Gamma as the mean squared distance of so many exchanges shows it; None: not known."""
    factor = graph.gamma_factor
    return None if factor is None or not exchanges else factor * distance_sq


def sorted_edges(pairs: Ints) -> tuple[Edge, ...]:
    """The pairs [edges, 2] as sorted tuples i < j."""
    return tuple(sorted((min(i, j), max(i, j)) for i, j in pairs.tolist()))


def frozen(array: Ints) -> Ints:
    """The array itself, made read-only."""
    array.setflags(write=False)
    return array
