"""Virtual time of a local step against the number of nodes, by algorithm, link and straggler.

    python benchmarks/sim_steps.py [--keep] [--out steps.html]

The message is that of the 0.1 M CNN (D = 99,782), a step computes for 10 ms with 10 % jitter; the
gradients are those of a quadratic, since times do not depend on them. Nodes: 8, 16, 32, 64; links
of 1 Gbit/s and 100 Mbit/s; with and without one node that is four times slower. In brackets: what
comes on top of the 10 ms. Under a straggler, samples are counted together: who need not wait for it
makes more steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench import keep, table

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.page import Row, page, write_page
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import SyntheticOptions

DIMENSION = 99_782
NODES = (8, 16, 32, 64)
STEP_MS = 10.0
VARIANTS: dict[str, dict[str, Any]] = {
    "swarm, 8 bits": {"algorithm": "swarm"},
    "swarm, blocking, 8 bits": {"algorithm": "swarm", "mode": "blocking"},
    "swarm, blocking, float32": {"algorithm": "swarm", "mode": "blocking", "bits": None},
    "all-reduce": {"algorithm": "allreduce"},
    "Local SGD": {"algorithm": "local-sgd"},
    "D-PSGD": {"algorithm": "d-psgd", "graph": "exponential"},
    "AD-PSGD": {"algorithm": "ad-psgd"},
    "SGP": {"algorithm": "sgp"},
    "OSGP": {"algorithm": "osgp"},
}
WORLDS: dict[str, dict[str, Any]] = {
    "1 Gbit/s": {"bandwidth_mbit_s": 1000},
    "100 Mbit/s": {"bandwidth_mbit_s": 100},
    "1 Gbit/s, one 4x straggler": {"bandwidth_mbit_s": 1000, "stragglers": ("7:4",)},
    "100 Mbit/s, one 4x straggler": {"bandwidth_mbit_s": 100, "stragglers": ("7:4",)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="local steps of a node")
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES))
    parser.add_argument("--out", type=Path, help="write a page with plots")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for name, world in WORLDS.items():
        figures[name] = {}
        rows: list[list[object]] = [["", *(f"n = {n}" for n in options.nodes), "exchanges a burst"]]
        for label, settings in VARIANTS.items():
            runs = {n: run(n, options.steps, world, settings) for n in options.nodes}
            figures[name][label] = runs
            cells = [
                f"{r['step_ms']:.1f} ({r['step_ms'] / STEP_MS - 1:+.0%})" for r in runs.values()
            ]
            rows.append([label, *cells, f"{runs[options.nodes[-1]]['a_burst']:.2f}"])
        print(f"\n{name}: ms a step (over computing alone)\n{table(rows)}", flush=True)
    if options.keep:
        keep("sim-steps", figures)
    if options.out:
        write_page(options.out, the_page(figures))


def run(
    nodes: int, steps: int, world: dict[str, Any], settings: dict[str, Any]
) -> dict[str, float]:
    """Figures of one run."""
    config = SimConfig.of(
        task=SyntheticOptions(dimension=DIMENSION, samples_per_node=steps),
        nodes=nodes, epochs=1, lr=1e-3, momentum=0.0, evals=1, score_nodes=0, budget="together",
        world=World(step_time_ms=STEP_MS, step_jitter=0.1, **world),
        **settings,
    )  # fmt: skip
    summary = simulate(config).summary
    bursts = steps * nodes / 4
    return {
        "step_ms": summary["step_ms"],
        "waiting": summary["synchronization"],
        "a_burst": summary["exchanges"] / bursts,
        "bytes_a_node": summary["bytes_a_node"],
    }


def the_page(figures: dict[str, Any]) -> str:
    plots = [
        line_plot(
            [
                Series(
                    label=label,
                    x=[float(n) for n in runs],
                    y=[r["step_ms"] for r in runs.values()],
                    group=VARIANTS[label]["algorithm"],
                )
                for label, runs in by_label.items()
            ],
            x=Axis(title="nodes", log=True, ticks=NODES),
            y=Axis(title="ms a local step (virtual)", log=True),
            title=world,
        )
        for world, by_label in figures.items()
    ]
    return page(
        "Virtual time of a local step against the number of nodes",
        [__doc__ or "", Row(plots[:2]), Row(plots[2:])],
    )


if __name__ == "__main__":
    main()
