"""ResNet-20 on CIFAR-10, 4 nodes: SGD, all-reduce and the swarm at equal samples, and what becomes
of batch norm's statistics in a mean of models.

    python benchmarks/batch_norm.py [--passes 3] [--keep]

Momentum SGD, rate 0.1, weight decay 1e-4, cosine, shifts and mirrors: 128 samples a step of SGD, 32
a node of the others. Nothing is tuned. The mean model is scored with the statistics of one node,
with their average, and with those estimated anew.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench import HERE, keep, run_nodes, table

VARIANTS: dict[str, tuple[str, int, float]] = {
    "swarm, 8 bits, H 4": ("swarm:8:4", 4, 1.0),
    "swarm, 4 bits, H 2": ("swarm:4:2", 4, 1.0),
    "all-reduce (DDP)": ("allreduce", 4, 1.0),
    "SGD, one process": ("sgd", 1, 1.0),
    "swarm, 1.4 times the passes": ("swarm:8:4", 4, 1.4),
}
"""Name -> (algorithm, of a swarm with bits and local steps; nodes, passes over those of the
others)."""
STATISTICS = ("own", "averaged", "one node's", "anew")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--passes", type=float, default=3.0)
    parser.add_argument("--dataset", default="cifar10-jpeg75")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--keep", action="store_true", help="write the record, after each run")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for seed in range(options.seeds):
        for name, (algorithm, nodes, times) in VARIANTS.items():
            if options.only and name not in options.only:
                continue
            arguments = [
                HERE / "batch_norm_node.py", algorithm, times * options.passes, seed,
                options.dataset, options.model,
            ]  # fmt: skip
            said = run_nodes(arguments, nodes, timeout_s=6 * 3600.0)
            row = f"{name}, {times * options.passes:g} passes"
            figures.setdefault(row, []).append(
                {
                    "passes": times * options.passes,
                    "own": [node["own"] for node in said],
                    **{key: said[0][key] for key in (*STATISTICS[1:], "gamma", "samples", "batch")},
                    "step_ms_p50": said[0]["step_ms_p50"],
                    "bytes_a_node": sum(node["bytes_sent"] for node in said) / nodes,
                }
            )
            print(_row(name, figures[row]), flush=True)
            if options.keep:
                keep("batch-norm", figures)
    print(table([HEADS, *(_row(name, runs) for name, runs in figures.items())]))


HEADS = ["variant", "passes", "best node", "worst node", "mean: averaged", "one node's", "anew",
         "MB a node"]  # fmt: skip


def _row(name: str, runs: list[dict[str, Any]]) -> list[object]:
    def mean(values: list[float], factor: float = 100.0) -> str:
        return f"{factor * sum(values) / len(values):.2f}"

    return [
        name, f"{runs[0]['passes']:g}",
        mean([max(run["own"]) for run in runs]), mean([min(run["own"]) for run in runs]),
        *(mean([run[key] for run in runs]) for key in STATISTICS[1:]),
        f"{runs[0]['bytes_a_node'] / 1e6:.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
