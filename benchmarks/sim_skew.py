"""Different data on every node: accuracy against label skew, graph and H, as heat maps.

    python benchmarks/sim_skew.py [--keep] [--out skew.html]

SwarmSGD, 8 bits, Fashion-MNIST CNN, 16 nodes; Dirichlet label skew 0.1, 0.3, 1 (Hsu et al. 2019)
x ring, torus, random 4-regular, complete x H = 1, 4, 16. One rate for all, one seed; runs in
parallel, one a core.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from pathlib import Path
from typing import Any

from bench import keep, table
from heat import heat_map

ALPHAS = (0.1, 0.3, 1.0)
GRAPHS = ("ring", "torus", "random-regular:4", "complete")
BURSTS = (1, 4, 16)
NODES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write a page with the heat maps")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    cells = list(itertools.product(BURSTS, GRAPHS, ALPHAS))
    jobs = [(options.dataset, options.epochs, options.lr, *cell) for cell in cells]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        found = dict(zip(cells, pool.starmap(run, jobs, chunksize=1), strict=True))
    for burst in BURSTS:
        rows: list[list[object]] = [[f"H = {burst}", *(f"alpha {a:g}" for a in ALPHAS)]]
        for graph in GRAPHS:
            rows.append([graph, *(text(found[burst, graph, alpha]) for alpha in ALPHAS)])
        print(f"{table(rows)}\n")
    print("accuracy of the mean model (of the worst of 4 nodes), %")
    if options.keep:
        figures = {f"H={b}, {g}, alpha={a:g}": f for (b, g, a), f in found.items()}
        keep("sim-skew", figures)
    if options.out:
        write(options.out, found)


def text(figures: dict[str, Any]) -> str:
    return f"{100 * figures['mean']:.1f} ({100 * figures['worst']:.1f})"


def run(
    dataset: str, epochs: float, lr: float, burst: int, graph: str, alpha: float
) -> dict[str, Any]:
    """Figures of one cell."""
    import torch

    from swarmsgd.sim.command.config import SimConfig
    from swarmsgd.sim.command.run import simulate
    from swarmsgd.sim.engine.world import World
    from swarmsgd.tasks import VisionOptions

    torch.set_num_threads(1)
    config = SimConfig.of(
        task=VisionOptions(dataset=dataset, partition=f"dirichlet:{alpha:g}"),
        recipe="plain", nodes=NODES, epochs=epochs, lr=lr, graph=graph, local_steps=burst, evals=1,
        score_nodes=4,
        world=World(step_jitter=0.1),
    )  # fmt: skip
    summary = simulate(config).summary
    return {
        "mean": summary["mean_accuracy"],
        "worst": summary["worst_node_score"],
        "best": summary["best_node_score"],
        "gamma": summary["gamma"],
        "bytes_a_node": summary["bytes_a_node"],
    }


def write(path: Path, found: dict[tuple[int, str, float], dict[str, Any]]) -> None:
    from swarmsgd.observe.page import page, write_page

    maps = [
        heat_map(
            [[[found[b, g, a][name] for a in ALPHAS] for g in GRAPHS] for b in BURSTS],
            title=title,
            panel_titles=[f"H = {b}" for b in BURSTS],
            x_labels=[f"{a:g}" for a in ALPHAS],
            y_labels=GRAPHS,
            x_title="Dirichlet alpha (smaller: more skew)",
            y_title="",
            number=".1%",
        )
        for name, title in (
            ("mean", "Accuracy of the mean model"),
            ("worst", "Accuracy of the worst of four nodes' own models"),
        )
    ]
    write_page(path, page("SwarmSGD on different data per node", [__doc__ or "", *maps]))


if __name__ == "__main__":
    main()
