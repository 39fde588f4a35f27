"""One node of the stall benchmark: trains for some seconds and writes down every step.

Beside each step's time in swarmsgd it times a control in the same thread: the same compiled passes
over vectors of the same size, with no peer and no lock.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from loop import mlp

import swarmsgd
from swarmsgd.codec import kernels
from swarmsgd.core.lattice import blocks_of
from swarmsgd.core.segments import Segments


class Control:
    """Stands before the replica in the training thread, and repeats the memory passes that it has
    made, on vectors of its own.
    """

    def __init__(self, swarm: swarmsgd.Swarm) -> None:
        assert swarm._connection is not None
        self.replica = swarm._connection.replica
        swarm._connection = replace(swarm._connection, replica=self)
        dim = self.replica.vectors[0].copy.size
        self.live, self.pending, self.copy = (np.zeros(dim, np.float32) for _ in range(3))
        table = Segments.row(self.live)
        self.where = table.addresses, table.starts
        self.burst_max = np.zeros(blocks_of(dim), np.float32)
        self.done = 0
        """What the replica did in this step: 0 nothing, 1 apply, 2 publish."""
        self.pending_before = False

    def __getattr__(self, name: str) -> Any:
        """All else that the training thread asks a replica for."""
        return getattr(self.replica, name)

    def try_apply(self) -> bool:
        """As the replica's."""
        did = self.replica.try_apply()
        self.done = 1 if did else 3
        return did

    def try_publish(self) -> bool:
        """As the replica's."""
        self.pending_before = self.replica.has_pending
        did = self.replica.try_publish()
        self.done = 2 if did else 3
        return did

    def repeat(self) -> float:
        """Seconds for the same passes here."""
        if self.done == 1 or (self.done == 2 and self.pending_before):
            self.pending.fill(1e-9)
        self.live += 1e-9
        begin = time.perf_counter()
        if self.done == 1:
            kernels.apply_pending(*self.where, self.pending)
        elif self.done == 2:
            kernels.apply_and_publish(*self.where, self.pending, self.copy, self.burst_max)
        return time.perf_counter() - begin


def main() -> None:
    parameters, seconds, path = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = mlp(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    rows: list[tuple[float, float, float, float, int]] = []
    with swarmsgd.join(model, optimizer) as swarm:
        control = Control(swarm)
        data = torch.randn(8, 32, model[0].in_features)
        print("joined", flush=True)
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            control.done = 0
            begin = time.perf_counter()
            x = data[len(rows) % 8]
            optimizer.zero_grad()
            (model(x) - x).square().mean().backward()
            optimizer.step()
            step_s = time.perf_counter() - begin
            hook_s = swarm._timing.last_s
            rows.append((now, step_s, hook_s, control.repeat(), control.done))
        stats = swarm.stats()
    np.savez(path, rows=np.array(rows), lost=stats["lost"], completed=stats["completed"])


if __name__ == "__main__":
    main()
