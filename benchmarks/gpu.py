"""Does a swarm of models on a GPU keep its promises, and what does it cost?

    python benchmarks/gpu.py [--nodes 2] [--parameters 11700000] [--keep]

All nodes share one GPU. Checked: exchanges conserve the sum of models; the device holds one more
vector and no other; no step waits for the device (torch is told to raise where a call would), even
when its queue is long. Measured: time inside swarmsgd in the training thread, and the time of a
step with the swarm against as many processes without it. Exit code 1 if a check fails.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench import HERE, keep, median, run_nodes, table

DRIFT = 1e-5
"""Largest relative change of the sum of models in some hundreds of exchanges: float32 rounding."""
VECTORS = 1.05
"""Vectors of the model's size that joining may add on the device, padding of memory included."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--parameters", type=int, default=11_700_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bits", nargs="+", default=["8", "none"])
    parser.add_argument("--device", default="cuda", help="cpu only tries this script out")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no GPU here: torch finds no CUDA device, so nothing was checked or measured")
        return 0
    rows: list[list[object]] = [["check", "result", "ok"]]
    figures: dict[str, Any] = {}
    for mode, bits in [*(("non-blocking", b) for b in options.bits), ("blocking", "none")]:
        rows += conservation(options, mode, bits, figures)
    rows += ahead(options, figures)
    print(table(rows), flush=True)
    print(table(times(options, figures)), flush=True)
    if options.keep:
        print("kept in", keep("gpu", figures, f"{options.nodes} processes on one GPU"))
    return 0 if all(row[2] == "yes" for row in rows[1:]) else 1


def run(options: argparse.Namespace, part: str, *arguments: object) -> list[dict[str, Any]]:
    """One node process each; what they said."""
    command = [HERE / "gpu_node.py", part, "--device", options.device, *arguments]
    return run_nodes(command, options.nodes)


def bits_text(bits: str) -> str:
    return "float32" if bits == "none" else f"{bits} bits"


def row(what: str, text: str, ok: bool) -> list[object]:
    return [what, text, "yes" if ok else "NO"]


def conservation(
    options: argparse.Namespace, mode: str, bits: str, figures: dict[str, Any]
) -> list[list[object]]:
    """lr 0, models of unlike sizes: the sum stays, the spread goes."""
    with tempfile.TemporaryDirectory() as folder:
        said = run(options, "conserve", "--mode", mode, "--bits", bits, "--local-steps", 1,
                   "--folder", folder)  # fmt: skip
        files = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(options.nodes)]
    starts, finals, means = zip(*files, strict=True)
    before, after = sum(starts), sum(finals)
    drift = float((after - before).norm() / before.norm())
    gamma = said[0]["gamma_after"] / said[0]["gamma_before"]
    extra = max(s["extra_vectors"] for s in said)
    name = f"{mode}, {bits_text(bits)}"
    figures[f"conservation: {name}"] = {
        "drift": drift,
        "gamma_after_to_before": gamma,
        "exchanges": sum(s["started"] for s in said),
        "extra_vectors": extra,
    }
    exchanges, lost = sum(s["started"] for s in said), sum(s["lost"] for s in said)
    mean_off = float((means[0] - before / options.nodes).abs().max() / before.abs().max())
    where = said[0]["mean_is_on"]
    same = all(torch.equal(mean, means[0]) for mean in means)
    return [
        row(f"{name}: drift of the sum", f"{drift:.1e}", drift < DRIFT),
        row(f"{name}: exchanges, lost", f"{exchanges}, {lost}", exchanges >= 100 and not lost),
        row(f"{name}: Gamma, after to before", f"{gamma:.1e}", gamma < 1e-3),
        row(f"{name}: mean model is off by", f"{mean_off:.1e}", same and mean_off < DRIFT),
        row(f"{name}: mean model is on", where, where == options.device),
        row(f"{name}: vectors added on the device", f"{extra:.3f}", extra < VECTORS),
    ]


def ahead(options: argparse.Namespace, figures: dict[str, Any]) -> list[list[object]]:
    """The device's queue grows; the training thread must not notice."""
    said = run(options, "ahead", "--parameters", options.parameters, "--steps", 40)
    queued, done = (max(s[k] for s in said) for k in ("queued_s", "done_s"))
    figures["ahead"] = {"queued_s": queued, "done_s": done}
    text = f"40 steps queued in {1e3 * queued:.0f} ms, done in {1e3 * done:.0f} ms"
    ok = options.device == "cpu" or queued < done / 2
    return [row("the training thread runs ahead of the device", text, ok)]


def times(options: argparse.Namespace, figures: dict[str, Any]) -> list[list[object]]:
    """Interleaved rounds; medians over rounds and nodes."""
    variants = ["alone", *options.bits]
    runs: dict[str, list[dict[str, Any]]] = {v: [] for v in variants}
    for _ in range(options.rounds):
        for variant in variants:
            swarm = [] if variant == "alone" else ["--swarm", "--bits", variant]
            runs[variant] += run(
                options, "time", "--parameters", options.parameters, "--batch", options.batch,
                "--steps", options.steps, *swarm,
            )  # fmt: skip
    rows: list[list[object]] = [
        ["variant", "step, ms", "to alone", "hook p50, ms", "hook p99, ms", "exchanges"]
    ]
    alone = median(r["step_s"] for r in runs["alone"])
    for variant, said in runs.items():
        step = median(r["step_s"] for r in said)
        kept = {"step_ms": 1e3 * step, "ratio_to_alone": step / alone}
        kept["peak_mb"] = median(r["peak_bytes"] for r in said) / 1e6
        if variant != "alone":
            stats = [r["swarm"] for r in said]
            kept["hook_ms_p50"] = 1e3 * median(s["hook_s_p50"] for s in stats)
            kept["hook_ms_p99"] = 1e3 * median(s["hook_s_p99"] for s in stats)
            kept["exchanges"] = median(s["started"] for s in stats)
        figures[f"time: {variant}"] = kept
        hooks: list[object] = [
            f"{kept[k]:.3f}" if k in kept else "" for k in ("hook_ms_p50", "hook_ms_p99")
        ]
        exchanges = f"{kept['exchanges']:.0f}" if "exchanges" in kept else ""
        name = variant if variant == "alone" else f"swarm, {bits_text(variant)}"
        rows.append([name, f"{1e3 * step:.2f}", f"{step / alone:.3f}", *hooks, exchanges])
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
