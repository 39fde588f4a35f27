"""The network in virtual time against times worked out by hand: 1 MB/s a node, messages in MB."""

import math
from typing import Any

import numpy as np
import pytest

from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.engine.world import World

MEGABYTE_S = 8.0
"""In Mbit/s."""


class Wire:
    """A network whose deliveries are written down: (seconds, source, target, megabytes)."""

    def __init__(self, **world: Any) -> None:
        settings = {"bandwidth_mbit_s": MEGABYTE_S, "latency_ms": 0.0} | world
        self.agenda = Agenda()
        self.network = Network(World(**settings), self.agenda, self._deliver)
        self.arrived: list[tuple[float, int, int, float]] = []

    def send(self, source: int, target: int, megabytes: float, at: float = 0.0) -> None:
        message = np.zeros(round(megabytes * 1e6), np.uint8)
        self.agenda.at(at, lambda m: self.network.send(source, target, m), message)

    def at(self, time_s: float, call: Any, node: int) -> None:
        self.agenda.at(time_s, call, node)

    def run(self) -> list[tuple[float, int, int, float]]:
        while self.agenda.step():
            pass
        return self.arrived

    def _deliver(self, source: int, target: int, message: np.ndarray) -> None:
        self.arrived.append((round(self.agenda.now, 6), source, target, len(message) / 1e6))


def test_one_transfer_has_the_whole_link_and_then_the_latency():
    wire = Wire(latency_ms=250)
    wire.send(0, 1, 2.0)
    assert wire.run() == [(2.25, 0, 1, 2.0)]


def test_two_transfers_out_of_one_node_share_what_it_can_send():
    wire = Wire()
    wire.send(0, 1, 1.0)
    wire.send(0, 2, 2.0)
    # Half each until the first is over at 2; then 1 MB is left of the second, at full rate.
    assert wire.run() == [(2.0, 0, 1, 1.0), (3.0, 0, 2, 2.0)]


def test_two_transfers_into_one_node_share_what_it_can_receive():
    wire = Wire()
    wire.send(1, 0, 1.0)
    wire.send(2, 0, 2.0)
    assert wire.run() == [(2.0, 1, 0, 1.0), (3.0, 2, 0, 2.0)]


def test_both_ways_of_a_pair_do_not_share():
    wire = Wire()
    wire.send(0, 1, 1.0)
    wire.send(1, 0, 1.0)
    assert wire.run() == [(1.0, 0, 1, 1.0), (1.0, 1, 0, 1.0)]


def test_a_transfer_goes_at_the_lesser_of_its_two_shares():
    wire = Wire()
    wire.send(0, 1, 1.0)  # out of 0: one of two; into 1: one of three
    wire.send(0, 2, 1.0)
    wire.send(3, 1, 1.0)
    wire.send(4, 1, 1.0)
    # 0->2 runs at 1/2 and is over at 2; the three into 1 run at 1/3 all the time.
    wanted = [(2.0, 0, 2, 1.0), (3.0, 0, 1, 1.0), (3.0, 3, 1, 1.0), (3.0, 4, 1, 1.0)]
    assert sorted(wire.run()) == wanted


def test_rates_change_when_others_begin():
    wire = Wire()
    wire.send(0, 1, 2.0)
    wire.send(0, 2, 0.5, at=1.0)
    # 1 MB alone; half rate from 1 to 2, when 0.5 MB are through; the last 0.5 MB alone again.
    assert wire.run() == [(2.0, 0, 2, 0.5), (2.5, 0, 1, 2.0)]


def test_messages_of_a_pair_go_one_after_the_other():
    wire = Wire(latency_ms=100)
    wire.send(0, 1, 2.0)
    wire.send(0, 1, 0.5)
    wire.send(0, 1, 0.25, at=0.1)
    assert wire.run() == [(2.1, 0, 1, 2.0), (2.6, 0, 1, 0.5), (2.85, 0, 1, 0.25)]


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
def test_a_slow_link_is_slow_up_and_down_and_for_a_time_if_so_said(ends: tuple[int, int]):
    wire = Wire(slow_links=("0:4",))
    wire.send(*ends, 1.0)
    assert wire.run() == [(4.0, *ends, 1.0)]
    wire = Wire(slow_links=("0:4@1-3",))
    wire.send(*ends, 3.0)
    assert wire.run() == [(4.5, *ends, 3.0)]  # 1 MB by 1, 0.5 MB by 3, the rest at full rate


def test_what_a_cut_interrupts_waits_and_loses_nothing():
    wire = Wire(events=("cut:0@1-5",))
    wire.send(0, 1, 2.0)
    wire.send(1, 0, 1.5)
    wire.send(2, 3, 2.0)
    wire.send(0, 1, 0.5, at=2.0)
    assert wire.run() == [(2.0, 2, 3, 2.0), (5.5, 1, 0, 1.5), (6.0, 0, 1, 2.0), (6.5, 0, 1, 0.5)]


def test_a_cut_lets_pass_what_stays_on_one_side():
    wire = Wire(events=("cut:0-1@0-9",))
    wire.send(0, 1, 1.0)
    wire.send(2, 3, 1.0)
    wire.send(1, 2, 1.0)
    assert wire.run() == [(1.0, 0, 1, 1.0), (1.0, 2, 3, 1.0), (10.0, 1, 2, 1.0)]


def test_what_waits_for_a_cut_to_end_takes_nothing_from_others():
    wire = Wire(events=("cut:1@1-9",))
    wire.send(0, 1, 1.0)
    wire.send(0, 2, 1.0)
    wire.send(3, 1, 1.0, at=2.0)
    # Both at half rate until 1, then 0->2 alone. Into 1 both wait, and share it from 9 on.
    assert wire.run() == [(1.5, 0, 2, 1.0), (10.0, 0, 1, 1.0), (10.5, 3, 1, 1.0)]


def test_cuts_hold_without_a_limit_of_bandwidth_too():
    wire = Wire(bandwidth_mbit_s=math.inf, latency_ms=100, events=("cut:1@1-2",))
    for at in (0.5, 1.0, 1.5):
        wire.send(0, 1, 1.0, at=at)
    assert [time for time, *_ in wire.run()] == [0.6, 2.1, 2.1]


def test_without_limits_a_message_takes_the_latency_whatever_else_moves():
    wire = Wire(bandwidth_mbit_s=math.inf, latency_ms=30, slow_links=("1:9",))
    for target in (1, 1, 2, 3):
        wire.send(0, target, 5.0)
    assert wire.run() == [(0.03, 0, target, 5.0) for target in (1, 1, 2, 3)]


def test_without_latency_and_limits_messages_arrive_at_once_and_in_order():
    wire = Wire(bandwidth_mbit_s=math.inf)
    for size in (3.0, 2.0, 1.0):
        wire.send(0, 1, size, at=1.0)
    assert wire.run() == [(1.0, 0, 1, size) for size in (3.0, 2.0, 1.0)]


def test_what_moves_to_or_from_a_node_that_dies_is_lost_and_others_get_its_share():
    wire = Wire()
    wire.send(0, 1, 2.0)
    wire.send(0, 2, 2.0)
    wire.send(0, 1, 1.0)  # behind the first
    wire.send(3, 0, 9.0)
    wire.at(1.0, wire.network.kill, 1)
    wire.send(0, 1, 1.0, at=1.5)
    wire.send(1, 0, 1.0, at=1.5)
    # 0.5 MB of 0->2 by 1, then the whole link.
    assert wire.run() == [(2.5, 0, 2, 2.0), (9.0, 3, 0, 9.0)]


@pytest.mark.parametrize("bandwidth", [MEGABYTE_S, math.inf])
def test_what_an_earlier_life_sent_or_was_sent_stays_lost_when_the_node_comes_back(
    bandwidth: float,
):
    wire = Wire(latency_ms=5000, bandwidth_mbit_s=bandwidth)
    wire.send(0, 1, 1.0)
    wire.send(1, 0, 1.0)
    wire.at(2.0, wire.network.kill, 1)
    wire.at(3.0, wire.network.revive, 1)
    wire.send(0, 1, 2.0, at=3.0)
    wire.send(1, 0, 2.0, at=3.0)
    took = 2.0 if bandwidth < math.inf else 0.0
    assert wire.run() == [(8.0 + took, 0, 1, 2.0), (8.0 + took, 1, 0, 2.0)]


def test_ties_are_settled_the_same_way_every_time():
    def once() -> list[tuple[float, int, int, float]]:
        wire = Wire(latency_ms=10)
        rng = np.random.default_rng(0)
        for _ in range(300):
            source, target = rng.choice(8, 2, replace=False).tolist()
            wire.send(source, target, int(rng.integers(1, 4)) / 4, at=float(rng.integers(20)))
        return wire.run()

    first = once()
    assert len(first) == 300
    assert first == once()
    assert first == sorted(first, key=lambda arrival: arrival[0])


def test_all_bytes_arrive_however_often_rates_change():
    wire = Wire(slow_links=("0:3@1-7", "2:2@4"), events=("cut:1-2@3-6", "cut:5@2-9"))
    rng = np.random.default_rng(1)
    sent: list[tuple[int, int, float]] = []
    for _ in range(200):
        source, target = rng.choice(6, 2, replace=False).tolist()
        sent.append((source, target, int(rng.integers(1, 100)) / 100))
        wire.send(*sent[-1], at=float(rng.random() * 20))
    assert sorted(a[1:] for a in wire.run()) == sorted(sent)
    busiest = max(sum(size for s, _, size in sent if s == node) for node in range(6))
    assert wire.agenda.now >= busiest
