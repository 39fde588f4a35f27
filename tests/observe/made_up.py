"""Made-up curves: the shape of the real thing, for pages to be drawn from."""

from __future__ import annotations

import math
from typing import Any

from swarmsgd.observe.curves import RunCurve

POINTS = 20


def seed_points(
    seed: int = 0,
    *,
    points: int = POINTS,
    step_ms: float = 10.0,
    sends: bool = True,
    **changes: Any,
) -> list[dict[str, Any]]:
    """One seed's records; a value in `changes` replaces that field in every record."""
    found: list[dict[str, Any]] = []
    for k in range(points):
        share = k / max(1, points - 1)
        accuracy = 0.9 - 0.8 * math.exp(-5 * share) + 0.002 * seed * share
        found.append(
            {
                "t": 10 * share,
                "node": -1,
                "kind": "curve",
                "time_s": (10 + 0.1 * seed) * share * step_ms / 10,
                "samples": int(480_000 * share),
                "epoch": 8 * share,
                "exchanges": int(4000 * share),
                "bytes_sent": int(4e9 * share) if sends else 0,
                "gamma": 3 * (1.2 - share) if k else 0.0,
                "loss": -math.log(accuracy),
                "accuracy": accuracy,
                "train_loss": -math.log(accuracy) if k else None,
                "lr": 0.05,
                "live": 16,
            }
            | changes
        )
    return found


def made_up_run(
    label: str, group: str | None = None, *, seeds: int = 1, step_ms: float = 10.0, **changes: Any
) -> RunCurve:
    """Seeds and summaries of one run."""
    lists = [seed_points(seed, step_ms=step_ms, **changes) for seed in range(seeds)]
    summaries = [
        {"seed": seed, "lr": 0.05, "step_ms": step_ms, "wall_s": 10.0, "compute_s": 9.0}
        | {"blocked_s": 1.0, "graph": "complete", "simulated": True, "world": {"latency_s": 0.1}}
        for seed in range(seeds)
    ]
    return RunCurve(label=label, group=group or label, seeds=lists, summaries=summaries)
