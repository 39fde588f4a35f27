"""Translation and language: one process, all-reduce (DDP) and the swarm, at equal samples.

    python benchmarks/text.py translation [--keep]    # BLEU on Multi30k's test_2016_flickr
    python benchmarks/text.py language [--keep]       # bits a byte of a text held back

Every run is one `swarmsgd train` command with the task's own defaults but for what stands here. In
virtual time: `swarmsgd compare benchmarks/recipes/translation.toml`.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, NamedTuple

from accuracy import train
from bench import keep, table


class Table(NamedTuple):
    """Runs of one task; `rows` are the options of each."""

    score: str
    common: dict[str, object]
    rows: dict[str, dict[str, object]]


_FOUR = {"nodes": 4, "bits": 4, "local_steps": 2}
_EIGHT = {"nodes": 4, "bits": 8, "local_steps": 4}
_DDP = {"nodes": 4, "algorithm": "allreduce"}
_ONE = {"nodes": 1, "algorithm": "allreduce", "lr": 4e-3}

TABLES = {
    "translation": Table(
        score="bleu",
        common={"epochs": 6},
        rows={
            "swarm, 4 bits, H 2": _FOUR,
            "swarm, 8 bits, H 4": _EIGHT,
            "all-reduce (DDP)": _DDP,
            "one process": _ONE,
            "swarm, 8 bits, H 4, 7 passes": {**_EIGHT, "epochs": 7},
            "plain: swarm, 8 bits": {"nodes": 4, "recipe": "plain"},
            "plain: swarm, 4 bits": {"nodes": 4, "recipe": "plain", "bits": 4},
            "plain: all-reduce (DDP)": {**_DDP, "recipe": "plain", "lr": 3e-3},
            "plain: one process": {**_ONE, "recipe": "plain", "lr": 2e-3},
            "plain: swarm, 8 bits, 8 passes": {"nodes": 4, "recipe": "plain", "epochs": 8},
        },
    ),
    "language": Table(
        score="bits_per_byte",
        common={},
        rows={
            f"{recipe}{name}, {passes:g} passes": {**settings, **more, "epochs": passes}
            for recipe, more in (("", {}), ("plain: ", {"recipe": "plain", "lr": 3e-3}))
            for passes in (0.125, 0.25, 0.5)
            for name, settings in (
                ("swarm, 4 bits, H 2", _FOUR),
                ("swarm, 8 bits, H 4", _EIGHT),
                ("all-reduce (DDP)", _DDP),
                ("one process", _ONE),
            )
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(TABLES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--keep", action="store_true", help="write the record, after each run")
    options = parser.parse_args()
    chosen = TABLES[options.task]
    figures: dict[str, Any] = {}
    for seed in range(options.seeds):
        for name, settings in chosen.rows.items():
            if options.only and name not in options.only:
                continue
            run = train(options.task, {**chosen.common, **settings, "seed": seed})
            figures.setdefault(name, []).append(run)
            print(f"{name}, seed {seed}: {run.get('mean_score')}", flush=True)
            if options.keep:
                keep(f"text-{options.task}", figures)
    print(table([HEADS, *(_row(name, runs) for name, runs in figures.items())]))


HEADS = ["variant", "passes", "rate", "mean model", "each seed", "best node", "worst node",
         "loss", "MB a node", "step, ms", "s"]  # fmt: skip


def _row(name: str, runs: list[dict[str, Any]]) -> list[object]:
    def mean(field: str, factor: float = 1.0) -> float:
        return factor * statistics.mean(run[field] for run in runs)

    return [
        name, f"{mean('epochs'):.2g}", f"{mean('lr'):g}", f"{mean('mean_score'):.3f}",
        " ".join(f"{run['mean_score']:.3f}" for run in runs),
        f"{mean('best_node_score'):.3f}", f"{mean('worst_node_score'):.3f}",
        f"{mean('mean_loss'):.3f}", f"{mean('bytes_a_node', 1e-6):.0f}",
        f"{mean('step_ms_p50'):.1f}", f"{mean('wall_s'):.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
