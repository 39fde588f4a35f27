"""The training thread never waits: by construction, with the exchange side stuck and every peer
silent.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from test_conservation import replica_of
from torch import nn

from swarmsgd import graphs
from swarmsgd.codec import make_code
from swarmsgd.core.layout import Layout
from swarmsgd.core.node import Node
from swarmsgd.observe.records import Recorder
from swarmsgd.settings.swarm import SwarmSettings
from swarmsgd.testing.memory import MemoryNetwork
from swarmsgd.train.checkpoint.resumed import SwarmStreams
from swarmsgd.train.node.connection import Connection
from swarmsgd.train.node.not_exchanged import NotExchanged
from swarmsgd.train.node.swarm import Swarm
from swarmsgd.train.node.watch import Watch
from swarmsgd.train.node.worker import Worker


class Rig:
    """A swarm of node 0 over an in-process network whose other nodes never say anything."""

    def __init__(self, dim: int = 5000, fused: bool = False) -> None:
        self.network = MemoryNetwork(3, threaded=True)
        for rank in (1, 2):
            self.network.stop(rank)
        self.model = nn.Linear(dim, 1, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-6, fused=fused)
        watch = Watch(self.model, self.optimizer, Layout(self.model))
        replica = replica_of(watch.live, make_code(dim, None))
        rng = np.random.default_rng(0)
        recorder = Recorder(None, 0)
        self.worker = Worker(
            Node(0, [1, 2], lambda among: int(rng.choice(among)) if among else None),
            replica,
            self.network.transport(0),
            run=1,
            recorder=recorder,
        )
        self.worker.start()
        self.replica = replica
        others = NotExchanged(self.model)
        connection = Connection(None, replica, self.worker, others)  # pyright: ignore[reportArgumentType]
        self.swarm = Swarm(
            self.model,
            [self.optimizer],
            SwarmSettings(),
            graphs.complete(3),
            0,
            watch,
            [],
            connection,
            recorder,
            SwarmStreams.of(SwarmSettings(), 0),
            None,
        )
        self.x = torch.ones(4, dim)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()
        self.optimizer.step()

    def close(self) -> None:
        self.swarm._hook.remove()
        self.swarm._others.close()
        self.swarm._left = True
        self.worker.machine.deadline = 0.0  # do not sit out the patience with the silent peers
        self.worker.do(lambda: None)
        self.worker.close(drain_s=0.0)


def test_steps_go_on_while_a_kernel_holds_the_lock_and_every_peer_is_silent():
    rig = Rig()
    entered, leave = threading.Event(), threading.Event()
    try:

        def stuck_kernel() -> None:
            with rig.replica.lock:
                entered.set()
                leave.wait()

        rig.worker.do(stuck_kernel)
        assert entered.wait(600)
        rig.replica.vectors[0].has_pending = True  # there is something to apply at every step
        steps = 300
        for _ in range(steps):
            rig.step()
        assert rig.replica.lock.locked()  # the kernel held it all the while
        stats = rig.swarm.stats()
        assert stats["steps"] == steps
        assert stats["lock_missed"] >= steps - 4
        assert stats["blocked_s"] == 0.0 and stats["started"] == 0
        leave.set()
        while rig.swarm.stats()["started"] == 0:  # it goes on once the lock is free
            rig.step()
        assert rig.swarm.stats()["started"] == 1
    finally:
        leave.set()
        rig.close()


def test_a_burst_goes_on_while_its_exchange_is_under_way():
    rig = Rig()
    try:
        for _ in range(200):
            rig.step()
        stats = rig.swarm.stats()
        assert stats["started"] <= 1 and stats["steps"] == 200 and stats["blocked_s"] == 0.0
    finally:
        rig.close()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_grad_scaler_skips_is_not_a_local_step(fused: bool):
    rig = Rig(fused=fused)
    try:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for scale in (1.0, float("inf"), 1.0):
            before = rig.model.weight.detach().clone()
            rig.optimizer.zero_grad()
            scaler.scale(rig.model(rig.x).mean() * scale).backward()
            scaler.step(rig.optimizer)
            scaler.update()
            assert torch.equal(before, rig.model.weight) == (scale != 1.0)
        assert rig.swarm.stats()["steps"] == 2
    finally:
        rig.close()
