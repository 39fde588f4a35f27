"""Small-batch SGD: one node, one model, all samples in sequence.

The yardstick of accuracy at equal samples: as many steps as the n nodes of a run make together,
each with one node's batch, taken from the nodes' streams in turn. Nothing is sent. Virtual time is
that of node 0 making all the steps alone; the ledger's figures are its own, the others' are zero.
The optimizer may be any.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.speeds import Speeds


class Sgd:
    """See `swarmsgd.sim.command.makers.Algorithm`. Ends early if node 0 is killed."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        config = fleet.config
        self._fleet = fleet
        self._ledger = ledger
        self._speeds = Speeds(config.world, config.nodes, config.seed)
        fleet.joint_schedule = True  # one model: the rate goes with all the steps
        happenings = [h for h in config.world.happenings if 0 in h.nodes]
        late = 0 in config.world.absent_at_start
        self._begin_s = min(h.start_s for h in happenings if h.what == "join") if late else 0.0
        self._killed_s = min(
            (h.start_s for h in happenings if h.what == "kill"),
            default=np.inf,
        )

    def run(self) -> Iterator[float]:
        """Yields the virtual time after each step."""
        now = self._begin_s
        for step in range(self._fleet.budget):
            seconds = self._speeds.step_s(0, now)
            if now + seconds > self._killed_s:
                self._ledger.clock.now = max(now, self._killed_s)
                self._ledger.stopped = "node 0 was killed, which makes all the steps"
                yield self._ledger.clock.now
                return
            self._step(step % self._fleet.num_nodes)
            self._ledger.compute_s_N[0] += seconds
            now += seconds
            self._ledger.clock.now = now
            yield now

    def live(self) -> list[int]:
        return [0]

    def models(self) -> Vector:
        return self._fleet.x_ND[:1]

    def tally(self) -> None:
        """The ledger is always up to date."""

    def _step(self, stream: int) -> None:
        """One step on the next batch of another node's stream, counted as node 0's."""
        fleet = self._fleet
        lr = fleet.lr(0)
        fleet.buffers_NB[stream] = fleet.buffers_NB[0]
        gradient = fleet.gradient(stream, fleet.x_ND[0])
        fleet.buffers_NB[0] = fleet.buffers_NB[stream]
        for steps_N in (fleet.steps_N, fleet.made_N):
            steps_N[stream] -= 1
            steps_N[0] += 1
        fleet.descend(0, fleet.x_ND[0], gradient, lr)
