"""How a world is written down: every spelling, every refusal."""

import math
from typing import Any

import numpy as np
import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.sim.engine.speeds import Speeds
from swarmsgd.sim.engine.world import Factor, World, WorldEvent


@pytest.mark.parametrize("option", ["stragglers", "slow_links"])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3:4", Factor((3,), 4.0)),
        (" 3:4 ", Factor((3,), 4.0)),
        ("3:0.5", Factor((3,), 0.5)),
        ("3:1e3", Factor((3,), 1000.0)),
        ("0-2,7:2", Factor((0, 1, 2, 7), 2.0)),
        ("7,1,1-2:2", Factor((1, 2, 7), 2.0)),
        ("5-5:2", Factor((5,), 2.0)),
        ("3:4@10", Factor((3,), 4.0, 10.0, math.inf)),
        ("3:4@10-20", Factor((3,), 4.0, 10.0, 20.0)),
        ("3:4@0.5-1e-1e2", None),
        ("3:4@1e-3-2.5", Factor((3,), 4.0, 0.001, 2.5)),
    ],
)
def test_slow_nodes_and_links_are_written_alike(option: str, text: str, wanted: Factor | None):
    if wanted is None:
        with pytest.raises(ConfigError, match=f"{option}: cannot read"):
            World(**{option: (text,)})
        return
    world = World(**{option: (text,)})
    assert (world.slowdowns if option == "stragglers" else world.link_slowdowns) == (wanted,)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("kill:3@10", WorldEvent("kill", (3,), 10.0, math.inf)),
        ("join:0-1,4@2.5", WorldEvent("join", (0, 1, 4), 2.5, math.inf)),
        ("cut:0-1@2-3", WorldEvent("cut", (0, 1), 2.0, 3.0)),
    ],
)
def test_events_are_read(text: str, wanted: WorldEvent):
    assert World(events=(text,)).happenings == (wanted,)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"step_time_ms": 0}, "step_time_ms is 0, wanted a number above 0"),
        ({"step_time_ms": math.inf}, "step_time_ms is inf, wanted a number above 0"),
        ({"step_time_ms": math.nan}, "step_time_ms is nan, wanted a number above 0"),
        ({"step_jitter": -0.1}, "step_jitter is -0.1, wanted a number from 0 to 3"),
        ({"speed_spread": 4}, "speed_spread is 4, wanted a number from 0 to 3"),
        ({"bandwidth_mbit_s": 0}, "bandwidth_mbit_s is 0, wanted a number above 0, or inf"),
        ({"latency_ms": -1}, "latency_ms is -1, wanted a number of at least 0"),
        ({"latency_ms": math.inf}, "latency_ms is inf, wanted a number of at least 0"),
        ({"stragglers": ("3",)}, "stragglers: cannot read '3', wanted NODES:FACTOR or"),
        ({"stragglers": ("3:x",)}, "stragglers: cannot read '3:x'"),
        ({"stragglers": ("-1:2",)}, "stragglers: cannot read '-1:2'"),
        ({"stragglers": ("",)}, "stragglers: cannot read ''"),
        (
            {"stragglers": ("3:1e400",)},
            "the factor of '3:1e400' is inf, wanted a finite one above 0",
        ),
        (
            {"slow_links": ("3:0",)},
            "slow_links: the factor of '3:0' is 0, wanted a finite one above 0",
        ),
        ({"slow_links": ("5-2:2",)}, "slow_links: '5-2' runs backwards: write 2-5"),
        ({"slow_links": ("1:2@3-3",)}, "slow_links: '1:2@3-3' ends before it begins"),
        ({"slow_links": ("1:2@4-3",)}, "slow_links: '1:2@4-3' ends before it begins"),
        ({"slow_links": ("0-99999999:2",)}, "'0-99999999' speaks of a node above 9,999,999"),
        ({"events": ("kill:3",)}, "events: cannot read 'kill:3', wanted kill:NODES@S"),
        ({"events": ("kil:3@1",)}, "events: cannot read 'kil:3@1', wanted kill:NODES@S"),
        ({"events": ("kill:3@1-2",)}, "'kill:3@1-2' has the wrong kind of time: give one second"),
        ({"events": ("cut:3@1",)}, "'cut:3@1' has the wrong kind of time: give START-END"),
        ({"events": ("cut:3@2-1",)}, "events: 'cut:3@2-1' ends before it begins"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_written(settings: dict[str, Any], told: str):
    with pytest.raises(ConfigError) as raised:
        World(**settings)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stragglers": ("2,4:2",)}, "stragglers speaks of node 4, but the run has nodes 0 to 3"),
        ({"slow_links": ("9:2",)}, "slow_links speaks of node 9, but the run has nodes 0 to 3"),
        ({"events": ("kill:4@1",)}, "events speaks of node 4, but the run has nodes 0 to 3"),
        ({"events": ("join:0-3@1",)}, "all nodes join later, wanted one at least from the start"),
        ({"events": ("kill:0-1@1", "kill:2-3@2")}, "no node is left from second 2 on: spare one"),
        ({"events": ("join:0@9", "kill:1-3@2")}, "no node is left from second 2 on: spare one"),
    ],
)
def test_a_run_must_have_the_nodes_that_its_world_speaks_of(settings: dict[str, Any], told: str):
    world = World(**settings)
    with pytest.raises(ConfigError) as raised:
        world.check(4)
    assert told in str(raised.value)


def test_a_world_in_which_somebody_is_always_left_is_fine():
    World(events=("kill:0-2@1", "join:0@2", "kill:3@3"), stragglers=("3:2",)).check(4)


def test_who_joins_before_anything_else_befalls_it_is_absent_at_the_start():
    world = World(events=("kill:1@1", "join:1@2", "join:2@1", "cut:3@1-2", "join:3@4", "kill:2@5"))
    assert world.absent_at_start == {2, 3}


# Speeds.


def test_step_times_are_drawn_once_a_node_and_slow_times_multiply():
    world = World(step_time_ms=10, stragglers=("0:2@1-3", "0,1:3@2-4"))
    speeds = Speeds(world, 3, seed=0)
    times = [[speeds.step_s(node, now) for now in (0.5, 1.0, 2.5, 3.0, 4.0)] for node in range(3)]
    assert times[0] == pytest.approx([0.01, 0.02, 0.06, 0.03, 0.01])
    assert times[1] == pytest.approx([0.01, 0.01, 0.03, 0.03, 0.01])
    assert times[2] == pytest.approx([0.01] * 5)


def test_speeds_and_jitter_have_a_median_of_one_and_the_spread_that_was_asked_for():
    speeds = Speeds(World(step_time_ms=1000, speed_spread=0.5), 4000, seed=1)
    logs = np.log(speeds.base_s_N)
    assert abs(np.median(logs)) < 4 * 0.5 * 1.25 / math.sqrt(4000)
    assert logs.std() == pytest.approx(0.5, rel=0.05)
    jittery = Speeds(World(step_time_ms=1000, step_jitter=0.2), 1, seed=1)
    logs = np.log([jittery.step_s(0, 0.0) for _ in range(4000)])
    assert abs(np.median(logs)) < 4 * 0.2 * 1.25 / math.sqrt(4000)
    assert logs.std() == pytest.approx(0.2, rel=0.05)


def test_a_nodes_jitter_does_not_depend_on_what_others_do():
    def drawn(order: list[int]) -> list[float]:
        speeds = Speeds(World(step_jitter=0.3), 3, seed=5)
        return [speeds.step_s(node, 0.0) for node in order if node == 1 or speeds.step_s(node, 0.0)]

    alone = drawn([1, 1, 1])
    assert [t for t, n in zip(drawn([0, 1, 2, 1, 1]), [0, 1, 2, 1, 1], strict=True) if n == 1] == (
        alone
    )
    assert len(set(alone)) == 3
