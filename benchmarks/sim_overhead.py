"""What the simulator adds to the gradients themselves: engine against a bare training loop.

    python benchmarks/sim_overhead.py [--rounds 5] [--keep]

Fashion-MNIST CNN, 16 nodes, H = 4. Each round trains `--epochs` of the data three times in this
process, one thread: a bare loop of forward, backward and step on the same batches, the swarm at 8
bits, and the swarm at float32; interleaved, scoring left out. Reported: medians and their ratios.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch
from bench import keep, table

from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import TASKS, Task, VisionOptions

NODES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vision = VisionOptions(dataset=options.dataset)
    task = TASKS["vision"].make(vision, NODES, print)
    configs = {
        name: SimConfig.of(
            task=vision, recipe="plain", nodes=NODES, epochs=options.epochs, bits=bits, evals=1,
            score_nodes=0,
            world=World(step_jitter=0.1),
        )
        for name, bits in (("swarm, 8 bits", 8), ("swarm, float32", None))
    }  # fmt: skip
    seconds: dict[str, list[float]] = {"bare": []}
    first = configs["swarm, 8 bits"]
    for _ in range(options.rounds):
        seconds["bare"].append(bare(task, first))
        for name, config in configs.items():
            summary = simulate(config, task=task).summary
            seconds.setdefault(name, []).append(summary["host_s"])
    bare_s = statistics.median(seconds["bare"])
    rows: list[list[object]] = [["", "median, s", "over the bare loop"]]
    for name, each in seconds.items():
        median = statistics.median(each)
        rows.append([name, f"{median:.2f}", f"{median / bare_s - 1:+.1%}"])
    print(table(rows))
    if options.keep:
        keep("sim-overhead", {"seconds": seconds, "steps": steps_of(task, first)})


def steps_of(task: Task, config: SimConfig) -> int:
    return NODES * config.total_steps(task.samples_per_epoch, task.batch_size)


def bare(task: Task, config: SimConfig) -> float:
    """Seconds of the same number of steps on the nodes' batches in turn, by one model."""
    begin = time.perf_counter()
    model = task.make_model(0)
    optimizer = config.optimizer.make(model.parameters())
    streams = itertools.cycle([task.batches(node) for node in range(NODES)])
    for batches in itertools.islice(streams, steps_of(task, config)):
        optimizer.zero_grad()
        loss = task.loss(model, next(batches))
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
