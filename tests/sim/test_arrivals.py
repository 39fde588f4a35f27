"""Nodes that join: what they ask for, what it costs, whom it disturbs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from still import config, finish, spread, swarm_of

from swarmsgd.core.links import KEEP_S
from swarmsgd.core.messages import Kind, parse_message
from swarmsgd.observe.records import read_records
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.tasks import SyntheticOptions

BIG = SyntheticOptions(dimension=600_000, samples_per_node=30, noise=0.2)
"""Of 2.4 MB: three parts."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int, int, Kind, int]]:
    """(time, source, target, kind, bytes) of every message that a network was given."""
    seen: list[tuple[float, int, int, Kind, int]] = []
    send = Network.send

    def noted(network: Network, source: int, target: int, message: Any) -> None:
        kind, now = parse_message(message).kind, network._agenda.now
        seen.append((now, source, target, kind, len(message)))
        send(network, source, target, message)

    monkeypatch.setattr(Network, "send", noted)
    return seen


def until_live(swarm: SwarmEngine, node: int) -> float:
    for now in swarm.run():
        if swarm.nodes[node].alive and swarm.nodes[node].endpoint.machine.incarnation:
            return now
    raise AssertionError("it never came to life")


def test_a_model_takes_the_time_and_the_bytes_that_its_parts_take(sent: list[Any]):
    world = {"events": ("join:3@0.105",), "bandwidth_mbit_s": 192.0, "latency_ms": 5.0}
    swarm, fleet, ledger = swarm_of(
        world, task=BIG, nodes=4, graph="ring", local_steps=1000, bits=None
    )
    now = until_live(swarm, 3)
    parts = [m for m in sent if m[3] == Kind.PART]
    assert {m[1] for m in parts} == {2} and len(parts) == 4  # three of the model, and the others
    took = sum(m[4] for m in parts) / 24e6  # nothing else moves
    assert now == pytest.approx(0.105 + took + 2 * 0.005, rel=0.01)
    swarm.tally()
    assert ledger.bytes_sent_N[2] == sum(m[4] for m in parts) >= 2_400_000
    assert ledger.bytes_received_N[3] == sum(m[4] for m in parts)
    assert ledger.bytes_sent_N[3] == sum(m[4] for m in sent if m[3] == Kind.WANT)
    assert np.array_equal(fleet.x_ND[3], swarm.copy_ND[2])


def test_the_training_of_the_neighbour_that_serves_does_not_wait():
    ends: list[float] = []
    for events in ((), ("join:3@0.105",)):
        world = {"events": ("kill:3@0.001", *events), "bandwidth_mbit_s": 20.0}
        swarm, fleet, _ = swarm_of(world, task=BIG, nodes=4, graph="ring")
        for now in swarm.run():
            if fleet.made_N[2] == 30:
                ends.append(now)
                break
    assert ends[0] == ends[1]


def test_until_it_is_healed_nobody_asks_it_and_it_answers_nobody(sent: list[Any]):
    world = {"events": ("kill:1@0.2", "join:1@0.3"), "latency_ms": 20.0}
    swarm, _, _ = swarm_of(world, graph="complete")
    now = until_live(swarm, 1)
    assert now == pytest.approx(0.34, abs=1e-3)
    healing = [m for m in sent if m[0] > 0.22 and 1 in m[1:3]]
    assert {m[3] for m in healing} == {Kind.WANT, Kind.PART}
    assert swarm.nodes[1].endpoint.machine.incarnation == 1


def test_if_the_neighbour_that_serves_dies_another_gives_what_is_missing(sent: list[Any]):
    world = {"events": ("join:3@0.105", "kill:2@0.2"), "bandwidth_mbit_s": 100.0}
    swarm, fleet, _ = swarm_of(world, task=BIG, nodes=4, graph="ring", local_steps=1000)
    until_live(swarm, 3)
    of = [m[1] for m in sent if m[3] == Kind.PART]
    assert of[0] == 2 and of[-1] == 0
    first = 1 << 18  # numbers in a part: node 2 gave the first
    assert np.array_equal(fleet.x_ND[3, :first], fleet.x_ND[2, :first])
    assert np.array_equal(fleet.x_ND[3, first:], swarm.copy_ND[0, first:])


def test_a_neighbour_that_is_cut_off_is_left_for_another_after_a_while(tmp_path: Path):
    world = {"events": ("join:3@0.1", "cut:2@0.05-60"), "step_time_ms": 1000.0}
    simulate(config(world, nodes=4, graph="ring"), folder=tmp_path)
    records = {r["what"]: r for r in read_records(tmp_path / "node-3.jsonl") if "what" in r}
    assert records["joined"]["t"] == pytest.approx(0.1)
    assert records["healed"]["t"] == pytest.approx(10.1, abs=0.01)
    assert records["healed"]["peer"] == 0


def test_a_newcomer_that_dies_before_it_is_healed_leaves_no_trace():
    quiet, busy = (
        swarm_of({"events": events, "latency_ms": 20.0}, nodes=5, graph="ring")
        for events in (("kill:1@0.2",), ("kill:1@0.2", "join:1@0.3", "kill:1@0.31"))
    )
    for swarm, _, _ in (quiet, busy):
        finish(swarm)
        assert swarm.live() == [0, 2, 3, 4]
    assert np.array_equal(quiet[1].x_ND, busy[1].x_ND)


def test_a_third_life_is_told_from_the_second():
    world = {"events": ("kill:1@0.2", "join:1@0.3", "kill:1@0.4", "join:1@0.5")}
    swarm, _, _ = swarm_of(world)
    finish(swarm)
    assert swarm.nodes[1].endpoint.machine.incarnation == 2
    known = [n.endpoint.machine.membership.incarnation(1) for n in swarm.nodes if n.rank != 1]
    assert set(known) == {2}
    assert not any(node.endpoint.traffic.distrusted for node in swarm.nodes)


# Cycles over those that live.

CHURN = ("kill:3,9,14@0.2", "join:9@0.4", "kill:5@0.5", "join:3@0.6", "join:14@0.7")


def test_the_links_of_cycles_follow_those_that_live():
    task = SyntheticOptions(dimension=8, samples_per_node=2000, noise=0.2)
    world = {"events": CHURN, "step_jitter": 0.2, "latency_ms": 5.0}
    swarm, fleet, _ = swarm_of(world, task=task, nodes=20, graph="cycles:4", epochs=1.0)
    for now in swarm.run():
        if now > 0.7 + KEEP_S + 1:
            break
    live = swarm.live()
    assert live == [i for i in range(20) if i != 5]
    links = {i: swarm.nodes[i].endpoint.machine.membership.open for i in live}
    assert all(links[i] == swarm._graph.neighbours(i) for i in live)
    assert max(map(len, links.values())) <= 4
    assert spread(fleet.x_ND[live]) < 1e-3  # all hang together


def test_a_link_that_the_graph_has_no_more_serves_until_its_exchange_is_over():
    task = SyntheticOptions(dimension=8, samples_per_node=900, noise=0.2)
    for seed in range(2):
        world = {"events": CHURN, "step_jitter": 0.2, "latency_ms": 40.0}
        swarm, _, ledger = swarm_of(world, task=task, nodes=20, graph="cycles:4", seed=seed)
        finish(swarm)
        # What four deaths may have cost, and nothing that the closing of links has.
        assert ledger.lost_N.sum() <= 4 * 4
