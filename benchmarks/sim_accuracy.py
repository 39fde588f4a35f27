"""Accuracy of all methods at equal samples against the number of nodes, three seeds each.

    python benchmarks/sim_accuracy.py [--nodes 8 16 32 64] [--out runs/accuracy] [--keep]

The recipe `recipes/fashion.toml` at each number of nodes: every method's rate is chosen anew there,
from one grid. Small-batch SGD has no nodes and runs once. Hours of processor time: each number of
nodes is kept when it ends, and one whose record is complete can be left out the next time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import HERE, RECORDS, keep, table

RECIPE = HERE / "recipes" / "fashion.toml"
ALONE = "small-batch SGD"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    path = RECORDS / "sim-accuracy" / "figures.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for number, nodes in enumerate(options.nodes):
        found[str(nodes)] = run(nodes, options.out / f"n-{nodes}", options.jobs, alone=not number)
        if options.keep:
            keep("sim-accuracy", {str(nodes): found[str(nodes)]})
    print(accuracies(found))


def run(nodes: int, folder: Path, jobs: int, *, alone: bool) -> dict[str, Any]:
    """Rates tried and chosen, and figures of each run, at one number of nodes."""
    from swarmsgd.observe.folder import make_folder
    from swarmsgd.sim.comparison.compare import CHOSEN, TUNING, Comparing
    from swarmsgd.sim.comparison.recipe import read_comparison

    recipe = read_comparison(str(RECIPE))
    recipe = replace(
        recipe,
        title=f"Fashion-MNIST, {nodes} nodes",
        variants={
            label: {**one, "nodes": nodes}
            for label, one in recipe.variants.items()
            if alone or label != ALONE
        },
    )
    make_folder(folder, json.dumps(vars(recipe), default=str))
    Comparing(recipe, folder, jobs, sys.stdout).all()
    chosen = json.loads((folder / CHOSEN).read_text())
    wanted = ("mean_accuracy", "worst_node_score", "wall_s", "step_ms", "synchronization")
    return {
        "rates": chosen["rates"],
        "tuning": json.loads((folder / TUNING).read_text()),
        "runs": {
            label: {
                seed: {name: one[name] for name in (*wanted, "bytes_a_node", "gamma")}
                for seed, one in runs.items()
                if one is not None
            }
            for label, runs in chosen["runs"].items()
        },
    }


def accuracies(found: dict[str, Any]) -> str:
    """A row a method: mean over the seeds, their standard deviation, and the rate, at each n."""
    sizes = sorted(found, key=int)
    labels = {label: None for size in sizes for label in found[size]["runs"]}
    rows: list[list[object]] = [["accuracy of the mean model, %", *(f"n = {n}" for n in sizes)]]
    for label in labels:
        row: list[object] = [label]
        for size in sizes:
            runs = found[size]["runs"].get(label)
            if runs is None:
                row.append("")
                continue
            values = [100 * one["mean_accuracy"] for one in runs.values()]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            rate = found[size]["rates"][label]
            row.append(f"{statistics.fmean(values):.2f} ± {spread:.2f} ({rate:g})")
        rows.append(row)
    return table(rows)


if __name__ == "__main__":
    main()
