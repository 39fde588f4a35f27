"""Large-batch SGD: every step is made with the mean of all nodes' gradients, by all-reduce.

The batch is n times a node's. Time: an all-reduce (`costs.Links.allreduce_end`) that overlaps with
the second half of the slowest node's compute, as a backward pass does at best:
step = compute + max(0, all-reduce - compute / 2). Perfect overlap is a favour to this baseline.

The optimizer may be any; the mean gradient is what is clipped.
"""

from __future__ import annotations

import numpy as np

from swarmsgd.sim.baselines.costs import Collective
from swarmsgd.sim.baselines.lockstep import LockStep, count_even
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def allreduce(fleet: Fleet, ledger: Ledger) -> LockStep:
    """Large-batch SGD; local_steps has no meaning here."""
    return LockStep(fleet, ledger, AllReduce(fleet))


class AllReduce:
    """A `Rule`. Node 0's model and optimizer are everybody's."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._pace = Collective(fleet.config.world, fleet.num_nodes, fleet.dim, overlap=True)
        self.ends = self._pace.ends
        self._mean = np.zeros(fleet.dim, np.float32)
        self._rounds = 0

    def train(self, steps: int) -> None:
        fleet, mean = self._fleet, self._mean
        for _ in range(steps):
            lr = fleet.lr(0)
            mean[:] = 0
            for node in range(fleet.num_nodes):
                mean += fleet.gradient(node, fleet.x_ND[0])
            mean /= fleet.num_nodes
            fleet.descend(0, fleet.x_ND[0], mean, lr)
            self._rounds += 1

    def models(self) -> Vector:
        self._fleet.x_ND[1:] = self._fleet.x_ND[0]
        return self._fleet.x_ND

    def count(self, ledger: Ledger) -> None:
        count_even(ledger, self._rounds * self._pace.sent_bytes)
