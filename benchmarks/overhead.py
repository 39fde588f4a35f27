"""Step time of a pair of processes with the swarm, with DDP and alone, at three model sizes.

    python benchmarks/overhead.py [--keep]

Rounds of the three are interleaved; medians over the rounds of each run's median step.
"""

from __future__ import annotations

import argparse

from bench import HERE, keep, median, run_nodes, table

SIZES = {"0.1 M": (100_000, 400), "11.7 M": (11_700_000, 60), "100 M": (100_000_000, 12)}
"""Name -> parameters, steps a run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bits", nargs="+", default=["none"])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    variants = ["none", *(f"swarm:{b}" for b in options.bits), "ddp"]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    rows: list[list[object]] = [["parameters", "variant", "step, ms", "p99, ms", "ratio to alone"]]
    for name in options.sizes:
        parameters, steps = SIZES[name]
        runs: dict[str, list[dict]] = {v: [] for v in variants}
        for _ in range(options.rounds):
            for variant in variants:
                algorithm, _, bits = variant.partition(":")
                arguments = [HERE / "loop.py", "--algorithm", algorithm, "--steps", steps]
                arguments += ["--parameters", parameters, "--batch", options.batch]
                arguments += ["--bits", bits or "none"]
                runs[variant] += run_nodes(arguments, 2)
        figures[name] = {}
        for variant in variants:
            step = median(r["step_s_median"] for r in runs[variant])
            alone = median(r["step_s_median"] for r in runs["none"])
            p99 = median(r["step_s_p99"] for r in runs[variant])
            figures[name][variant] = {
                "step_ms": 1e3 * step,
                "p99_ms": 1e3 * p99,
                "ratio_to_alone": step / alone,
            }
            if variant.startswith("swarm"):
                hooks = [r["swarm"] for r in runs[variant]]
                figures[name][variant]["hook_ms_p50"] = 1e3 * median(h["hook_s_p50"] for h in hooks)
                figures[name][variant]["hook_ms_p99"] = 1e3 * median(h["hook_s_p99"] for h in hooks)
                figures[name][variant]["exchanges_started"] = median(h["started"] for h in hooks)
            rows.append(
                [name, variant, f"{1e3 * step:.2f}", f"{1e3 * p99:.2f}", f"{step / alone:.3f}"]
            )
            print(name, variant, figures[name][variant], flush=True)
    print(table(rows))
    if options.keep:
        print("kept in", keep("overhead", figures))


if __name__ == "__main__":
    main()
