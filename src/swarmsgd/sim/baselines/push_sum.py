"""SGP and OSGP: push-sum along a directed exponential graph, a peer at a time.

Assran, Loizou, Ballas, Rabbat, "Stochastic Gradient Push for Distributed Deep Learning" (ICML 2019,
arXiv 1811.10792), Algorithm 1 (SGP) and Algorithm 2 (overlap SGP, with tau = 1; the algorithms'
numbers are recalled). Node i holds x_i and a weight w_i, 1 at first, and trains at z_i = x_i / w_i:

    x_i <- x_i - lr g_i(z_i);  keep half of (x_i, w_i), push half to i + 2^(k mod K);  add what came

with K = floor(log2(n - 1)) + 1 offsets, so that n need not be a power of two. SGP waits in step k
for what was pushed in step k. OSGP waits in step k for what was pushed in step k - 1, which was
under way while it computed. In place of -lr g_i(z_i) any optimizer may step at z_i, with a state
that stays local; x_i moves by as much as it moves z_i.

Time: a node pushes one model when it has its gradient. A node sends, and receives, one model at a
time, at the smaller of both ends' capacities; the weight is not counted in the bytes.
"""

from __future__ import annotations

import numpy as np

from swarmsgd.sim.baselines.costs import FLOAT_BYTES, Nodes, Times, TransferTimes
from swarmsgd.sim.baselines.lockstep import LockStep
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger


def sgp(fleet: Fleet, ledger: Ledger) -> LockStep:
    """Stochastic gradient push; graph and local_steps have no meaning here."""
    return LockStep(fleet, ledger, PushSum(fleet, overlap=False))


def osgp(fleet: Fleet, ledger: Ledger) -> LockStep:
    """Overlap SGP; graph and local_steps have no meaning here."""
    return LockStep(fleet, ledger, PushSum(fleet, overlap=True))


class PushSum:
    """A `Rule`. `fleet.x_ND` are the numerators; what is under way is part of the conserved sums.

    A push conserves the sums over nodes of x and of w, what is under way included; of w it is n.
    """

    def __init__(self, fleet: Fleet, *, overlap: bool) -> None:
        self._fleet = fleet
        self._overlap = overlap
        n = fleet.num_nodes
        self.w_N = np.ones(n)
        self.inbox_ND = np.zeros_like(fleet.x_ND)
        """Pushed, not yet added, in the rows of those who will get it."""
        self.inbox_w_N = np.zeros(n)
        self._links = TransferTimes(fleet.config.world, n)
        self._arrived_N = np.zeros(n)
        self._sender_free_N = np.zeros(n)
        self._receiver_free_N = np.zeros(n)
        self._rounds_timed = 0
        self._rounds = 0

    def ends(self, begin_N: Times, computed_N: Times) -> Times:
        before_N = self._arrived_N
        self._arrived_N = self._push(computed_N, self._sources(self._rounds_timed))
        self._rounds_timed += 1
        return np.maximum(computed_N, before_N if self._overlap else self._arrived_N)

    def _push(self, computed_N: Times, sources_N: Nodes) -> Times:
        """[N] when each node has what was pushed to it."""
        if self._fleet.num_nodes == 1:
            return computed_N
        starts_N = np.maximum(computed_N, self._sender_free_N)[sources_N]
        starts_N = np.maximum(starts_N, self._receiver_free_N)
        targets_N, nbytes = np.arange(len(sources_N)), FLOAT_BYTES * self._fleet.dim
        sent_N = self._links.sent(sources_N, targets_N, starts_N, nbytes, np.ones(len(sources_N)))
        self._sender_free_N[sources_N] = self._receiver_free_N = sent_N
        return sent_N + self._links.latency_s

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self._steps()
            self._mix(self._sources(self._rounds))
            self._rounds += 1

    def _steps(self) -> None:
        """A local step of every node at z; x moves by as much as z does."""
        fleet = self._fleet
        for node in range(fleet.num_nodes):
            lr = fleet.lr(node)
            z = fleet.x_ND[node] / np.float32(self.w_N[node])
            gradient, before = fleet.gradient(node, z), z.copy()
            fleet.descend(node, z, gradient, lr)
            fleet.x_ND[node] += z - before

    def _mix(self, sources_N: Nodes) -> None:
        """Halve, push, and add what came: of this step, or of the one before if they overlap."""
        if len(sources_N) == 1:
            return
        x_ND, came_ND, came_w_N = self._fleet.x_ND, self.inbox_ND, self.inbox_w_N
        x_ND *= np.float32(0.5)
        self.w_N *= 0.5
        pushed_ND, pushed_w_N = x_ND[sources_N], self.w_N[sources_N]
        if self._overlap:
            self.inbox_ND, self.inbox_w_N = pushed_ND, pushed_w_N
        else:
            came_ND, came_w_N = pushed_ND, pushed_w_N
        x_ND += came_ND
        self.w_N += came_w_N

    def _sources(self, step: int) -> Nodes:
        """[N] who pushes to each node in this step."""
        n = self._fleet.num_nodes
        offsets = max(1, (n - 1).bit_length())
        return (np.arange(n) - 2 ** (step % offsets)) % n

    def models(self) -> Vector:
        """z, with what is under way added, as at the end of a run."""
        weights_N1 = (self.w_N + self.inbox_w_N)[:, None].astype(np.float32)
        return (self._fleet.x_ND + self.inbox_ND) / weights_N1

    def count(self, ledger: Ledger) -> None:
        if self._fleet.num_nodes > 1:
            ledger.exchanges_N[:] = ledger.initiated_N[:] = self._rounds
            sent = self._rounds * FLOAT_BYTES * self._fleet.dim
            ledger.bytes_sent_N[:] = ledger.bytes_received_N[:] = sent
