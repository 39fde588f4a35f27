"""DiLoCo: H local steps of each node, then one outer Nesterov step with the mean of their changes.

Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language Models" (2023,
arXiv 2311.08105), Algorithm 1, with phi the outer model that all nodes share:

    Delta = mean_i (phi - x_i);  b <- 0.9 b + Delta;  phi <- phi - 0.7 (Delta + 0.9 b);  x_i <- phi

which is torch's SGD with nesterov=True. H is `local_steps` (the paper: about 500). The inner
optimizer is the run's, the paper's is AdamW; its state stays on the node, as in the paper. The
outer step multiplies the rate at which the mean moves by up to
0.7 / (1 - 0.9) = 7, so with short bursts lr must be smaller than Local SGD's.

Time: as of Local SGD, the slowest node's H steps and an all-reduce.
"""

from __future__ import annotations

import numpy as np

from swarmsgd.sim.baselines.costs import Collective
from swarmsgd.sim.baselines.lockstep import LockStep, count_even, mean_row
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def diloco(
    fleet: Fleet, ledger: Ledger, outer_lr: float = 0.7, outer_momentum: float = 0.9
) -> LockStep:
    """DiLoCo with H = local_steps; the outer settings are the paper's."""
    return LockStep(
        fleet, ledger, DiLoCo(fleet, outer_lr, outer_momentum), fleet.config.swarm.local_steps
    )


class DiLoCo:
    """A `Rule`. After a round all rows are equal."""

    def __init__(self, fleet: Fleet, outer_lr: float, outer_momentum: float) -> None:
        self._fleet = fleet
        self._outer_lr = np.float32(outer_lr)
        self._outer_momentum = np.float32(outer_momentum)
        self._outer_D = fleet.x_ND[0].copy()
        self._momentum_D = np.zeros_like(self._outer_D)
        self._pace = Collective(fleet.config.world, fleet.num_nodes, fleet.dim)
        self.ends = self._pace.ends
        self._rounds = 0

    def train(self, steps: int) -> None:
        fleet = self._fleet
        for node in range(fleet.num_nodes):
            fleet.steps_of(node, steps)
        delta = self._outer_D - mean_row(fleet.x_ND)
        self._momentum_D *= self._outer_momentum
        self._momentum_D += delta
        self._outer_D -= self._outer_lr * (delta + self._outer_momentum * self._momentum_D)
        fleet.x_ND[:] = self._outer_D
        self._rounds += 1

    def models(self) -> Vector:
        return self._fleet.x_ND

    def count(self, ledger: Ledger) -> None:
        count_even(ledger, self._rounds * self._pace.sent_bytes)
