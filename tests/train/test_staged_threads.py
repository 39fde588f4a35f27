"""Models on a device with real threads, and on a real GPU where there is one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from lagging import Lagging
from test_conservation import DIM, Vector, replica_of
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
from swarmsgd.train.node.transfers import Streams
from swarmsgd.train.node.watch import Watch
from swarmsgd.train.node.worker import Worker

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(autouse=True)
def _no_word_of_pinned_memory(caplog: pytest.LogCaptureFixture) -> None:
    """There is none without a GPU, and the stand-in needs none."""
    caplog.set_level(logging.ERROR, "swarmsgd")


class Queued(torch.optim.Optimizer):
    """Takes steps on a lagging device, and keeps their sum."""

    def __init__(self, model: nn.Module, device: Lagging, rng: np.random.Generator) -> None:
        super().__init__(model.parameters(), {})
        self.device = device
        self.taken = np.zeros(DIM)
        self._rng = rng

    def step(self, closure: object = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        move = self._rng.normal(scale=0.1, size=DIM).astype(np.float32)
        self.taken += move
        with self.device.stream(self.device.current):
            self.param_groups[0]["params"][0].add_(torch.from_numpy(move))
        return 0.0


class Threaded:
    """A node with a training thread, an exchange thread, and a device that has a thread too."""

    def __init__(self, rank: int, network: MemoryNetwork, mode: str) -> None:
        rng, choices = (np.random.default_rng([k, rank]) for k in (1, 2))
        self.device = Lagging(lambda count: int(choices.integers(count)))
        model = Vector(rng.normal(size=DIM))
        self.x = model.x.detach()
        self.start = self.x.double().numpy()
        self.optimizer = Queued(model, self.device, rng)
        watch = Watch(model, self.optimizer, Layout(model))
        transfers = Streams(watch.live, self.device)
        self.replica = replica_of(watch.live, make_code(DIM, 8), transfers)
        others = [j for j in range(3) if j != rank]
        partners = np.random.default_rng([3, rank])
        self.worker = Worker(
            Node(rank, others, lambda among: int(partners.choice(among)) if among else None),
            self.replica,
            network.transport(rank),
            run=1,
            recorder=Recorder(None, rank),
        )
        self.worker.start()
        others = NotExchanged(model)
        connection = Connection(None, self.replica, self.worker, others)  # pyright: ignore[reportArgumentType]
        self.swarm = Swarm(
            model,
            [self.optimizer],
            SwarmSettings(local_steps=2, mode=mode),
            graphs.complete(3),
            rank,
            watch,
            [],
            connection,
            Recorder(None, rank),
            SwarmStreams.of(SwarmSettings(local_steps=2, mode=mode), rank),
            None,
        )

    def train(self, exchanges: int) -> None:
        counts = self.worker.machine.counts
        while counts.completed < exchanges and self.worker.machine.membership.open:
            if self.swarm.config.mode == "non-blocking":
                with self.device.no_waiting():
                    self.optimizer.step()
            else:
                self.optimizer.step()
            self.device.wait_until(at_most=20)  # as a loop that looks at its loss

    def leave(self) -> None:
        """As `Connection.close`, without a store to say goodbye to."""
        self.swarm._hook.remove()
        self.swarm._others.close()
        self.swarm._left = True
        self.worker.close()
        self.replica.settle()


@pytest.mark.parametrize("mode", ["non-blocking", "blocking"])
def test_threads_devices_and_exchanges_at_full_speed_conserve_the_sum(mode):
    network = MemoryNetwork(3, threaded=True)
    nodes = [Threaded(rank, network, mode) for rank in range(3)]
    failures: list[BaseException] = []

    def run(node: Threaded) -> None:
        try:
            node.train(exchanges=15)
        except BaseException as error:
            failures.append(error)
        finally:
            node.leave()

    threads = [threading.Thread(target=run, args=(node,)) for node in nodes]
    with nodes[0].device.running(), nodes[1].device.running(), nodes[2].device.running():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert not failures, failures
    counts = [node.worker.machine.counts for node in nodes]
    assert sum(c.completed for c in counts) > 20 and sum(c.lost for c in counts) == 0
    expected = sum(node.start + node.optimizer.taken for node in nodes)
    total = sum(node.x.double().numpy() for node in nodes)
    assert np.linalg.norm(total - expected) < 1e-5 * np.linalg.norm(expected)


def check_gpu(*arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_check_of_a_gpu_says_that_there_is_none():
    assert check_gpu(CUDA_VISIBLE_DEVICES="").startswith("no GPU here: ")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_all_of_it_holds_on_a_gpu():
    said = check_gpu("--rounds", "1", "--steps", "60", "--parameters", "1000000")
    assert "| yes |" in said and "| NO" not in said
