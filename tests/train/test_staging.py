"""Models on a device: the sum of models and the training thread's freedom, whatever the device
does when. No GPU is needed: `lagging` stands in for one.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lagging import Lagging
from test_conservation import DIM, Vector, replica_of, segments_of

from swarmsgd.codec import make_code
from swarmsgd.core.layout import Slot
from swarmsgd.core.node import Node
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ModelError
from swarmsgd.observe.records import Recorder
from swarmsgd.testing.memory import MemoryNetwork
from swarmsgd.train.node.transfers import InOrder, Streams
from swarmsgd.train.node.worker import Worker


@pytest.fixture(autouse=True)
def _no_word_of_pinned_memory(caplog: pytest.LogCaptureFixture) -> None:
    """There is none without a GPU, and the stand-in needs none."""
    caplog.set_level(logging.ERROR, "swarmsgd")


relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def lagging(rng: np.random.Generator) -> Lagging:
    return Lagging(lambda count: int(rng.integers(count)))


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    calls=st.lists(st.sampled_from(["add", "fetch", "step", "run", "run"]), max_size=30),
    seed=st.integers(0, 2**32),
)
def test_transfers_take_effect_in_the_order_of_the_calls_whatever_the_device_does_when(calls, seed):
    rng = np.random.default_rng(seed)
    device = lagging(rng)
    live = torch.zeros(3)
    made: list[Streams] = []
    device.put(device.current, lambda: made[0]._extra.fill_(float("nan")))  # its memory's last use
    parts = [live[:1], live[1:]]
    slots = [Slot("first", (1,), (1,), 0, 1), Slot("second", (2,), (1,), 1, 2)]
    made.append(Streams(Segments("part", slots, parts), device))
    expected = np.zeros(3)
    fetched: list[tuple[torch.Tensor, np.ndarray]] = []
    sending: list = []
    for call in calls:
        value = torch.from_numpy(rng.integers(-9, 9, 3).astype(np.float32))
        if call == "add":
            expected = expected + value.numpy()
            sending.append((value, made[0].add(value).sent))
        elif call == "fetch":
            host = torch.full((3,), float("nan"))
            made[0].fetch(host)
            fetched.append((host, expected))
        elif call == "step":
            expected = expected + value.numpy()
            with device.stream(device.current):
                live.add_(value)
        else:
            device.run_one()
        for host, sent in sending:
            if sent.query():
                host.fill_(float("nan"))  # `sent` says that it may be written to
    device.run_all()
    np.testing.assert_array_equal(live.numpy(), expected)
    for host, then in fetched:
        np.testing.assert_array_equal(host.numpy(), then)


class Lagged:
    """Nodes on a stepped network, each with its model on a device of its own; keeps the books."""

    def __init__(self, count: int, seed: int, bits: int | None, delay_s: float = 0.5) -> None:
        self.rng = np.random.default_rng(seed)
        self.network = MemoryNetwork(count, rng=self.rng, delay_s=(0.0, delay_s))
        self.devices = [lagging(self.rng) for _ in range(count)]
        self.models: list[torch.Tensor] = []
        self.workers: list[Worker] = []
        self.progress = np.zeros((count, DIM))
        """Of each node since x was last read from its device."""
        self.arriving: dict[int, np.ndarray] = {}
        """What a publish under way will add to the sum of copies."""
        self.expected = np.zeros(DIM)
        for rank in range(count):
            model = Vector(self.rng.normal(scale=10.0 ** (rank - 1), size=DIM))
            live = segments_of(model)
            transfers = Streams(live, self.devices[rank])
            worker = Worker(
                Node(rank, [j for j in range(count) if j != rank], self._pick),
                replica_of(live, make_code(DIM, bits), transfers),
                self.network.transport(rank),
                run=1,
                recorder=Recorder(None, rank),
                clock=lambda: self.network.now,
            )
            self.models.append(model.x.detach())
            self.workers.append(worker)
            self.expected += worker.replica.copy_now()
        self.scale = sum(float(x.abs().sum()) for x in self.models)

    def _pick(self, candidates: tuple[int, ...]) -> int | None:
        return int(self.rng.choice(candidates)) if candidates else None

    def train(self, rank: int, rate: float) -> None:
        """One local step, queued on the device, and what the hook does after it."""
        device, worker = self.devices[rank], self.workers[rank]
        step = self.rng.normal(scale=rate, size=DIM).astype(np.float32)
        self.progress[rank] += step
        self.scale += float(np.abs(step).sum())
        with device.stream(device.current):
            self.models[rank].add_(torch.from_numpy(step))
        with device.no_waiting():
            if not worker.ready():
                if worker.replica.has_pending:
                    worker.replica.try_apply()
                return
            assert worker.replica.try_publish()
        self.arriving[rank] = self.progress[rank].copy()
        self.progress[rank] = 0
        worker.burst_ended()

    def exchange(self, rank: int) -> None:
        """Time for the exchange thread of a node. A landing changes c by local progress alone."""
        worker = self.workers[rank]
        before = worker.replica.copy_now()
        if rank in self.arriving and worker.replica.land():
            progress = self.arriving.pop(rank)
            self.expected += progress
            change = worker.replica.copy_now().astype(np.float64) - before
            assert np.linalg.norm(change - progress) <= 1e-7 * self.scale
        worker.pump()

    def act(self, what: str, rank: int, rate: float) -> None:
        match what:
            case "train":
                self.train(rank, rate)
            case "run":
                self.devices[rank].run_one()
            case "exchange":
                self.exchange(rank)
            case "deliver":
                self.network.step()

    def finish(self) -> None:
        """Until nothing moves any more."""
        moving = True
        while moving:
            moving = False
            for rank, device in enumerate(self.devices):
                device.run_all()
                moving |= self.workers[rank].replica.landing
                self.exchange(rank)
            moving |= self.network.step()
        for worker in self.workers:
            worker.replica.settle()
        assert not self.arriving

    def drift(self) -> float:
        total = sum(w.replica.copy_now().astype(np.float64) for w in self.workers)
        return float(np.linalg.norm(total - self.expected))


actions = st.lists(
    st.tuples(
        st.sampled_from(["train", "train", "run", "run", "run", "exchange", "deliver"]),
        st.integers(0, 2),
    ),
    min_size=20,
    max_size=200,
)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 8, 4])
@relaxed
@given(script=actions, seed=st.integers(0, 2**32), rate=st.sampled_from([0.0, 1e-3, 1.0]))
def test_the_sum_is_conserved_whatever_devices_and_messages_do_when(bits, script, seed, rate):
    swarm = Lagged(3, seed, bits)
    for what, rank in script:
        swarm.act(what, rank, rate)
        # An exchange that only the partner has mixed is the one thing that may be missing.
        under_way = any(worker.machine.held is not None for worker in swarm.workers)
        assert under_way or swarm.drift() <= 1e-7 * swarm.scale
    swarm.finish()
    assert all(w.machine.counts.lost == 0 and w.machine.held is None for w in swarm.workers)
    assert swarm.drift() <= 1e-7 * swarm.scale
    for rank, worker in enumerate(swarm.workers):
        ahead = swarm.models[rank].numpy() - worker.replica.copy_now()
        assert np.linalg.norm(ahead - swarm.progress[rank]) <= 1e-7 * swarm.scale


def test_exchanges_of_models_on_devices_bring_consensus():
    swarm = Lagged(3, 5, None, delay_s=0.0)
    for step in range(300):
        swarm.train(step % 3, 0.0)
        swarm.devices[step % 3].run_all()
        for rank in (0, 1, 2):
            swarm.exchange(rank)
            swarm.network.step()
    swarm.finish()
    models = np.stack([x.numpy() for x in swarm.models])
    assert np.abs(models - models.mean(0)).max() < 1e-4
    assert swarm.drift() < 1e-6 * swarm.scale


def answer_once(swarm: Lagged) -> None:
    """Node 1 publishes and offers, node 0 answers, whatever its own device does meanwhile."""
    swarm.train(1, 0.1)
    swarm.devices[1].run_all()
    swarm.exchange(1)
    swarm.network.step()
    swarm.exchange(0)
    swarm.network.step()
    swarm.exchange(1)


def test_answers_between_the_reading_of_a_model_and_its_landing_are_kept():
    swarm = Lagged(2, 1, None, delay_s=0.0)
    here = swarm.workers[0]
    start = here.replica.copy_now()
    swarm.train(0, 0.1)
    swarm.train(1, 0.0)
    swarm.devices[1].run_all()
    swarm.exchange(1)  # lands, and offers
    while swarm.network.step():
        here.pump()  # answers, next to the copy of before
    answered = here.replica.copy_now()
    assert here.machine.counts.answered == 1 and here.replica.landing and here.replica.has_pending
    assert np.abs(answered - start).max() > 1e-3
    with swarm.devices[0].no_waiting():
        assert not here.replica.try_apply()  # it is for the landing to take account of
    swarm.devices[0].run_all()
    progress = swarm.arriving[0]
    swarm.exchange(0)
    assert not here.replica.landing
    np.testing.assert_allclose(here.replica.copy_now(), answered + progress, atol=1e-6)
    blocks = [np.abs(progress[:4096]).max(), np.abs(progress[4096:]).max()]
    np.testing.assert_allclose(here.replica.vectors[0].burst_max, blocks, atol=1e-6)
    swarm.finish()
    np.testing.assert_allclose(swarm.models[0], here.replica.copy_now(), atol=1e-5)


def test_a_device_that_does_nothing_holds_up_no_step_and_gathers_no_transfers():
    swarm = Lagged(2, 2, None, delay_s=0.0)
    answer_once(swarm)  # something is pending from now on
    device = swarm.devices[0]
    for _ in range(200):
        swarm.train(0, 0.1)
        swarm.exchange(0)
    assert device.waits == 0
    transfers = sum(len(stream.work) for stream in device.streams) - 200
    assert 0 < transfers < 20  # one change on its way there, one model on its way back
    swarm.finish()
    assert swarm.drift() < 1e-6 * swarm.scale


def test_no_change_is_sent_before_the_one_before_is_in_the_model():
    """Else the exchange thread, which waits for what was sent, would wait for all the device."""
    swarm = Lagged(2, 6, None, delay_s=0.0)
    here, device = swarm.workers[0].replica, swarm.devices[0]
    device.run_all()
    answer_once(swarm)
    with device.no_waiting():
        assert here.has_pending and here.try_apply()
    device.run_transfers()
    answer_once(swarm)
    assert device.waits == 0
    with device.no_waiting():
        assert here.has_pending and not here.try_apply()
        device.run_all()
        assert here.try_apply()
    swarm.finish()
    assert swarm.drift() < 1e-6 * swarm.scale


def test_an_exchange_leaves_a_change_alone_that_is_still_being_sent():
    swarm = Lagged(2, 7, None, delay_s=0.0)
    here, device = swarm.workers[0].replica, swarm.devices[0]
    answer_once(swarm)
    with device.no_waiting():
        assert here.try_apply()
    answer_once(swarm)
    assert device.waits == 1  # the exchange thread's, for the transfer
    swarm.finish()
    np.testing.assert_allclose(swarm.models[0].numpy(), here.copy_now(), atol=1e-5)


def test_settling_waits_for_a_change_under_way_and_adds_what_came_since():
    swarm = Lagged(2, 8, None, delay_s=0.0)
    here, device = swarm.workers[0].replica, swarm.devices[0]
    device.run_all()
    answer_once(swarm)
    with device.no_waiting():
        assert here.try_apply()
    device.run_transfers()
    answer_once(swarm)
    here.settle()
    assert not here.has_pending
    np.testing.assert_allclose(swarm.models[0].numpy(), here.copy_now(), atol=1e-5)


def test_a_landing_keeps_what_was_offered_for_a_late_reply():
    swarm = Lagged(2, 9, None, delay_s=0.0)
    here = swarm.workers[0]
    swarm.train(0, 0.1)
    swarm.devices[0].run_all()
    swarm.exchange(0)
    assert here.machine.held is not None
    swarm.models[0].add_(1.0)
    swarm.expected += 1.0
    assert here.replica.try_publish()  # as after patience has run out
    swarm.devices[0].run_all()
    assert here.replica.land()
    swarm.finish()
    assert here.machine.counts.completed == 1 and here.traffic.distrusted == 0
    assert swarm.drift() < 1e-6 * swarm.scale


def test_a_node_may_end_while_its_model_is_on_its_way():
    swarm = Lagged(2, 3, None, delay_s=0.0)
    answer_once(swarm)
    before = swarm.workers[0].replica.copy_now()
    swarm.train(0, 0.5)
    swarm.workers[0].replica.settle()
    assert not swarm.workers[0].replica.landing and not swarm.workers[0].replica.has_pending
    expected = before + swarm.arriving[0]
    np.testing.assert_allclose(swarm.models[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(swarm.workers[0].replica.copy_now(), expected, atol=1e-5)


def test_a_model_that_is_not_finite_is_not_published_and_is_named():
    swarm = Lagged(2, 4, 8, delay_s=0.0)
    worker, before = swarm.workers[0], swarm.workers[0].replica.copy_now()
    bad = torch.zeros(DIM).index_fill_(0, torch.tensor([9]), float("nan"))
    with swarm.devices[0].stream(swarm.devices[0].current):
        swarm.models[0].add_(bad)
    swarm.train(0, 0.1)
    assert worker.replica.error is None
    swarm.devices[0].run_all()
    swarm.workers[0].pump()
    error = worker.replica.error
    assert isinstance(error, ModelError)
    assert f"x has 1 non-finite of {DIM} values" in str(error)
    np.testing.assert_array_equal(worker.replica.copy_now(), before)
    while swarm.network.step():
        for each in swarm.workers:
            each.pump()
    assert worker.machine.counts.completed == 1  # it offered what it had, and is still a peer
    worker.replica.settle()
    assert np.isfinite(worker.replica.vectors[0].pending).all()
    assert all(np.isfinite(w.replica.copy_now()).all() for w in swarm.workers)


def test_a_staged_model_whose_transfers_are_over_at_once_ends_with_the_bits_of_a_direct_one():
    def trained(staged: bool) -> list[bytes]:
        rng = np.random.default_rng(0)
        network = MemoryNetwork(3, rng=rng, delay_s=(0.0, 0.5))
        models, workers = [], []
        for rank in range(3):
            model = Vector(rng.normal(size=DIM))
            models.append(model.x.detach())
            live = segments_of(model)
            transfers = InOrder(live) if staged else None
            replica = replica_of(live, make_code(DIM, 8), transfers)
            worker = Worker(
                Node(
                    rank,
                    [j for j in range(3) if j != rank],
                    lambda candidates: int(rng.choice(candidates)),
                ),
                replica,
                network.transport(rank),
                run=1,
                recorder=Recorder(None, rank),
                clock=lambda: network.now,
            )
            workers.append(worker)
        for step in range(60):
            replica, worker = workers[step % 3].replica, workers[step % 3]
            models[step % 3].add_(torch.from_numpy(rng.normal(size=DIM).astype(np.float32)))
            if worker.ready():
                assert replica.try_publish()
                worker.burst_ended()
            elif replica.has_pending:
                assert replica.try_apply()
            for each in workers:
                each.pump()  # no message waits at the next publish, which lands at once here
            network.step()
            for each in workers:
                each.pump()
        for worker in workers:
            worker.replica.settle()
        return [x.numpy().tobytes() for x in models]

    assert trained(staged=False) == trained(staged=True)
