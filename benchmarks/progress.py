"""How far each node's estimate of the swarm's total steps is from what all nodes really made.

    python benchmarks/progress.py [--nodes 16 64] [--keep]

In virtual time the exact total is known. `synthetic` (D = 16), H = 4, steps of 10 ms with jitter,
1,000 steps a node; an eighth of the nodes is four times slower, and each node dies with a chance of
1 % a second, to come back half a second later. The error is in percent of what the run makes in
all, over all live nodes and the second half of it; beside it, in steps a node.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from bench import keep, table

from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.tasks import TASKS, SyntheticOptions

STEPS = 1000
SECONDS = 10
SHOWN = ("worst_percent", "rms_percent", "worst_steps", "rms_steps", "mean_steps")
GRAPHS = ("ring", "cycles:8", "complete")


def churn(nodes: int, seed: int) -> tuple[str, ...]:
    """Deaths and returns of a run."""
    rng, events = np.random.default_rng(seed), list[str]()
    for node in range(1, nodes):
        dies_s = rng.exponential(100.0)
        if dies_s < SECONDS:
            events += [f"kill:{node}@{dies_s:.4f}", f"join:{node}@{dies_s + 0.5:.4f}"]
    return tuple(events)


def errors(nodes: int, graph: str, *, eventful: bool, seed: int = 0) -> dict[str, float]:
    """Of one run: the worst and the root mean square error, and the mean of all nodes'."""
    world = World(
        step_jitter=0.2,
        stragglers=(f"0-{nodes // 8 - 1}:4",) if eventful else (),
        events=churn(nodes, seed) if eventful else (),
    )
    task = SyntheticOptions(dimension=16, samples_per_node=STEPS)
    config = SimConfig.of(
        task=task, nodes=nodes, epochs=1.0, lr=0.01, graph=graph, world=world, budget="together"
    )
    fleet = Fleet(TASKS[config.task_name].make(task, nodes, print), config)
    swarm = SwarmEngine(fleet, Ledger(nodes, None))
    found, means, next_s = list[float](), list[float](), SECONDS / 2
    for now in swarm.run():
        if now >= next_s:
            next_s += 0.05
            told = [node.endpoint.progress.total().steps for node in swarm.nodes if node.alive]
            off = np.array(told) - fleet.steps
            found += (off / nodes).tolist()
            means.append(float(off.mean()) / nodes)
    worst, rms = float(np.abs(found).max()), float(np.sqrt(np.mean(np.square(found))))
    return {
        "worst_steps": worst,
        "rms_steps": rms,
        "mean_steps": float(np.abs(means).max()),
        "worst_percent": 100 * worst / STEPS,
        "rms_percent": 100 * rms / STEPS,
        "deaths": len(world.events) // 2,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[object]] = [
        ["nodes", "graph", "world", "worst %", "rms %", "worst, steps", "rms", "of the mean"]
    ]
    figures = {}
    for nodes in options.nodes:
        for graph in GRAPHS:
            for eventful in (False, True):
                world = "stragglers and churn" if eventful else "calm"
                f = figures[f"{nodes} {graph} {world}"] = errors(nodes, graph, eventful=eventful)
                shown = [f"{f[name]:.2f}" for name in SHOWN]
                rows.append([nodes, graph, world, *shown])
    print(table(rows))
    if options.keep:
        keep("progress", figures)


if __name__ == "__main__":
    main()
