"""What a run says to a person in plain lines, from the contents of its `summary.json`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from swarmsgd.observe.console import bytes_text
from swarmsgd.scores import metric_of


def notice(line: str) -> None:
    """One line on stderr."""
    print(f"swarmsgd: {line}", file=sys.stderr, flush=True)


def totals(summary: Mapping[str, Any]) -> str:
    """What a run came to, in two lines: how good the models are; what it took."""
    lines = [", ".join(_reached(summary)), ", ".join(_took(summary))]
    return "\n".join(line for line in lines if line)


def stopped(summary: Mapping[str, Any]) -> str:
    """Where and why a run ended that did not make all its steps."""
    return (
        f"ended at {summary['wall_s']:.2f} s, after {summary['epochs']:.2f} passes: "
        f"{summary['stopped']}"
    )


def reached(summary: Mapping[str, Any]) -> str:
    """How good the mean model is: what its run is judged by, then what else is known of it."""
    main = summary["score"]
    if main == "accuracy":
        return metric_of(main).write(summary["mean_score"])
    scores = {main: summary["mean_score"], **summary["scores"], "loss": summary["mean_loss"]}
    metrics = {metric_of(name): value for name, value in scores.items()}
    return ", ".join(f"{metric.title} {metric.write(value)}" for metric, value in metrics.items())


def _reached(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["mean_loss"] is not None:
        nodes = ""
        if summary["worst_node_score"] is not None:
            write = metric_of(summary["score"]).write
            worst, best = write(summary["worst_node_score"]), write(summary["best_node_score"])
            nodes = f" (single nodes {worst} to {best})"
        yield f"mean model {reached(summary)}{nodes}"
    if summary["gamma"] is not None:
        yield f"gamma {summary['gamma']:.4g}"


def _took(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["wall_s"] is not None:
        yield f"{summary['wall_s']:,.2f} {'virtual ' * summary['simulated']}s"
    if summary["samples_per_s"] is not None:
        yield f"{summary['samples_per_s']:,.0f} samples/s"
    if summary["step_ms"] is not None:
        yield f"{summary['step_ms']:.2f} ms a step"
    if summary["synchronization"] is not None:
        yield f"waiting {summary['synchronization']:.1%} of computing"
    if summary["exchanges"]:
        yield f"{summary['exchanges']:,} exchanges ({summary['lost_exchanges']} lost)"
    computed = "" if summary["bytes_sent_is"] == "counted" else " (computed)"
    yield f"{bytes_text(summary['bytes_sent'])} sent{computed}"
    if summary["host_s"] is not None:
        yield f"simulated in {summary['host_s'] + summary['score_host_s']:.1f} s"
