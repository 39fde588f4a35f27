"""The figures of a simulated run: those of a real one, by the same names, and a few of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmsgd.codec import rotates
from swarmsgd.recipe import plain
from swarmsgd.sim.algorithms import ALGORITHMS
from swarmsgd.sim.config import SimConfig
from swarmsgd.sim.fleet import Fleet
from swarmsgd.sim.ledger import Ledger
from swarmsgd.tasks import Score, Task

FIELDS: Mapping[str, tuple[str, str]] = {
    "simulated": ("flag", "true: times are virtual"),
    "train_loss": ("number", "of the mean model on a sample of the training data"),
    "train_accuracy": ("fraction", "the same"),
    "compute_s": ("s", "virtual time a node spent in local steps, mean over those that made any"),
    "step_ms": ("ms", "virtual time of the run over the local steps of a node, mean over nodes"),
    "synchronization": ("fraction", "time spent waiting over time spent computing, mean of nodes"),
    "scored_nodes": ("list", "nodes whose own models were scored"),
    "steps_of_nodes": ("list", "fewest and most local steps that a live node made"),
    "bytes_a_node": ("bytes", "sent, mean over nodes"),
    "world": ("object", "the world's settings"),
    "host_s": ("s", "real time the simulation took, scoring excluded"),
    "gradient_host_s": ("s", "of it in gradients and optimizer steps"),
    "score_host_s": ("s", "real time spent in scoring"),
    "events": ("count", "entries of the virtual agenda that were carried out"),
    "stopped": ("text", "why the run ended before all steps were made, if it did"),
}
"""Fields that a real run's summary has not -> (unit, meaning)."""


def summarise(
    config: SimConfig,
    task: Task,
    fleet: Fleet,
    ledger: Ledger,
    *,
    mean: Score,
    train: Score,
    own: Mapping[int, Score],
    gamma: float,
    live: list[int],
    virtual_s: float,
    host_s: float,
    score_s: float,
    interrupted: bool,
) -> dict[str, Any]:
    """The contents of `summary.json`."""
    uses = ALGORITHMS[config.algorithm].uses
    options = {
        "graph": config.graph,
        "local_steps": str(config.local_steps),
        "mode": config.mode,
        "bits": config.bits,
        "rotation": rotates(config.bits, config.rotation),
    }
    accuracies = [s.accuracy for s in own.values() if s.accuracy is not None]
    steps = fleet.made_N[live] if live else fleet.made_N
    worked = ledger.compute_s_N > 0
    blocked, compute = ledger.blocked_s_N[worked], ledger.compute_s_N[worked]
    return {
        "simulated": True,
        "task": config.task_name,
        **{name: getattr(config.task, name, None) for name in ("dataset", "model", "partition")},
        "nodes": config.nodes,
        "algorithm": config.algorithm,
        **{name: value if name in uses else None for name, value in options.items()},
        "seed": config.seed,
        "lr": config.lr,
        "schedule": config.schedule,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "batch_size": task.batch_size,
        "epochs": fleet.samples / task.samples_per_epoch,
        "parameters": fleet.dim,
        "samples": fleet.samples,
        "wall_s": virtual_s,
        "samples_per_s": fleet.samples / virtual_s if virtual_s else None,
        "exchanges": int(ledger.initiated_N.sum()),
        "lost_exchanges": int(ledger.lost_N.sum()),
        "bytes_sent": int(ledger.bytes_sent_N.sum()),
        "bytes_sent_is": "counted" if config.algorithm == "swarm" else "computed",
        "mean_accuracy": mean.accuracy,
        "mean_loss": mean.loss,
        **mean.extra,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "best_node_accuracy": max(accuracies, default=None),
        "worst_node_accuracy": min(accuracies, default=None),
        "scored_nodes": list(own),
        "gamma": gamma,
        "mean_of": live,
        "blocked_s": float(blocked.mean()) if worked.any() else 0.0,
        "compute_s": float(compute.mean()) if worked.any() else 0.0,
        "synchronization": float(blocked.sum() / compute.sum()) if compute.sum() else 0.0,
        "step_ms": 1000 * virtual_s * len(steps) / int(steps.sum()) if steps.any() else None,
        "steps_of_nodes": [int(steps.min()), int(steps.max())],
        "bytes_a_node": float(ledger.bytes_sent_N.mean()),
        "world": plain(vars(config.world)),
        "host_s": host_s,
        "gradient_host_s": fleet.gradient_s,
        "score_host_s": score_s,
        "events": ledger.events,
        "stopped": ledger.stopped,
        "interrupted": "SIGINT" if interrupted else None,
    }
