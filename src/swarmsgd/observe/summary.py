"""`summary.json`: the figures of a run, real or simulated, by the same names.

What the two share is filled in here; the drivers hand in what they measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from swarmsgd.observe.schema import documented
from swarmsgd.scores import value_of
from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.settings.options import options_of
from swarmsgd.settings.run import RunConfig
from swarmsgd.settings.swarm import SwarmSettings

_ALL, _REAL, _SIMULATED = "all", "real", "simulated"


class Figure(NamedTuple):
    """A line of `FIGURES`."""

    unit: str
    meaning: str
    runs: str = _ALL
    """Which runs have it: all, real, simulated. In the others it is null."""


FIGURES: Mapping[str, Figure] = {
    "simulated": Figure("flag", "true: times are virtual"),
    "task": Figure("text", "name of the task"),
    "dataset": Figure("text", "its data set; null if it has none"),
    "model": Figure("text", "its model; null if it has none"),
    "partition": Figure("text", "how the data are split over nodes; null if they are not"),
    "nodes": Figure("count", "nodes of the run"),
    "algorithm": Figure("text", "swarm, or what it is compared with"),
    "device": Figure("text", "where the nodes trained", _REAL),
    "precision": Figure("text", "in which numbers a training step computed"),
    "world": Figure("object", "the world's settings", _SIMULATED),
    **{
        name: Figure(unit, f"{meaning} null: the algorithm has no such thing")
        for name, (unit, meaning) in documented(SwarmSettings).items()
        if options_of(SwarmSettings)[name].offered and name != "seed"
    },
    "seed": Figure("number", "seed of the run"),
    **{
        name: Figure(unit, f"{meaning} null: the optimizer has no such thing")
        for name, (unit, meaning) in documented(OptimizerSettings).items()
    },
    "batch_size": Figure("count", "samples in a local step"),
    "parameters": Figure("count", "parameters that are exchanged"),
    "samples": Figure("count", "training samples seen, all nodes"),
    "epochs": Figure("number", "passes over the data by all nodes together"),
    "budget": Figure("text", "whether each node made its share of them, or all made them together"),
    "wall_s": Figure("s", "time in the training loop, of the slowest node; or virtual time"),
    "samples_per_s": Figure("1/s", "samples / wall_s"),
    "exchanges": Figure("count", "exchanges that their initiators mixed, all nodes"),
    "lost_exchanges": Figure(
        "count", "exchanges only the partner may have mixed, all nodes that left"
    ),
    "bytes_sent": Figure("bytes", "all nodes together"),
    "bytes_sent_is": Figure("text", "counted on the wire, or computed"),
    "bytes_a_node": Figure("bytes", "sent, mean over nodes"),
    "mean_accuracy": Figure("fraction", "of the mean model on the test set; null: there is none"),
    "mean_loss": Figure("number", "of the mean model on the test set"),
    "train_accuracy": Figure("fraction", "of the mean model on training data", _SIMULATED),
    "train_loss": Figure("number", "the same", _SIMULATED),
    "scores": Figure("object", "name -> value of what only the task knows of the mean model"),
    "score": Figure("text", "name of what the run is judged by: accuracy, bleu, ..., or loss"),
    "better": Figure("text", "higher or lower: which of two such scores is better"),
    "score_about": Figure("text", "how it was taken, e.g. sacrebleu's signature"),
    "mean_score": Figure("number", "that of the mean model"),
    "best_node_score": Figure("number", "that of the best single node's own model"),
    "worst_node_score": Figure("number", "that of the worst single node's own model"),
    "scored_nodes": Figure("list", "nodes whose own models were scored"),
    "gamma": Figure("number", "sum over nodes of the squared distance to the mean, at the end"),
    "mean_of": Figure("list", "the nodes whose mean was taken"),
    "blocked_s": Figure("s", "time a node waited for others, mean over nodes"),
    "compute_s": Figure(
        "s", "virtual time a node spent in local steps, mean over those that made any", _SIMULATED
    ),
    "synchronization": Figure(
        "fraction", "time spent waiting over time spent computing, mean of nodes", _SIMULATED
    ),
    "step_ms": Figure(
        "ms", "virtual time of the run over the local steps of a node, mean over nodes", _SIMULATED
    ),
    "step_ms_p50": Figure(
        "ms", "wall time of a training step: median of the nodes' medians", _REAL
    ),
    "step_ms_p99": Figure("ms", "the same, 99th percentile, of the worst node", _REAL),
    "step_ms_max": Figure("ms", "the same, longest of all", _REAL),
    "steps_of_nodes": Figure("list", "fewest and most local steps that a live node made"),
    "host_s": Figure("s", "real time the simulation took, scoring excluded", _SIMULATED),
    "gradient_host_s": Figure("s", "of it in gradients and optimizer steps", _SIMULATED),
    "score_host_s": Figure("s", "real time spent in scoring", _SIMULATED),
    "events": Figure("count", "entries of the virtual agenda that were carried out", _SIMULATED),
    "stopped": Figure("text", "why not all steps were made, if so", _SIMULATED),
    "failed_nodes": Figure("list", "nodes whose process did not end well", _REAL),
    "interrupted": Figure("text", "signal that ended the run early; null if none did"),
    "nodes_detail": Figure(
        "list", "a few of these figures for each node, and how it ended", _REAL
    ),
}  # fmt: skip
"""Every field."""


def summary(
    config: RunConfig, *, mean: Mapping[str, Any], own: Iterable[Mapping[str, Any]], **figures: Any
) -> dict[str, Any]:
    """The contents of `summary.json`: the run's settings, and these figures. `mean` and `own` are
    the scores of the mean model and of single nodes' models as `Score.fields` has them; empty for
    what was not scored.
    """
    uses = ALGORITHMS[config.algorithm].uses
    swarm = config.swarm.in_effect(uses)
    settings = {
        "task": config.task_name,
        **{name: getattr(config.task, name, None) for name in ("dataset", "model", "partition")},
        "nodes": config.nodes,
        "algorithm": config.algorithm,
        "precision": config.precision,
        "budget": config.budget,
        **{name: value for name, value in swarm.items() if name in FIGURES},
        "seed": config.seed,
        **config.optimizer.in_effect(),
    }
    found = settings | _scores(mean, [fields for fields in own if fields]) | figures
    unknown = set(found) - set(FIGURES)
    assert not unknown, f"not in FIGURES: {unknown}"
    samples, wall_s = figures["samples"], figures["wall_s"]
    derived = {
        "samples_per_s": samples / wall_s if wall_s else None,
        "bytes_sent_is": "counted" if config.algorithm == "swarm" else "computed",
        "bytes_a_node": figures["bytes_sent"] / config.nodes,
    }
    return {name: (found | derived).get(name) for name in FIGURES}


def _scores(mean: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = mean or next(iter(own), {})
    name, better = known.get("score", "loss"), known.get("better", "lower")
    values = [value for fields in own if (value := value_of(name, fields)) is not None]
    best, worst = (max, min) if better == "higher" else (min, max)
    return {
        "mean_loss": mean.get("loss"),
        "mean_accuracy": mean.get("accuracy"),
        "scores": mean.get("scores", {}),
        "score": name,
        "better": better,
        "score_about": known.get("about") or None,
        "mean_score": value_of(name, mean),
        "best_node_score": best(values, default=None),
        "worst_node_score": worst(values, default=None),
    }


def figures_table() -> str:
    """The figures as Markdown, one row each."""
    rows = ["| field | unit | runs | meaning |", "|---|---|---|---|"]
    rows += [f"| {n} | {f.unit} | {f.runs} | {f.meaning} |" for n, f in FIGURES.items()]
    return "\n".join(rows)
