"""The sum of copies under any interleaving: real workers and codes over a stepped in-process
network.

No thread, no sleep: the test plays all training threads, hypothesis chooses who does what when.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from swarmsgd.codec import make_code
from swarmsgd.core.layout import Layout
from swarmsgd.core.node import Node
from swarmsgd.core.replica import Replica
from swarmsgd.core.segments import Segments
from swarmsgd.core.wire_code import Code
from swarmsgd.observe.records import Recorder, read_records
from swarmsgd.settings.swarm import BITS
from swarmsgd.testing.memory import MemoryNetwork
from swarmsgd.train.node.staging import stage
from swarmsgd.train.node.transfers import Transfers
from swarmsgd.train.node.worker import Worker
from swarmsgd.transport.base import Arrived, Lost

DIM = 4096 + 70
"""More than one block, the second one partial."""


class Vector(nn.Module):
    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.from_numpy(values.astype(np.float32)))


def segments_of(model: nn.Module) -> Segments:
    layout = Layout(model)
    return Segments("parameter", layout.slots, layout.parameters)


def replica_of(live: Segments, code: Code, transfers: Transfers | None = None) -> Replica:
    """The replica of a model, on a device if there are transfers to and from one."""
    return Replica([stage("model", live, code, transfers)], threading.Lock())


class Stepped:
    """`count` workers on one stepped network; keeps the books of what the sum should be."""

    def __init__(
        self,
        count: int,
        seed: int,
        bits: int | None,
        records: Path | None = None,
        **faults: object,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.network = MemoryNetwork(count, rng=self.rng, **faults)  # pyright: ignore
        self.models: list[Vector] = []
        self.workers: list[Worker] = []
        self.dead: list[Worker] = []
        self.expected = np.zeros(DIM)
        self.clock_s = 0.0
        for rank in range(count):
            model = Vector(self.rng.normal(scale=10.0 ** (rank - 1), size=DIM))
            replica = replica_of(segments_of(model), make_code(DIM, bits))
            worker = Worker(
                Node(rank, [j for j in range(count) if j != rank], self._pick),
                replica,
                self.network.transport(rank),
                run=1,
                recorder=Recorder(records and records / f"{rank}.jsonl", rank),
                clock=lambda: self.clock_s + self.network.now,
            )
            self.models.append(model)
            self.workers.append(worker)
            self.expected += replica.copy_now()
        self.scale = float(np.abs([m.x.detach().numpy() for m in self.models]).sum())
        self.largest_distance = 0.0
        self._seen_sq = [0.0] * count

    def _pick(self, candidates: tuple[int, ...]) -> int | None:
        return int(self.rng.choice(candidates)) if candidates else None

    def train(self, rank: int, rate: float) -> None:
        """One local step, and the end of a burst if nothing of this node is under way."""
        model, worker = self.models[rank], self.workers[rank]
        with torch.no_grad():
            model.x += torch.from_numpy(self.rng.normal(scale=rate, size=DIM).astype(np.float32))
        if not worker.ready():
            assert worker.replica.try_apply()
            return
        before = worker.replica.copy_now().astype(np.float64)
        assert worker.replica.try_publish()
        self.expected += worker.replica.copy_now() - before
        self.scale += float(np.abs(model.x.detach().numpy()).sum())
        worker.burst_ended()
        worker.pump()
        self.note_distance()

    def deliver(self) -> bool:
        moved = self.network.step()
        for worker in self.workers:
            if worker not in self.dead:
                worker.pump()
        self.note_distance()
        return moved

    def note_distance(self) -> None:
        """Keep the largest ||Q_i - Q_j|| that any exchange moved models by."""
        for rank, worker in enumerate(self.workers):
            moved = worker.traffic.distance_sq - self._seen_sq[rank]
            self._seen_sq[rank] += moved
            self.largest_distance = max(self.largest_distance, float(np.sqrt(moved)))

    def pass_time(self, seconds: float) -> None:
        self.clock_s += seconds
        for worker in self.workers:
            worker.pump()

    def drift(self) -> float:
        total = sum(w.replica.copy_now().astype(np.float64) for w in self.workers)
        return float(np.linalg.norm(total - self.expected))

    def unfinished(self) -> int:
        """Exchanges of which only one end may have mixed."""
        return sum(w.machine.counts.lost + (w.machine.held is not None) for w in self.workers)

    def check_live(self) -> None:
        """x + p is c plus the local progress since the last publish; here: settle and compare."""
        for model, worker in zip(self.models, self.workers, strict=True):
            worker.replica.settle()
            assert np.isfinite(model.x.detach().numpy()).all()


actions = st.lists(
    st.tuples(st.sampled_from(["train", "train", "deliver", "deliver", "time"]), st.integers(0, 3)),
    min_size=10,
    max_size=120,
)
relaxed = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def play(swarm: Stepped, script: list[tuple[str, int]], rate: float) -> None:
    for what, rank in script:
        if what == "train":
            swarm.train(rank, rate)
        elif what == "deliver":
            swarm.deliver()
        else:
            swarm.pass_time(20.0)
    while swarm.deliver():
        pass


@pytest.mark.parametrize("bits", BITS)
@relaxed
@given(script=actions, seed=st.integers(0, 2**32), rate=st.sampled_from([0.0, 1e-3, 1.0]))
def test_the_sum_of_copies_is_conserved_under_any_interleaving(bits, script, seed, rate):
    swarm = Stepped(4, seed, bits, delay_s=(0.0, 0.5))
    play(swarm, [(w, r) for w, r in script if w != "time"], rate)
    assert swarm.unfinished() == 0
    assert swarm.drift() <= 1e-8 * swarm.scale
    swarm.check_live()


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@relaxed
@given(script=actions, seed=st.integers(0, 2**32))
def test_lost_messages_shift_the_sum_by_no_more_than_the_lost_exchanges(bits, script, seed):
    swarm = Stepped(4, seed, bits, delay_s=(0.0, 0.5), loss=0.3)
    play(swarm, script, 1e-3)
    allowed = swarm.unfinished() * swarm.largest_distance / 2
    assert swarm.drift() <= 1.05 * allowed + 1e-8 * swarm.scale


@relaxed
@given(script=actions, seed=st.integers(0, 2**32))
def test_a_death_shifts_the_sum_by_no_more_than_the_exchanges_with_the_dead(script, seed):
    swarm = Stepped(4, seed, None, delay_s=(0.0, 0.5))
    half = len(script) // 2
    for what, rank in script[:half]:
        swarm.train(rank, 1e-3) if what == "train" else swarm.deliver()
    swarm.network.kill(3)
    swarm.dead.append(swarm.workers[3])
    for what, rank in script[half:]:
        swarm.train(rank % 3, 1e-3) if what == "train" else swarm.deliver()
    while swarm.deliver():
        pass
    allowed = (swarm.unfinished() + sum(w.machine.counts.answered for w in swarm.workers[3:])) * (
        swarm.largest_distance / 2
    )
    # The dead node's copy stays in the sum as it was left; an exchange with it may be one-sided.
    assert swarm.drift() <= 1.05 * allowed + 1e-8 * swarm.scale
    for worker in swarm.workers[:3]:
        assert 3 not in worker.machine.membership.open


def test_exchanges_alone_bring_consensus():
    swarm = Stepped(4, 5, None)
    for step in range(400):
        swarm.train(step % 4, 0.0)
        while swarm.deliver():
            pass
    copies = np.stack([w.replica.copy_now() for w in swarm.workers])
    assert np.abs(copies - copies.mean(0)).max() < 1e-4
    assert swarm.drift() < 1e-5 * swarm.scale


@pytest.mark.parametrize("count", [2, 3, 4])
def test_offers_that_cross_are_mixed_once_and_bring_consensus(count):
    swarm = Stepped(count, 5, None)
    before = np.var([w.replica.copy_now() for w in swarm.workers], axis=0).sum()
    for _ in range(8):
        for rank in range(count):  # all offer before anyone has heard of another's
            swarm.train(rank, 0.0)
        while swarm.deliver():
            pass
    after = np.var([w.replica.copy_now() for w in swarm.workers], axis=0).sum()
    assert after < before / 1e3
    assert swarm.drift() <= 1e-8 * swarm.scale
    assert swarm.unfinished() == 0
    assert sum(w.machine.counts.refused for w in swarm.workers) > 0


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8, 4])
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), place=st.floats(0, 1, exclude_max=True), victim=st.integers(0, 40)
)
def test_a_flipped_bit_costs_at_most_its_exchange_and_its_link(bits, seed, place, victim):
    """Anywhere in a message: nothing wrong is mixed, the peer is told why, the others go on."""
    with tempfile.TemporaryDirectory() as folder:
        swarm = Stepped(3, seed, bits, records=Path(folder))
        try:
            damage_one_message(swarm, place, victim)
            check_who_was_told(Path(folder), 3, swarm)
        finally:
            for worker in swarm.workers:
                worker._recorder.close()


def damage_one_message(swarm: Stepped, place: float, victim: int) -> None:
    """Thirty exchanges, in the course of which one bit of one message flips; check the numbers."""
    number = 0

    def damaging(poll: Callable[[float | None], Arrived | Lost | None]):
        def polled(timeout_s: float | None) -> Arrived | Lost | None:
            nonlocal number
            event = poll(timeout_s)
            if isinstance(event, Arrived):
                if number == victim:
                    bit = int(place * 8 * len(event.message))
                    event.message[bit // 8] ^= 1 << (bit % 8)
                number += 1
            return event

        return polled

    for worker in swarm.workers:
        worker.transport.poll = damaging(worker.transport.poll)
    largest = max(float(np.abs(w.replica.copy_now()).max()) for w in swarm.workers)
    for step in range(30):
        swarm.train(step % 3, 0.0)
        while swarm.deliver():
            pass
        swarm.pass_time(1.0)
    assert number > victim
    copies = [w.replica.copy_now() for w in swarm.workers]
    assert max(float(np.abs(c).max()) for c in copies) <= 1.5 * largest
    allowed = swarm.unfinished() * swarm.largest_distance / 2
    assert swarm.drift() <= 1.05 * allowed + 1e-8 * swarm.scale
    assert sum(w.traffic.distrusted for w in swarm.workers) <= 1
    assert sum(len(w.machine.membership.open) for w in swarm.workers) in (4, 6)  # one link at most


def check_who_was_told(folder: Path, count: int, swarm: Stepped) -> None:
    """Whoever was dropped has the reason of the node that dropped it in its own records."""
    events = [
        (rank, record["what"], record["peer"], record["text"])
        for rank in range(count)
        for record in read_records(folder / f"{rank}.jsonl")
        if record["kind"] == "event"
    ]
    distrusted = [event for event in events if event[1] == "distrusted"]
    assert len(distrusted) == sum(w.traffic.distrusted for w in swarm.workers)
    for rank, _, peer, why in distrusted:
        assert (peer, "distrusts", rank, why) in events


@pytest.mark.parametrize(("bits", "most"), [(None, 0.0), (8, 0.01), (6, 0.15)])
def test_the_expected_quantization_noise_is_recorded_and_small(bits, most):
    swarm = Stepped(3, 1, bits)
    for step in range(90):
        swarm.train(step % 3, 1e-2)
        while swarm.deliver():
            pass
    for worker in swarm.workers:
        ratio = worker.traffic.noise_sq / worker.traffic.distance_sq
        assert (ratio == 0) if bits is None else (0 < ratio <= most)
