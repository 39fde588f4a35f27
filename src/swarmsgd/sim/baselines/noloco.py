"""NoLoCo: as DiLoCo, but the outer step of a node needs one random partner only.

Kolehmainen, Blagoev, Donaghy, Ersoy, Nies, "NoLoCo: No-all-reduce Low Communication Training Method
for Large Models" (2025, arXiv 2506.10911). Node i has a slow model phi_i and an outer momentum d_i;
after H local steps from phi_i to x_i, with a mean over i and its partner of the round,

    d_i <- a d_i + b mean(x - phi) + c (mean(phi) - phi_i);   phi_i <- phi_i + d_i;   x_i <- phi_i

The last term, new in the paper, pulls the slow models together; they are never averaged outright.
Recalled: this form, a = 0.5 and b = 0.7; that the update is added without a look-ahead, and c = b,
are as in the code that one of the authors published. The theory asks for a < c < sqrt(2 + a^2), as
recalled.
The inner optimizer is the run's, the paper's is Adam; its random routing through pipeline stages
has no counterpart here.

Partners: a matching of the run's graph, drawn anew each round; who has none goes on alone. Time:
the two wait for each other and send two vectors [D] each way at once; nobody else waits.
"""

from __future__ import annotations

import numpy as np

from swarmsgd import graphs
from swarmsgd.sim.baselines.costs import FLOAT_BYTES, Nodes, Times, TransferTimes
from swarmsgd.sim.baselines.lockstep import LockStep
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def noloco(
    fleet: Fleet,
    ledger: Ledger,
    outer_momentum: float = 0.5,
    outer_lr: float = 0.7,
    pull: float = 0.7,
) -> LockStep:
    """NoLoCo with H = local_steps; a, b and c of the module's text are the outer settings."""
    rule = NoLoCo(fleet, outer_momentum, outer_lr, pull)
    return LockStep(fleet, ledger, rule, fleet.config.swarm.local_steps)


class NoLoCo:
    """A `Rule`. The mean of all phi moves as with momentum alone: the pulls of a pair cancel."""

    def __init__(self, fleet: Fleet, outer_momentum: float, outer_lr: float, pull: float) -> None:
        config = fleet.config
        self._fleet = fleet
        self._seed = config.seed
        self._a, self._b, self._c = (np.float32(v) for v in (outer_momentum, outer_lr, pull))
        self._graph = config.swarm.graph_of(config.nodes)
        self._links = TransferTimes(config.world, config.nodes)
        self._slow_ND = fleet.x_ND.copy()
        self._momentum_ND = np.zeros_like(self._slow_ND)
        self._rounds_timed = self._rounds = 0
        self._exchanges_N = np.zeros(config.nodes, np.int64)
        self._initiated_N = np.zeros(config.nodes, np.int64)

    def ends(self, begin_N: Times, computed_N: Times) -> Times:
        partners_N = self.partners(self._rounds_timed)
        self._rounds_timed += 1
        paired = np.flatnonzero(partners_N != np.arange(len(partners_N)))
        others = partners_N[paired]
        both = np.maximum(computed_N[paired], computed_N[others])
        nbytes = 2 * FLOAT_BYTES * self._fleet.dim
        sent = self._links.sent(paired, others, both, nbytes, np.ones(len(paired)))
        ends_N = computed_N.copy()
        ends_N[others] = sent + self._links.latency_s
        return np.maximum(ends_N, ends_N[partners_N])

    def partners(self, round: int) -> Nodes:
        """[N] the partner of each node, itself if it has none."""
        partners_N = np.arange(self._fleet.num_nodes)
        if self._fleet.num_nodes > 1:
            pairs = np.array(graphs.matching_schedule(self._graph, self._seed, round))
            partners_N[pairs[:, 0]], partners_N[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
        return partners_N

    def train(self, steps: int) -> None:
        fleet, partners_N = self._fleet, self.partners(self._rounds)
        self._rounds += 1
        for node in range(fleet.num_nodes):
            fleet.steps_of(node, steps)
        half = np.float32(0.5)
        change_ND = fleet.x_ND - self._slow_ND
        self._momentum_ND *= self._a
        self._momentum_ND += self._b * half * (change_ND + change_ND[partners_N])
        self._momentum_ND += self._c * half * (self._slow_ND[partners_N] - self._slow_ND)
        self._slow_ND += self._momentum_ND
        fleet.x_ND[:] = self._slow_ND
        nodes_N = np.arange(fleet.num_nodes)
        self._exchanges_N += partners_N != nodes_N
        self._initiated_N += partners_N > nodes_N

    def models(self) -> Vector:
        return self._fleet.x_ND

    def count(self, ledger: Ledger) -> None:
        ledger.exchanges_N[:] = self._exchanges_N
        ledger.initiated_N[:] = self._initiated_N
        sent_N = self._exchanges_N * (2 * FLOAT_BYTES * self._fleet.dim)
        ledger.bytes_sent_N[:] = ledger.bytes_received_N[:] = sent_N
