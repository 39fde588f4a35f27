"""What a run of `swarmsgd train` came to, from its nodes' records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from swarmsgd.observe.summary import summary
from swarmsgd.observe.view import NodeView, RunView
from swarmsgd.tasks import Task
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.launch.processes import NodeEnd, Outcome


def summarise_real(
    config: TrainConfig, task: Task, view: RunView, outcome: Outcome
) -> dict[str, Any]:
    """The contents of `summary.json`; figures that no node recorded are null."""
    ends = {end.node: end for end in outcome.nodes}
    failed = {end.node for end in outcome.failed}
    details = [_detail(node, ends.get(node.node), node.node in failed) for node in view.nodes]
    samples = sum(node.samples for node in view.nodes)
    mean, result = _first(view, "eval mean"), _first(view, "result")
    live = [node for node in view.nodes if node.node not in failed] or view.nodes
    return summary(
        config,
        mean=mean,
        own=[_last(node, "eval own") for node in view.nodes],
        simulated=False,
        device=config.device,
        batch_size=task.batch_size,
        parameters=_first(view, "start").get("dim"),
        samples=samples,
        epochs=samples / task.samples_per_epoch,
        wall_s=_over(max, (_last(node, "result").get("wall_s") for node in view.nodes)),
        exchanges=sum(node.initiated for node in view.nodes),
        lost_exchanges=sum(_last(node, "end").get("lost") or 0 for node in view.nodes),
        bytes_sent=sum(node.bytes_sent for node in view.nodes),
        scored_nodes=[node.node for node in view.nodes if "eval own" in node.last],
        gamma=result.get("gamma"),
        mean_of=result.get("mean_of"),
        blocked_s=_over(statistics.fmean, (detail["blocked_s"] for detail in details)),
        step_ms_p50=_over(statistics.median, (d["step_ms_p50"] for d in details)),
        step_ms_p99=_over(max, (d["step_ms_p99"] for d in details)),
        step_ms_max=_over(max, (d["step_ms_max"] for d in details)),
        steps_of_nodes=[min(node.steps for node in live), max(node.steps for node in live)],
        failed_nodes=sorted(failed),
        interrupted=outcome.interrupted_by,
        nodes_detail=details,
    )


def _last(node: NodeView, kind: str) -> dict[str, Any]:
    return node.last.get(kind, {})


def _first(view: RunView, kind: str) -> dict[str, Any]:
    """The record of this kind of the first node that has one."""
    return next((node.last[kind] for node in view.nodes if kind in node.last), {})


def _detail(node: NodeView, end: NodeEnd | None, failed: bool) -> dict[str, Any]:
    own, result = _last(node, "eval own"), _last(node, "result")
    return {
        "node": node.node,
        "failed": failed,
        "how": None if end is None else end.how,
        "last_words": end.last_words if end is not None and failed else None,
        "accuracy": own.get("accuracy"),
        "loss": own.get("loss"),
        "scores": own.get("scores", {}),
        "steps": node.steps,
        "samples": node.samples,
        "wall_s": result.get("wall_s"),
        **{name: result.get(name) for name in ("step_ms_p50", "step_ms_p99", "step_ms_max")},
        "exchanges": node.exchanges,
        "bytes_sent": node.bytes_sent,
        "blocked_s": node.blocked_s,
    }


def _over(take: Any, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return take(known) if known else None
