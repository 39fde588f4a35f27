"""Swarm, all-reduce and small-batch SGD on Fashion-MNIST at equal samples: accuracy over three
seeds.

    python benchmarks/accuracy.py [--keep]                # methods, float32 on the wire
    python benchmarks/accuracy.py --table bits [--keep]   # a swarm of 8 nodes, by bits on the wire

Every run is one `swarmsgd train` command. A rate is chosen by the *test* loss of seed 1000, which
is in no table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import keep, table

EPOCHS = 4
GRID = [0.05, 0.1, 0.2]
TUNING_SEED = 1000
TABLES: dict[str, dict[str, dict[str, object]]] = {
    "methods": {
        "small-batch SGD": {"nodes": 1},
        "all-reduce, 4 nodes": {"nodes": 4, "algorithm": "allreduce"},
        "swarm, 4 nodes": {"nodes": 4, "bits": "none"},
    },
    "bits": {
        "float32": {"nodes": 8, "bits": "none"},
        "8 bits": {"nodes": 8, "bits": 8},
        "6 bits": {"nodes": 8, "bits": 6},
        "4 bits": {"nodes": 8, "bits": 4},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", choices=list(TABLES), default="methods")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, help="use this rate for all, tune none")
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    rows: list[list[object]] = [
        [
            "variant",
            "rate",
            "accuracy of the mean, %",
            "seeds",
            "best node",
            "worst node",
            "MB sent in all",
            "s",
        ]
    ]
    figures: dict[str, Any] = {}
    for name, settings in TABLES[options.table].items():
        if options.only and name not in options.only:
            continue
        tried: dict[float, float | None] = {}
        if options.lr is None:
            for lr in GRID:
                tried[lr] = _train(TUNING_SEED, lr, settings).get("mean_loss")
                print(f"{name}: rate {lr} -> test loss {tried[lr]}", flush=True)
        rate = options.lr or min(tried, key=lambda lr: tried[lr] or 1e9)
        runs = [_train(seed, rate, settings) for seed in range(options.seeds)]
        accuracies = [100 * run["mean_accuracy"] for run in runs]
        figures[name] = {"tuning": tried, "lr": rate, "runs": runs}
        rows.append([
            name, rate, f"{statistics.mean(accuracies):.2f}",
            " ".join(f"{a:.2f}" for a in accuracies),
            f"{100 * statistics.mean(r['best_node_score'] for r in runs):.2f}",
            f"{100 * statistics.mean(r['worst_node_score'] for r in runs):.2f}",
            f"{statistics.mean(r['bytes_sent'] for r in runs) / 1e6:.0f}",
            f"{statistics.mean(r['wall_s'] for r in runs):.0f}",
        ])  # fmt: skip
        print(table([rows[0], rows[-1]]), flush=True)
        if options.keep:
            keep(f"accuracy-{options.table}", figures)
    print(table(rows))


def _train(seed: int, lr: float, settings: dict[str, object]) -> dict[str, Any]:
    return train(
        "vision", {"epochs": EPOCHS, "seed": seed, "lr": lr, "recipe": "plain", **settings}
    )


def train(task: str, settings: Mapping[str, object]) -> dict[str, Any]:
    """The summary of one `swarmsgd train`, without that of each node; {} if it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "swarmsgd", "train", task, "--out", f"{folder}/run"]
        for key, value in settings.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        # One thread a node, one node too: two that spin against each other on busy cores are
        # slower.
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment
        )
        summary = Path(folder) / "run" / "summary.json"
        if result.returncode or not summary.exists():
            print(result.stderr[-600:], flush=True)
            return {}
        kept = json.loads(summary.read_text())
        kept.pop("nodes_detail", None)
        return kept


if __name__ == "__main__":
    main()
