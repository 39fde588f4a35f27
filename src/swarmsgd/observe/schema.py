"""What is in a file of records: the table of kinds of lines and of the fields each has.

The documentation of the format is made from it, and the tests hold what is written against it. A
reader leaves alone what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarmsgd.observe.records import COMMON, Record
from swarmsgd.settings.options import options_of
from swarmsgd.settings.swarm import SwarmSettings


@dataclass(frozen=True, slots=True)
class RecordKind:
    """What a kind of line says, and its fields: name -> (unit, meaning). Every line has all of
    them; null stands for what is not known.
    """

    meaning: str
    fields: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def documented(cls: type) -> dict[str, tuple[str, str]]:
    """The settings of a dataclass, as the fields of a `RecordKind`."""
    units = {str: "text", bool: "flag", tuple: "list", int: "count", float: "number"}
    return {
        name: (next(unit for kind, unit in units.items() if kind in option.kinds), option.help)
        for name, option in options_of(cls).items()
    }


_SCORE = {
    "loss": ("number", "mean loss of the model on the test set"),
    "accuracy": ("fraction", "right answers; null: the task has none"),
    "scores": ("object", "name -> value of what only its task knows: bleu, ..."),
}
_ESTIMATE = ("number", "gamma as the last exchanges' distances show it; null: not known")
_PROGRESS = {
    "steps": ("count", "local steps done"),
    "samples": (
        "count",
        "training samples seen; null: a script's own, that `until` does not count",
    ),
    "lr": ("number", "learning rate now"),
    "exchanges": ("count", "exchanges mixed here: started here, or answered"),
    "bytes_sent": ("bytes", "handed to the links"),
    "bytes_received": ("bytes", "that came from the links"),
    "blocked_s": ("s", "time the training thread waited for exchanges; null: not measured"),
    "gamma_estimate": _ESTIMATE,
}

_EVERY = ("count", "of how many lines this one is left: files are thinned as they grow")

KINDS: Mapping[str, RecordKind] = {
    "file": RecordKind(
        "The first line of a file, and of what a node that was started again adds to it.",
        {
            "version": ("count", "version of this format"),
            "unix_s": ("s", "wall clock at t = 0, since 1970; null: times are virtual"),
        },
    ),
    "start": RecordKind(
        "The node is about to join.",
        {
            "num_nodes": ("count", "nodes of the run"),
            "dim": ("count", "parameters that are exchanged"),
            "host": ("text", "name of the machine"),
            "pid": ("number", "process id"),
            "threads": ("count", "threads of torch"),
            "software": ("text", "versions of this package, torch, Python, and the system"),
            **documented(SwarmSettings),
        },
    ),
    "plan": RecordKind(
        "What `swarmsgd train` is about to do on this node.",
        {
            "algorithm": ("text", "swarm or a baseline"),
            "total_steps": ("count", "local steps this node means to do"),
            "total_samples": ("count", "training samples this node means to see"),
            "unix_s": ("s", "wall clock at t, since 1970: aligns the files of a run"),
        },
    ),
    "progress": RecordKind(
        "About twice a second; counts since the start.",
        {
            **_PROGRESS,
            "loss": ("number", "mean training loss since the last such line; null: no step since"),
            "step_ms_max": ("ms", "longest local step so far; null: none was timed"),
            "every": _EVERY,
        },
    ),
    "exchange": RecordKind(
        "One exchange was mixed here.",
        {
            "role": ("text", "initiator or partner"),
            "peer": ("node", "the other end"),
            "counter": ("count", "number of the exchange among those its initiator started"),
            "seconds": ("s", "initiator: from offer to mixed reply; partner: to decode and answer"),
            "bytes_out": ("bytes", "the message sent"),
            "bytes_in": ("bytes", "the message received"),
            "distance": ("number", "norm of the difference of the two models"),
            "left_out": ("count", "blocks that were not mixed"),
            "float32_blocks": ("count", "blocks that came in as float32"),
            "cell": ("number", "median cell width of the blocks that came in coded"),
            "noise": ("number", "expected error norm of what came in, next to distance"),
            "every": _EVERY,
        },
    ),
    "event": RecordKind(
        "Something a person should know.",
        {
            "what": (
                "text",
                "one word to count by: lost, left, back, joined, gone, healed, refused, stranger, "
                "distrusted, distrusts (this node), diverged, died, launcher (what it did), ...",
            ),
            "peer": ("node", "whom it is about; null: nobody else"),
            "text": ("text", "the whole story"),
        },
    ),
    "mean": RecordKind(
        "The node takes part in a mean of all models: it begins to wait for the others, or has it.",
        {"of": ("list", "the nodes whose mean it has; null: it begins to wait")},
    ),
    "eval": RecordKind(
        "A model's score on the test set.",
        {
            "model": ("text", "own: this node's; mean: the mean of all live nodes' models"),
            **_SCORE,
            "score": ("text", "name of the one that a run is judged by"),
            "better": ("text", "higher or lower: which of two such is better"),
            "about": ("text", "how it was taken, e.g. sacrebleu's signature"),
            "samples": ("count", "samples it was measured on"),
            "steps": ("count", "local steps done by then"),
        },
    ),
    "result": RecordKind(
        "Training is done on this node (`swarmsgd train`, or a simulated one).",
        {
            **_PROGRESS,
            "wall_s": ("s", "time in the training loop; in real runs the mean included"),
            "step_ms_p50": ("ms", "wall time of a training step: median"),
            "step_ms_p99": ("ms", "the same, 99th percentile"),
            "step_ms_max": ("ms", "the same, longest"),
            "gamma": ("number", "sum over nodes of the squared distance to the mean model"),
            "mean_of": ("list", "the nodes whose mean was taken"),
        },
    ),
    "curve": RecordKind(
        "The whole run at one moment (simulated runs); `t` is `time_s`, `node` is -1.",
        {
            "time_s": ("s", "virtual time"),
            "samples": ("count", "training samples seen by all nodes together"),
            "epoch": ("number", "samples / training set"),
            "exchanges": ("count", "exchanges mixed, all nodes together"),
            "bytes_sent": ("bytes", "handed to the links by all nodes together"),
            "gamma_estimate": ("number", "mean over the nodes of what each one's exchanges show"),
            "gamma": ("number", "sum over nodes of the squared distance to the mean model"),
            **_SCORE,
            "train_loss": ("number", "mean training loss since the last such line"),
            "lr": ("number", "learning rate now"),
            "live": ("count", "nodes alive"),
        },
    ),
    "end": RecordKind(
        "The node has left; nothing follows.",
        {
            "rank": ("node", "this node"),
            "steps": ("count", "optimizer steps since it joined"),
            "incarnation": ("count", "how often the node was started before"),
            "started": ("count", "exchanges started here"),
            "completed": ("count", "of these, mixed here, late ones included"),
            "answered": ("count", "exchanges others started and this node answered"),
            "late": ("count", "completed after patience had run out"),
            "overdue": ("count", "times patience ran out"),
            "lost": ("count", "exchanges the partner may have mixed and this node did not"),
            "refused": ("count", "exchanges the partner declined"),
            "skipped": ("count", "bursts or rounds without a partner"),
            "bytes_sent": ("bytes", "handed to the links"),
            "bytes_received": ("bytes", "that came from the links"),
            "messages_sent": ("count", "messages handed to the links"),
            "messages_received": ("count", "messages that came from the links"),
            "left_out_blocks": ("count", "blocks not mixed"),
            "float32_blocks": ("count", "blocks that came in as float32"),
            "noise_sq": ("number", "expected part of the code's error in distance_sq"),
            "mixed_blocks": ("count", "blocks mixed"),
            "distance_sq": ("number", "sum of the squared distances over all exchanges mixed here"),
            "recent_sq": (
                "number",
                "mean of the last squared distances, the code's error taken off",
            ),
            "gamma_estimate": _ESTIMATE,
            "mixes": ("count", "exchanges mixed here"),
            "distrusted": ("count", "peers dropped for what they sent"),
            "busy_s": ("s", "time of the exchange thread spent at work"),
            "open_peers": ("count", "neighbours whose link still worked"),
            "lost_peers": ("object", "node -> why its link was lost"),
            "lock_missed": ("count", "steps that found the vectors in use and came back later"),
            "step_s_p50": ("s", "time from one optimizer step to the next: median"),
            "step_s_p99": ("s", "the same, 99th percentile"),
            "step_s_max": ("s", "the same, longest"),
            "hook_s_p50": ("s", "time a step spent in this package, waiting excluded: median"),
            "hook_s_p99": ("s", "the same, 99th percentile"),
            "hook_s_max": ("s", "the same, longest"),
            "hook_s_total": ("s", "the same, sum"),
            "blocked_s": ("s", "time the training thread waited for exchanges"),
        },
    ),
}


def wrong(record: Record) -> list[str]:
    """What of this record is not as in `KINDS`: its kind, or fields that it should not have or
    lacks. Empty if all is.
    """
    kind = KINDS.get(record["kind"])
    if kind is None:
        return [record["kind"]]
    fields = {name for name in record if name not in COMMON}
    return sorted(fields ^ set(kind.fields))


def filled(kind: str, **fields: Any) -> dict[str, Any]:
    """All fields of a line of this kind: these, and null for the others."""
    return dict.fromkeys(KINDS[kind].fields) | fields


def records_table() -> str:
    """The schema as Markdown: one section a kind, one row a field."""
    rows: list[str] = []
    for name, kind in KINDS.items():
        rows += [f"### {name}", "", kind.meaning, "", "| field | unit | meaning |", "|---|---|---|"]
        rows += [f"| {field} | {unit} | {text} |" for field, (unit, text) in kind.fields.items()]
        rows.append("")
    return "\n".join(rows)
