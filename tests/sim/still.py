"""Swarms whose models no local step moves: whatever changes them is an exchange."""

from typing import Any

import numpy as np

from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.tasks import TASKS, SyntheticOptions

STILL = 1e-30
"""A learning rate at which no float32 moves."""
INSTANT = {"bandwidth_mbit_s": float("inf"), "latency_ms": 0.0}


def config(world: dict[str, Any] | None = None, **changes: Any) -> SimConfig:
    settings: dict[str, Any] = {
        "task": SyntheticOptions(dimension=64, samples_per_node=80, noise=0.2),
        "nodes": 6,
        "epochs": 1.0,
        "world": World(**(world or {})),
        "evals": 2,
        "score_nodes": 2,
    }
    rule = {} if "optimizer" in changes else {"lr": 0.05, "momentum": 0.5}
    return SimConfig.of(**(settings | rule | changes))


def swarm_of(
    world: dict[str, Any] | None = None, **changes: Any
) -> tuple[SwarmEngine, Fleet, Ledger]:
    """A swarm that has not run, with unrelated models, all still unless `lr` is given."""
    made = config(world, **({"lr": STILL} | changes))
    fleet = Fleet(TASKS[made.task_name].make(made.task, made.nodes, print), made)
    fleet.x_ND[:] = np.random.default_rng(1).standard_normal(fleet.x_ND.shape)
    ledger = Ledger(made.nodes, None)
    return SwarmEngine(fleet, ledger), fleet, ledger


def finish(swarm: SwarmEngine) -> float:
    """Run to the end; the virtual time when the last node had made its steps."""
    times = list(swarm.run())
    swarm.tally()
    return times[-1]


def sum_of(rows_ND: np.ndarray) -> np.ndarray:
    return rows_ND.sum(0, dtype=np.float64)


def spread(rows_ND: np.ndarray) -> float:
    return float(np.square(rows_ND - rows_ND.mean(0)).sum())
