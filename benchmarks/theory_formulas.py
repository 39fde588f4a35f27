"""What the theory says of a swarm in steady state: figures that `theory.py` and tests hold runs
against.

Symbols are those of docs/theory.md: n nodes on a graph of degree r, lambda_2 its Laplacian's
second-smallest eigenvalue, Gamma = sum_i ||c_i - mu||^2, v the mean squared norm of a burst. The
bursts are independent of everything before them: pure noise. [P] is the paper's (Nadiradze et al.,
NeurIPS 2021, arXiv 1910.12308), [D] derived here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swarmsgd.core import arithmetic
from swarmsgd.graphs import Graph
from swarmsgd.graphs.spectrum import laplacian

Floats = npt.NDArray[np.float64]


def gamma_of(copies_ND: npt.NDArray[np.floating]) -> float:
    """sum_i ||c_i - mu||^2, in float64."""
    exact = copies_ND.astype(np.float64)
    return float(np.square(exact - exact.mean(axis=0)).sum())


def averaged_gamma(graph: Graph, copies_ND: npt.NDArray[np.float32]) -> float:
    """E[Gamma'] after one exact exchange on a uniformly drawn edge, by doing all of them.

    The arithmetic is `core.exchange`'s, in float32.
    """
    total = 0.0
    for i, j in graph.edge_array.tolist():
        after_ND = copies_ND.copy()
        pending_D = np.zeros_like(after_ND[0])
        delta_D = arithmetic.change(after_ND[i], after_ND[j])
        arithmetic.mix(after_ND[i], pending_D, delta_D)
        arithmetic.mix(after_ND[j], pending_D, -delta_D)
        total += gamma_of(after_ND)
    return total / graph.num_edges


def averaged_gamma_predicted(graph: Graph, copies_ND: npt.NDArray[np.floating]) -> float:
    """Gamma - (1/(r n)) sum over edges of ||c_i - c_j||^2, on an r-regular graph [D]."""
    i, j = graph.edge_array.T
    exact = copies_ND.astype(np.float64)
    apart = float(np.square(exact[i] - exact[j]).sum())
    return gamma_of(copies_ND) - apart / (graph.degree(0) * graph.num_nodes)


def contraction(graph: Graph) -> float:
    """1 - lambda_2/(r n): what E[Gamma'] is at most of Gamma, on an r-regular graph [P, D]."""
    return 1 - graph.lambda_2 / (graph.degree(0) * graph.num_nodes)


def fiedler(graph: Graph) -> Floats:
    """[n] a unit eigenvector of the Laplacian at lambda_2."""
    n = graph.num_nodes
    return np.linalg.eigh(laplacian(n, graph.edge_array, np.ones(graph.num_edges)))[1][:, 1]


def burst_norm_sq(lr: float, steps: float, dim: int, noise: float) -> float:
    """v: a burst of `steps` steps of pure noise, standard deviation `noise` a coordinate."""
    return steps * lr**2 * dim * noise**2


def pair_distance_sq(nodes: int, burst: float, landed: int) -> float:
    """E||c_i - c_j||^2 of the two models an exchange averages, at that moment [D].

    `landed` bursts have landed on the pair since the last exchange, one (the initiator's) or two. A
    landing burst adds v (1 - 1/n) to Gamma, an exchange takes ||c_i - c_j||^2 / 2 from it; in
    steady state both are equal, on any graph.
    """
    return 2 * landed * burst * (1 - 1 / nodes)


def pair_distance_sq_before(nodes: int, burst: float, landed: int) -> float:
    """The same before these bursts land: 2 v (1 - 2/n) if two of them do [D]."""
    return pair_distance_sq(nodes, burst, landed) - landed * burst


def steady_gamma(graph: Graph, burst: float) -> float:
    """E[Gamma] between exchanges when one random node's burst lands before each exchange [D].

    Exact, for any connected graph; the initiator is uniform, then its neighbour. On edge-transitive
    graphs (ring, torus with equal sides, hypercube, complete) it is
    v (r/2) sum_k 1/lambda_k - (v/2)(1 - 1/n) over the nonzero eigenvalues.

    With K the mean Gram matrix of the models and W_ij the average over a pair, K is unchanged by
    K -> E[W (K + v e_i e_i^T) W]: a Lyapunov equation for K given the distances across edges,
    solved until these agree with K.
    """
    n, edges = graph.num_nodes, graph.edge_array
    i, j = edges.T
    chance = (1 / graph.degrees[i] + 1 / graph.degrees[j]) / n
    values, vectors = np.linalg.eigh(laplacian(n, edges, chance))
    values, vectors = values[1:], vectors[:, 1:]  # all but the mean, which stays what it is
    halves = 2 / (values[:, None] + values[None])
    strength = np.bincount(i, chance, n) + np.bincount(j, chance, n)
    landing = burst / 4 * (2 * np.diag(strength) - laplacian(n, edges, chance))
    apart = np.zeros(len(edges))
    while True:  # each round halves the error
        forced = landing + laplacian(n, edges, chance * apart) / 4
        gram = vectors @ (vectors.T @ forced @ vectors * halves) @ vectors.T
        before, apart = apart, gram[i, i] + gram[j, j] - 2 * gram[i, j]
        if np.allclose(before, apart, rtol=1e-10, atol=0):
            return float(np.trace(gram))


def steady_gamma_closed(graph: Graph, burst: float) -> float:
    """The closed form of `steady_gamma`, for edge-transitive graphs [D]."""
    n = graph.num_nodes
    eigenvalues = np.linalg.eigvalsh(laplacian(n, graph.edge_array, np.ones(graph.num_edges)))[1:]
    resistance = float((1 / eigenvalues).sum())
    return burst * (graph.degree(0) / 2 * resistance - 0.5 * (1 - 1 / n))


def potential_bound(graph: Graph, lr: float, steps: float, second_moment: float) -> float:
    """(40 r/lambda_2 + 80 r^2/lambda_2^2) n eta^2 H^2 M^2, as recalled from the paper [R].

    `second_moment` is M^2, which bounds E||gradient||^2. r is the largest degree: the theorem
    speaks of regular graphs.
    """
    ratio = float(graph.degrees.max()) / graph.lambda_2
    return (40 * ratio + 80 * ratio**2) * graph.num_nodes * lr**2 * steps**2 * second_moment


def exponent(x: list[float], y: list[float]) -> float:
    """The power p of the best y = c x^p, by least squares of the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def sgd_floor(lr: float, noise: float, curvature_D: Floats) -> float:
    """Excess loss of SGD on a quadratic in steady state, one node's gradients a step.

    1/2 sum_d a_d Var_d with Var_d = lr noise^2 / (a_d (2 - lr a_d)). Of the mean of n nodes: 1/n.
    """
    return float(0.5 * lr * noise**2 * (1 / (2 - lr * curvature_D)).sum())


def coded_gamma(nodes: int, burst: float, noise_sq: float) -> float:
    """`steady_gamma` on a complete graph when each exchange's two lattice points have errors of
    squared norm `noise_sq` together [D].

    Averaging takes P/2 from Gamma and the errors give noise_sq/2 back, P the true squared distance
    of the pair; so P = 2 v (1 - 1/n) + noise_sq, of which v is the burst that has just landed and
    the rest what any pair is apart.
    """
    apart = pair_distance_sq_before(nodes, burst, 1) + noise_sq
    return apart * (nodes - 1) / 2


def wrong_share(bits: int, past: float) -> float:
    """How often a coordinate at `past` times the reach s (q - 1)/2 decodes wrongly [D]."""
    return min(1.0, max(0.0, (past - 1) * ((1 << bits) - 1) / 2))
