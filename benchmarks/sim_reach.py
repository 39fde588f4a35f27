"""Virtual seconds, passes and bytes until the mean model scores so much.

    python benchmarks/sim_reach.py translation --score bleu --reach 28 [--out DIR] [--keep]

Runs `recipes/NAME.toml`, or only reads what it wrote, if that lies in DIR. A curve has as many
points as the recipe has `evals`: what was reached between two is told of at the second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import HERE, keep, table

from swarmsgd import read_records
from swarmsgd.sim.comparison.recipe import folder_of, read_comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--score", default="accuracy")
    parser.add_argument("--reach", type=float, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    recipe = HERE / "recipes" / f"{options.name}.toml"
    folder = options.out or Path("runs") / f"reach-{options.name}"
    if not folder.exists():
        command = ["compare", str(recipe), "--jobs", str(options.jobs), "--out", str(folder)]
        if code := subprocess.run(
            [sys.executable, "-m", "swarmsgd", *command], check=False
        ).returncode:
            raise SystemExit(code)
    comparison = read_comparison(str(recipe))
    figures = {
        label: {
            str(seed): of_run(folder / folder_of(label) / f"seed-{seed}", options)
            for seed in comparison.seeds
        }
        for label in comparison.variants
    }
    rows: list[list[object]] = [
        ["variant", "seed", f"{options.score} at the end", "after passes", "virtual s",
         f"at {options.reach:g}: passes", "virtual s", "MB a node"]
    ]  # fmt: skip
    for label, runs in figures.items():
        for seed, points in runs.items():
            end, first = points["end"], points["first"]
            rows.append([label, seed, f"{end['score']:.4g}", f"{end['epoch']:.3g}",
                         f"{end['time_s']:.0f}", *shown(first)])  # fmt: skip
    print(table(rows))
    if options.keep:
        print("kept in", keep(f"sim-reach-{options.name}", figures))


def of_run(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The last point of its curve, and the first that reached the score, if one did."""
    nodes = json.loads((run / "summary.json").read_text())["nodes"]
    curve = read_records(run / "curve.jsonl", "curve")
    if not all(options.score in scores_of(point) for point in curve):
        raise SystemExit(
            f"there is no score {options.score}, only {', '.join(scores_of(curve[0]))}"
        )
    points = [
        {
            "score": scores_of(point)[options.score],
            "epoch": point["epoch"],
            "time_s": point["time_s"],
            "bytes_a_node": point["bytes_sent"] / nodes,
        }
        for point in curve
    ]
    first = next((point for point in points if point["score"] >= options.reach), None)
    return {"end": points[-1], "first": first, "curve": points}


def scores_of(point: Mapping[str, Any]) -> dict[str, float]:
    """All that the mean model was judged by."""
    accuracy = {} if point["accuracy"] is None else {"accuracy": point["accuracy"]}
    return accuracy | dict(point["scores"] or {})


def shown(point: dict[str, Any] | None) -> list[str]:
    if point is None:
        return ["not reached", "-", "-"]
    return [f"{point['epoch']:.3g}", f"{point['time_s']:.0f}", f"{point['bytes_a_node'] / 1e6:.0f}"]


if __name__ == "__main__":
    main()
