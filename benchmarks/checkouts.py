"""Hook and step of several checkouts of the project side by side, in one run, interleaved.

    python benchmarks/checkouts.py before=DIR [other=DIR ...] [--rounds 3] [--keep]

The same loop on two processes with the package of each checkout in turn, and without a swarm;
medians over the rounds. "now" is the checkout that this file lies in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import HERE, keep, median, run_nodes, table

SIZES = {
    "0.1 M, 8 tensors": (100_000, 4, 600),
    "0.4 M, 200 tensors": (400_000, 100, 200),
    "11.7 M, 8 tensors": (11_700_000, 4, 60),
    "100 M, 8 tensors": (100_000_000, 4, 12),
}
"""Name -> parameters, layers, steps a run."""
MEASURED = ("step_ms", "ratio_to_alone", "hook_us_p50", "hook_us_p99", "exchanges")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bits", default="8")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    checkouts: dict[str, Path] = {}
    for given in [*options.checkouts, f"now={HERE.parent}"]:
        name, _, folder = given.partition("=")
        source = Path(folder).absolute() / "src"
        if not folder or not (source / "swarmsgd").is_dir():  # or this one would be measured
            parser.error(f"{given!r} is no NAME=DIR of a checkout: there is no {source}/swarmsgd")
        checkouts[name] = source
    figures: dict[str, dict[str, dict[str, float]]] = {}
    rows: list[list[object]] = [["model", "checkout", *MEASURED]]
    for size in options.sizes:
        parameters, layers, steps = SIZES[size]
        loop = [HERE / "loop.py", "--parameters", parameters, "--depth", layers, "--steps", steps]
        runs: dict[str, list[dict]] = {name: [] for name in ("alone", *checkouts)}
        for _ in range(options.rounds):
            runs["alone"] += run_nodes([*loop, "--algorithm", "none"], 2)
            for name, source in checkouts.items():
                swarm = [*loop, "--algorithm", "swarm", "--bits", options.bits]
                runs[name] += run_nodes(swarm, 2, PYTHONPATH=str(source))
        alone = median(r["step_s_median"] for r in runs.pop("alone"))
        figures[size] = {"alone": {"step_ms": 1e3 * alone}}
        for name, said in runs.items():
            step = median(r["step_s_median"] for r in said)
            figures[size][name] = {
                "step_ms": 1e3 * step,
                "ratio_to_alone": step / alone,
                "hook_us_p50": 1e6 * median(r["swarm"]["hook_s_p50"] for r in said),
                "hook_us_p99": 1e6 * median(r["swarm"]["hook_s_p99"] for r in said),
                "exchanges": median(r["swarm"]["mixes"] for r in said),
            }
            rows.append([size, name, *(f"{figures[size][name][m]:.2f}" for m in MEASURED)])
        print(table(rows), flush=True)
    if options.keep:
        print("kept in", keep("checkouts", figures))


if __name__ == "__main__":
    main()
