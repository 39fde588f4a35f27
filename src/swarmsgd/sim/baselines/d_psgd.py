"""D-PSGD: every step a gradient step and a weighted average with the neighbours, in lock step.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu, "Can Decentralized Algorithms Outperform Centralized
Algorithms?" (NeurIPS 2017, arXiv 1705.09056), Algorithm 1:

    x_i <- sum_j W_ij x_j - lr g_i(x_i)

with W the Metropolis-Hastings matrix of the graph. The gradient is taken at x_i before averaging,
so that, as the paper notes, computing it and fetching the neighbours' models can overlap; here they
do. In place of -lr g_i(x_i) any optimizer may step at x_i, with a state that stays local: momentum
too the paper has not.

Time: a node sends its model to all neighbours when it begins a step, and begins the next one when
it has its gradient and all neighbours' models of this step. All these transfers are under way
together: each gets 1/degree of either end's capacity. A link carries one model at a time.
"""

from __future__ import annotations

import numpy as np

from swarmsgd.sim.baselines.costs import FLOAT_BYTES, Times, TransferTimes
from swarmsgd.sim.baselines.lockstep import LockStep, mean_row
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def d_psgd(fleet: Fleet, ledger: Ledger) -> LockStep:
    """D-PSGD on the run's graph; local_steps has no meaning here."""
    return LockStep(fleet, ledger, DPsgd(fleet))


class DPsgd:
    """A `Rule`."""

    def __init__(self, fleet: Fleet) -> None:
        config = fleet.config
        self._fleet = fleet
        self._graph = config.swarm.graph_of(config.nodes)
        self._links = TransferTimes(config.world, config.nodes)
        pairs = self._graph.edge_array
        both = np.concatenate([pairs, pairs[:, ::-1]])
        self._sources_E, self._targets_E = both[:, 0].copy(), both[:, 1].copy()
        degrees = self._graph.degrees
        self._share_E = 1 / np.maximum(degrees[self._sources_E], degrees[self._targets_E])
        self._free_E = np.zeros(len(both))
        self._rounds = 0

    def ends(self, begin_N: Times, computed_N: Times) -> Times:
        starts_E = np.maximum(begin_N[self._sources_E], self._free_E)
        nbytes = FLOAT_BYTES * self._fleet.dim
        self._free_E = self._links.sent(
            self._sources_E, self._targets_E, starts_E, nbytes, self._share_E
        )
        ends_N = computed_N.copy()
        np.maximum.at(ends_N, self._targets_E, self._free_E + self._links.latency_s)
        return ends_N

    def train(self, steps: int) -> None:
        fleet = self._fleet
        for _ in range(steps):
            change_ND = self._averaged(fleet.x_ND) - fleet.x_ND
            for node in range(fleet.num_nodes):
                fleet.steps_of(node, 1)
            fleet.x_ND += change_ND
            self._rounds += 1

    def _averaged(self, x_ND: Vector) -> Vector:
        """W x, neighbour by neighbour; the mean if the graph is complete."""
        graph, degrees = self._graph, self._graph.degrees
        if graph.stored_edges is None:
            return np.repeat(mean_row(x_ND)[None], len(x_ND), axis=0)
        averaged_ND = x_ND.copy()
        for node in range(graph.num_nodes):
            beside = list(graph.neighbours(node))
            weights = 1 / (1 + np.maximum(degrees[beside], degrees[node]))
            averaged_ND[node] *= np.float32(1 - weights.sum())
            averaged_ND[node] += weights.astype(np.float32) @ x_ND[beside]
        return averaged_ND

    def models(self) -> Vector:
        return self._fleet.x_ND

    def count(self, ledger: Ledger) -> None:
        ledger.exchanges_N[:] = self._rounds * self._graph.degrees
        ledger.initiated_N[:] = ledger.exchanges_N
        sent_N = ledger.exchanges_N * (FLOAT_BYTES * self._fleet.dim)
        ledger.bytes_sent_N[:] = ledger.bytes_received_N[:] = sent_N
