"""A2CiD2: random pairwise averages, accelerated by a second vector that is mixed continuously.

Nabli, Belilovsky, Oyallon, "A2CiD2: Accelerating Asynchronous Communication in Decentralized Deep
Learning" (NeurIPS 2023, arXiv 2306.08289), Algorithm 1 and the dynamic it integrates (numbers of
both recalled; constants as in the authors' published code). Time t is counted in steps of a node:

    between events   dx = eta (x~ - x) dt,   dx~ = eta (x - x~) dt
    a gradient       x -= lr g,              x~ -= lr g
    an average       x_i -= a (x_i - x_j),   x~_i -= a~ (x_i - x_j), and the same for j

with a = 1/2, a~ = 1/2 sqrt(chi_1 / chi_2), eta = 1 / (2 sqrt(chi_1 chi_2)). For the Laplacian L of
the rates at which edges average in a unit of time, 1/chi_1 is its second-smallest eigenvalue and
chi_2 = 1/2 max over edges of (e_i - e_j)^T L^+ (e_i - e_j).

A node takes part in `rate` averages a step on average, half of them started by itself: a Poisson
number along with each step. As in the authors' code a step waits for the averages of the one
before, momentum is local, and the unit of time is a running mean of the node's own steps; here with
what they waited, so that a slow network slows the mixing too. The optimizer may be any, as in
AD-PSGD: x~ moves by as much as the step moves x.
"""

from __future__ import annotations

import math

import numpy as np

from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph
from swarmsgd.seeds import stream
from swarmsgd.sim.baselines.pairwise import Pairwise
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.speeds import Speeds

_MOST_NODES = 2048
"""Of a graph whose effective resistances are computed, from a dense matrix."""


def a2cid2(fleet: Fleet, ledger: Ledger, rate: float = 1.0) -> Pairwise:
    """A2CiD2 on the run's graph; local_steps has no meaning here."""
    return Pairwise(fleet, ledger, A2cid2(fleet, rate))


class A2cid2:
    """A `Mixing`. Mixing conserves x + x~ of a node; averages, the sums of x and of x~."""

    def __init__(self, fleet: Fleet, rate: float) -> None:
        config = fleet.config
        self._fleet = fleet
        self._started = rate / 2
        self._rng = stream("counts", config.seed)
        graph = config.swarm.graph_of(config.nodes)
        chi_1, chi_2 = chis(graph, rate)
        self.eta = 0.5 / math.sqrt(chi_1 * chi_2) if chi_1 else 0.0
        self.alpha_tilde = np.float32(0.5 * math.sqrt(chi_1 / chi_2) if chi_1 else 0.5)
        self.tilde_ND = fleet.x_ND.copy()
        self._mixed_s_N = np.zeros(config.nodes)
        """Until when each node is mixed."""
        self._began_s_N = np.full(config.nodes, np.nan)
        self._unit_s_N = Speeds(config.world, config.nodes, config.seed).base_s_N.copy()

    def begins(self, node: int, now: float) -> int:
        took = now - self._began_s_N[node]
        if took > 0:  # not in the first step
            self._unit_s_N[node] = (self._unit_s_N[node] + took) / 2
        self._began_s_N[node] = now
        return int(self._rng.poisson(self._started))

    def step(self, node: int, seen_D: Vector, now: float) -> None:
        fleet = self._fleet
        lr, x = fleet.lr(node), fleet.x_ND[node]
        self._mix(node, now)
        before = x.copy()
        fleet.descend(node, x, fleet.gradient(node, seen_D), lr)
        self.tilde_ND[node] += x - before

    def average(self, i: int, j: int, now: float) -> None:
        self._mix(i, now)
        self._mix(j, now)
        x_ND, tilde_ND = self._fleet.x_ND, self.tilde_ND
        apart = x_ND[i] - x_ND[j]
        x_ND[i] = x_ND[j] = (x_ND[i] + x_ND[j]) / 2
        apart *= self.alpha_tilde
        tilde_ND[i] -= apart
        tilde_ND[j] += apart

    def models(self, nodes: list[int], now: float) -> Vector:
        x_KD = self._fleet.x_ND[nodes]
        change_KD = self.tilde_ND[nodes] - x_KD
        change_KD *= self._shares(np.array(nodes, np.int64), now)[:, None]
        x_KD += change_KD
        return x_KD

    def joined(self, node: int, now: float) -> None:
        self.tilde_ND[node] = self._fleet.x_ND[node]
        self._mixed_s_N[node] = now
        self._began_s_N[node] = np.nan

    def _mix(self, node: int, now: float) -> None:
        """Integrate the exchange between x and x~ up to now."""
        x, tilde = self._fleet.x_ND[node], self.tilde_ND[node]
        change = self._shares(np.array([node]), now) * (tilde - x)
        x += change
        tilde -= change
        self._mixed_s_N[node] = now

    def _shares(self, nodes: np.ndarray, now: float) -> Vector:
        """Which part of x~ - x goes over to x until now."""
        units = (now - self._mixed_s_N[nodes]) / self._unit_s_N[nodes]
        return (-0.5 * np.expm1(-2 * self.eta * units)).astype(np.float32)


def check_a2cid2(config: SimConfig) -> None:
    """Raise ConfigError for a graph of more than `_MOST_NODES` nodes, unless it is complete."""
    if config.nodes <= _MOST_NODES:
        return
    graph = config.swarm.graph_of(config.nodes)
    if graph.stored_edges is not None:
        raise ConfigError(
            f"a2cid2 on {graph.name}: got {config.nodes:,} nodes, wanted at most {_MOST_NODES:,} "
            "to compute the effective resistances that its constants need; take a complete graph "
            "or ad-psgd"
        )


def chis(graph: Graph, rate: float) -> tuple[float, float]:
    """chi_1 and chi_2 if each node starts `rate` / 2 averages a unit of time with random
    neighbours; zeros for a single node.

    Takes a dense matrix of the graph, unless that is complete: see `check_a2cid2`.
    """
    n = graph.num_nodes
    if n == 1:
        return 0.0, 0.0
    if graph.stored_edges is None:  # all eigenvalues but one are rate n / (n - 1)
        return (n - 1) / (rate * n), (n - 1) / (rate * n)
    i, j = graph.edge_array.T
    laplacian = np.zeros((n, n))
    laplacian[i, j] = laplacian[j, i] = -rate / 2 * (1 / graph.degrees[i] + 1 / graph.degrees[j])
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    resistances = inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]
    return 1 / float(np.linalg.eigvalsh(laplacian)[1]), 0.5 * float(resistances.max())
