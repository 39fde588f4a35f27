"""Local SGD: H local steps of each node, then all models are averaged.

Stich, "Local SGD Converges Fast and Communicates Little" (ICLR 2019, arXiv 1805.09767),
Algorithm 1. H is `local_steps`. The local steps may be any optimizer's, which the paper has not:
its state, momentum included, stays local and is not averaged.

Time: the slowest node's H steps, then an all-reduce of the models, which nothing overlaps with:
they are not known before.
"""

from __future__ import annotations

from swarmsgd.sim.baselines.costs import Collective
from swarmsgd.sim.baselines.lockstep import LockStep, count_even, mean_row
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def local_sgd(fleet: Fleet, ledger: Ledger) -> LockStep:
    """Local SGD with H = local_steps."""
    return LockStep(fleet, ledger, LocalSgd(fleet), fleet.config.swarm.local_steps)


class LocalSgd:
    """A `Rule`. After a round all rows are equal."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pace = Collective(fleet.config.world, fleet.num_nodes, fleet.dim)
        self.ends = self._pace.ends
        self._rounds = 0

    def train(self, steps: int) -> None:
        for node in range(self._fleet.num_nodes):
            self._fleet.steps_of(node, steps)
        self._fleet.x_ND[:] = mean_row(self._fleet.x_ND)
        self._rounds += 1

    def models(self) -> Vector:
        return self._fleet.x_ND

    def count(self, ledger: Ledger) -> None:
        count_even(ledger, self._rounds * self._pace.sent_bytes)
