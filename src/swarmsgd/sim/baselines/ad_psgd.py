"""AD-PSGD: every step comes with an atomic average with one random neighbour, asynchronously.

Lian, Zhang, Zhang, Liu, "Asynchronous Decentralized Parallel Stochastic Gradient Descent" (ICML
2018, arXiv 1710.06952), Algorithm 1, with x^ the model that the step began with:

    x_i, x_j <- (x_i + x_j) / 2   atomically, for one random neighbour j;   x_i <- x_i - lr g_i(x^)

Computing and averaging are the paper's two threads: they overlap, one average a step, and neither
thread runs ahead of the other by more (our reading). In place of -lr g_i(x^) any optimizer may step
with g_i(x^), which the paper has not: its state stays local, and weight decay acts at the model
that the step is applied to.
"""

from __future__ import annotations

from swarmsgd.sim.baselines.pairwise import Pairwise
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def ad_psgd(fleet: Fleet, ledger: Ledger) -> Pairwise:
    """AD-PSGD on the run's graph; local_steps has no meaning here."""
    return Pairwise(fleet, ledger, AdPsgd(fleet))


class AdPsgd:
    """A `Mixing`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def begins(self, node: int, now: float) -> int:
        return 1

    def step(self, node: int, seen_D: Vector, now: float) -> None:
        fleet = self._fleet
        lr = fleet.lr(node)
        fleet.descend(node, fleet.x_ND[node], fleet.gradient(node, seen_D), lr)

    def average(self, i: int, j: int, now: float) -> None:
        x_ND = self._fleet.x_ND
        x_ND[i] = x_ND[j] = (x_ND[i] + x_ND[j]) / 2

    def models(self, nodes: list[int], now: float) -> Vector:
        return self._fleet.x_ND[nodes]

    def joined(self, node: int, now: float) -> None:
        pass
