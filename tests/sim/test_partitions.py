"""A network that falls into two halves: both train on, and come together when it is whole again."""

import numpy as np
import pytest
from still import spread, swarm_of

from swarmsgd.tasks import SyntheticOptions


@pytest.mark.parametrize("bits", [None, 8])
def test_after_a_cut_of_30_s_models_are_together_again_within_20_exchanges(bits: int | None):
    task = SyntheticOptions(dimension=64, samples_per_node=800, noise=0.2)
    world = {"step_time_ms": 100, "step_jitter": 0.2, "latency_ms": 5, "events": ("cut:0-3@20-50",)}
    swarm, fleet, ledger = swarm_of(
        world, task=task, nodes=8, lr=0.02, momentum=0.0, bits=bits, schedule="constant"
    )
    before, after = list[float](), list[float]()
    at_cut = at_end = fleet.made_N
    apart = mixed = 0.0
    for now in swarm.run():
        if 10 < now < 20:
            before.append(spread(swarm.models()))
            at_cut = fleet.made_N.copy()
        elif 49 < now < 50:
            apart = spread(swarm.models())
            at_end = fleet.made_N.copy()
            swarm.tally()
            mixed = ledger.exchanges_N.mean()
        elif now >= 50:
            swarm.tally()
            exchanges = ledger.exchanges_N.mean() - mixed
            if exchanges > 20:
                break
            if exchanges > 18:
                after.append(spread(swarm.models()))
    assert (at_end - at_cut > 250).all()  # of 300 steps: both halves trained
    assert apart > 30 * np.mean(before)
    assert np.mean(after) < 1.5 * np.mean(before)
    assert not any(node.endpoint.traffic.distrusted for node in swarm.nodes)
