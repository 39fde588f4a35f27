"""What nodes believe the swarm has made in all, beside what it has made."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from progress import GRAPHS, errors
from still import swarm_of


@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS)
def test_estimates_are_a_few_bursts_off_where_nothing_happens(graph: str):
    assert 0 < errors(16, graph, eventful=False)["worst_steps"] < 4


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "most"), list(zip(GRAPHS, (4.0, 2.0, 2.0), strict=True)))
def test_with_stragglers_and_deaths_they_are_off_by_a_stated_share(graph: str, most: float):
    found = errors(16, graph, eventful=True)
    assert found["deaths"] >= 1
    assert found["worst_percent"] < most
    assert found["rms_percent"] < most / 2


def test_a_newcomer_begins_with_its_neighbours_estimate_and_all_know_how_many_live():
    world = {"events": ("join:3@0.305",)}
    swarm, fleet, _ = swarm_of(world, nodes=6, graph="ring")
    run = swarm.run()
    while not swarm.nodes[3].alive:
        next(run)
    told = swarm.nodes[3].endpoint.progress.total()
    assert told.steps == pytest.approx(fleet.steps, abs=6 * 8)
    assert told.samples == told.steps * fleet.batch_size
    census = swarm._stage.census
    assert census.live == 5  # the news takes a latency
    while census.live == 5:
        next(run)
    assert census.live == 6
