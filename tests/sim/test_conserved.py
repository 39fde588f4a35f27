"""What exchanges leave as it is: the sum of all models, whatever the world does to them."""

from typing import Any

import numpy as np
import pytest
from still import finish, spread, sum_of, swarm_of

from swarmsgd.settings.swarm import BITS, MODES

WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "jitter and stragglers": {"step_jitter": 0.5, "speed_spread": 0.3, "stragglers": ("0-1:4",)},
    "slow links": {"bandwidth_mbit_s": 0.2, "slow_links": ("2:8", "3:3@0.1-0.5")},
    "a cut": {"latency_ms": 7.0, "step_jitter": 0.2, "events": ("cut:0-2@0.2-0.4",)},
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_sum_is_conserved_in_every_mode_and_world(mode: str, world: dict[str, Any]):
    swarm, fleet, ledger = swarm_of(world, mode=mode)
    before, apart = sum_of(fleet.x_ND), spread(fleet.x_ND)
    finish(swarm)
    assert ledger.initiated_N.sum() >= 6
    assert ledger.lost_N.sum() == 0
    assert np.abs(sum_of(fleet.x_ND) - before).max() < 1e-5
    assert spread(fleet.x_ND) < 0.5 * apart
    assert not swarm.pending_ND.any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", BITS)
def test_the_sum_is_conserved_at_every_width(bits: int | None, mode: str):
    swarm, fleet, ledger = swarm_of({"step_jitter": 0.3}, mode=mode, bits=bits)
    before = sum_of(fleet.x_ND)
    finish(swarm)
    assert ledger.initiated_N.sum() >= 40
    assert np.abs(sum_of(fleet.x_ND) - before).max() < 1e-5


def test_models_and_pending_hold_the_sum_at_every_moment():
    swarm, fleet, _ = swarm_of({"step_jitter": 0.5, "latency_ms": 15})
    before = sum_of(fleet.x_ND)
    moved: list[float] = []
    for _ in swarm.run():
        off = sum_of(fleet.x_ND) + sum_of(swarm.pending_ND) - before
        moved.append(float(np.abs(off).max()))
    # Between an answer and its mix one end has moved and the other not: far more than rounding.
    assert max(moved) > 0.1
    assert np.abs(sum_of(fleet.x_ND) - before).max() < 1e-5


@pytest.mark.parametrize("killed", range(3))
def test_a_death_costs_the_sum_no_more_than_the_exchanges_that_died_with_it(killed: int):
    world = {"latency_ms": 8.0, "step_jitter": 0.3, "events": (f"kill:{killed}@0.25",)}
    swarm, fleet, ledger = swarm_of(world)
    before = sum_of(fleet.x_ND)
    reach = max(float(np.linalg.norm(a - b)) for a in fleet.x_ND for b in fleet.x_ND)
    finish(swarm)
    after = sum_of(fleet.x_ND) + sum_of(swarm.pending_ND)  # the dead node's rows stay as they were
    lost = ledger.lost_N.sum() + 1  # and the one that the dead node had begun itself
    assert np.linalg.norm(after - before) <= lost * reach / 2
    live = [node for node in range(6) if node != killed]
    assert swarm.live() == live
    assert (fleet.steps_N[live] == 80).all() and fleet.steps_N[killed] < 40
    assert spread(fleet.x_ND[live]) < 1e-3  # they went on without it


def test_a_late_reply_is_mixed_and_costs_the_sum_nothing():
    # One link, cut for longer than patience, which is a second on so quick a link.
    world = {"events": ("cut:1@1.0-2.5",), "step_jitter": 0.1}
    swarm, fleet, ledger = swarm_of(world, nodes=2, epochs=5)
    before = sum_of(fleet.x_ND)
    finish(swarm)
    counts = [node.endpoint.machine.counts for node in swarm.nodes]
    overdue, late = sum(c.overdue for c in counts), sum(c.late for c in counts)
    declined = sum(c.refused for c in counts)
    assert late >= 1
    assert late <= overdue <= late + declined  # none was forgotten: mixed late, or declined
    assert sum(c.started for c in counts) == sum(c.completed for c in counts) + declined
    assert ledger.lost_N.sum() == 0
    assert np.abs(sum_of(fleet.x_ND) - before).max() < 1e-5


def test_a_node_whose_exchange_is_overdue_turns_to_others_meanwhile():
    world = {"events": ("cut:1@1.0-7.0",)}
    swarm, _, ledger = swarm_of(world, nodes=4, graph="ring", epochs=10)
    at_cut: list[int] = []
    during: list[int] = []
    for now in swarm.run():
        swarm.tally()
        if now < 1.0:
            at_cut = ledger.initiated_N.tolist()
        elif now < 7.0:
            during = ledger.initiated_N.tolist()
    swarm.tally()
    counts = [node.endpoint.machine.counts for node in swarm.nodes]
    grown = [later - earlier for later, earlier in zip(during, at_cut, strict=True)]
    assert grown[1] <= 1
    assert all(grown[node] > 20 for node in (0, 2, 3))  # 150 bursts; a second of patience at a time
    assert counts[0].overdue >= 1 and counts[1].overdue >= 1 and counts[2].overdue >= 1
    assert counts[3].overdue == 0
    assert ledger.initiated_N[1] > during[1] + 20  # all goes on when the cut is over
