"""What a run of `swarmsgd train` came to, from its nodes' records: the contents of `summary.json`.

`FIELDS` is the table of what is in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from swarmsgd.codec import rotates
from swarmsgd.observe.view import NodeView, RunView
from swarmsgd.train.processes import NodeEnd, Outcome
from swarmsgd.train.recipe import TrainConfig

FIELDS: Mapping[str, tuple[str, str]] = {
    "task": ("text", "name of the task"),
    "dataset": ("text", "its data set; null if it has none"),
    "model": ("text", "its model; null if it has none"),
    "partition": ("text", "how the data are split over nodes; null if they are not"),
    "nodes": ("count", "nodes that were started"),
    "algorithm": ("text", "swarm or allreduce"),
    "device": ("text", "where the nodes trained"),
    "graph": ("text", "communication graph"),
    "local_steps": ("text", "optimizer steps between two exchanges"),
    "mode": ("text", "non-blocking, blocking or matching"),
    "bits": ("count", "bits a parameter on the wire; null is float32"),
    "rotation": ("flag", "whether blocks are rotated before they are coded"),
    "seed": ("number", "seed of the run"),
    "lr": ("number", "learning rate at the start"),
    "schedule": ("text", "how it went on"),
    "momentum": ("number", "momentum"),
    "weight_decay": ("number", "weight decay"),
    "batch_size": ("count", "samples in a local step"),
    "epochs": ("number", "passes over the data by all nodes together, as asked for"),
    "parameters": ("count", "parameters that are exchanged"),
    "samples": ("count", "training samples seen, all nodes"),
    "wall_s": ("s", "time in the training loop, of the slowest node"),
    "samples_per_s": ("1/s", "samples / wall_s"),
    "exchanges": ("count", "exchanges that their initiators mixed, all nodes"),
    "lost_exchanges": ("count", "exchanges only the partner may have mixed, all nodes that left"),
    "bytes_sent": ("bytes", "all nodes together"),
    "bytes_sent_is": ("text", "counted on the wire, or computed"),
    "mean_accuracy": ("fraction", "of the mean model on the test set"),
    "mean_loss": ("number", "of the mean model on the test set"),
    "best_node_accuracy": ("fraction", "of the best single node's own model"),
    "worst_node_accuracy": ("fraction", "of the worst single node's own model"),
    "gamma": ("number", "sum over nodes of the squared distance to the mean model, at the end"),
    "mean_of": ("list", "the nodes whose mean was taken"),
    "blocked_s": ("s", "time a training thread waited for other nodes, mean over nodes"),
    "step_ms_p50": ("ms", "wall time of a training step: median of the nodes' medians"),
    "step_ms_p99": ("ms", "the same, 99th percentile, of the worst node"),
    "step_ms_max": ("ms", "the same, longest of all"),
    "failed_nodes": ("list", "nodes whose process did not end well"),
    "interrupted": ("text", "signal that ended the run early; null if none did"),
    "nodes_detail": ("list", "a few of these figures for each node, and how it ended"),
}
"""Field -> (unit, meaning)."""


def summarise(config: TrainConfig, view: RunView, outcome: Outcome) -> dict[str, Any]:
    """The contents of `summary.json`; figures that no node recorded are null."""
    ends = {end.node: end for end in outcome.nodes}
    failed = {end.node for end in outcome.failed}
    details = [_detail(node, ends.get(node.node), node.node in failed) for node in view.nodes]
    swarm = config.algorithm == "swarm"
    samples = sum(node.samples for node in view.nodes)
    wall_s = _over(max, (node.last.get("result", {}).get("wall_s") for node in view.nodes))
    first_start = next((n.last["start"] for n in view.nodes if "start" in n.last), {})
    mean = next((n.last["eval mean"] for n in view.nodes if "eval mean" in n.last), {})
    result = next((n.last["result"] for n in view.nodes if "result" in n.last), {})
    accuracies = [detail["accuracy"] for detail in details]
    summary = {
        "task": config.task_name,
        **{name: getattr(config.task, name, None) for name in ("dataset", "model", "partition")},
        "nodes": config.nodes,
        "algorithm": config.algorithm,
        "device": config.device,
        "graph": config.graph if swarm else None,
        "local_steps": str(config.local_steps) if swarm else None,
        "mode": config.mode if swarm else None,
        "bits": config.bits if swarm else None,
        "rotation": rotates(config.bits, config.rotation) if swarm else None,
        "seed": config.seed,
        "lr": config.lr,
        "schedule": config.schedule,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "batch_size": getattr(config.task, "batch_size", 1),
        "epochs": config.epochs,
        "parameters": first_start.get("dim"),
        "samples": samples,
        "wall_s": wall_s,
        "samples_per_s": samples / wall_s if wall_s else None,
        "exchanges": sum(node.initiated for node in view.nodes),
        "lost_exchanges": sum(node.last.get("end", {}).get("lost", 0) for node in view.nodes),
        "bytes_sent": sum(node.bytes_sent for node in view.nodes),
        "bytes_sent_is": "counted" if swarm else "computed for a ring all-reduce, not counted",
        "mean_accuracy": mean.get("accuracy"),
        "mean_loss": mean.get("loss"),
        "best_node_accuracy": _over(max, accuracies),
        "worst_node_accuracy": _over(min, accuracies),
        "gamma": result.get("gamma"),
        "mean_of": result.get("mean_of"),
        "blocked_s": _over(statistics.fmean, (detail["blocked_s"] for detail in details)),
        "step_ms_p50": _over(statistics.median, (d["step_ms_p50"] for d in details)),
        "step_ms_p99": _over(max, (d["step_ms_p99"] for d in details)),
        "step_ms_max": _over(max, (d["step_ms_max"] for d in details)),
        "failed_nodes": sorted(failed),
        "interrupted": outcome.interrupted_by,
        "nodes_detail": details,
    }
    assert list(summary) == list(FIELDS)
    return summary


def _detail(node: NodeView, end: NodeEnd | None, failed: bool) -> dict[str, Any]:
    own, result = node.last.get("eval own", {}), node.last.get("result", {})
    return {
        "node": node.node,
        "failed": failed,
        "how": None if end is None else end.how,
        "last_words": end.last_words if end is not None and failed else None,
        "accuracy": own.get("accuracy"),
        "loss": own.get("loss"),
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
