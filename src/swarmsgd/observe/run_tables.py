"""What a run came to, its nodes, events, settings and environment, as tables of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from swarmsgd.observe.console import bytes_text
from swarmsgd.observe.finals import NONE, digits, duration
from swarmsgd.observe.folder import SUMMARY, is_owned
from swarmsgd.observe.page import Table
from swarmsgd.observe.run_curve import clean_summary
from swarmsgd.observe.safe import plain_markdown
from swarmsgd.observe.sources import Run
from swarmsgd.observe.story import Happening, NodeStory, finite
from swarmsgd.scores import metric_of

_SILENT_S = 5.0
"""After so long without a record a node is said to be silent."""
GOES_ON_S = 1.0
"""Who has records so long after its death was started again."""
_WORDS = (
    "Waiting: for exchanges in the blocking modes, and for others in mean_model(). A block is "
    "4,096 numbers; one in which two models are too far apart for the bits used is left out, which "
    "both find out, and is sent wider the next time: a few in a hundred are usual."
)
_MOST_NODES = 64
MOST_SETTINGS = 120


def headline(run: Run) -> str:
    """One paragraph: what ran, and how it ended."""
    summary, story = clean_summary(run.summary), run.story
    about = {**asked_for(run), **summary}
    told = [str(about.get(name)) for name in ("algorithm", "task", "dataset", "model", "graph")]
    words = ", ".join(plain_markdown(word) for word in told if word != "None")
    nodes = max(int(summary.get("nodes", 0)), len(story.nodes))  # other hosts' may be there too
    kind = "simulated" if story.curve else "real"
    dead = dead_nodes(run)
    end = ""
    if dead:
        named = ", ".join(map(str, dead[:8])) + ", ..." * (len(dead) > 8)
        end = f" **Nodes that died: {named}.**"
    if summary.get("interrupted"):
        end += f" Ended early by {plain_markdown(summary['interrupted'])}."
    if summary.get("stopped"):
        end += f" Stopped: {plain_markdown(summary['stopped'])}."
    if not (run.folder / SUMMARY).exists():
        if is_owned(run.folder):
            end += " It goes on."
        elif story.nodes and all(
            node.state in ("left", "done") or n in dead for n, node in story.nodes.items()
        ):
            end += " It has ended; there is no summary here."
        else:
            end += " It was killed: there is no summary."
    name, took = plain_markdown(run.label), duration(story.end_s)
    words += "; " if words else ""
    head = f"**{name}**: {words}{nodes:,} nodes, {kind}, {took}."
    return f"{head} {story.records:,} records.{end}"


def asked_for(run: Run) -> dict[str, str]:
    """What a run without a summary is of, from its settings."""
    task, known = run.config.get("task"), run.config
    found = {**known, **task, "task": task.get("name")} if isinstance(task, dict) else known
    names = ("algorithm", "task", "dataset", "model")
    return {name: found[name] for name in names if isinstance(found.get(name), str)}


def dead_nodes(run: Run) -> list[int]:
    """Whose process failed, or who was killed and did not come back."""
    found = {int(n) for n in run.summary.get("failed_nodes") or () if type(n) is int}
    for event in run.story.events:
        whom = event.node if event.peer is None else event.peer
        if event.what in ("killed", "died", "failed", "terminated"):
            node = run.story.nodes.get(whom)
            if node is None or node.last_t < event.t + GOES_ON_S:
                found.add(whom)
        elif event.what in ("joined", "back"):
            found.discard(whom)
    return sorted(found)


def first_figures(runs: Sequence[Run]) -> Table:
    """The figures that people ask for first, a column a run."""
    columns = [_figures(clean_summary(run.summary), run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, NONE) for column in columns)] for name in names]
    heads = [plain_markdown(run.label) for run in runs]
    return Table(title="What it came to", columns=["", *heads], rows=rows)


def _figures(summary: Mapping[str, Any], run: Run) -> dict[str, str]:
    score = summary.get("score")
    found: dict[str, str | None] = {}
    nodes = run.story.nodes.values()
    time = "time in the training loop"
    if not summary.get("parameters"):  # a script's run, of which nobody summed up the nodes
        time = "time, starting included"
        told = [node.step_times for node in nodes if node.step_times is not None]
        summary = {
            "exchanges": round(sum(node.exchanges for node in nodes) / 2),
            "bytes_sent": sum(int(node.bytes_sent) for node in nodes),
            **({"step_ms_p50": median(times.p50 for times in told)} if told else {}),
            **({"step_ms_max": max(times.max for times in told)} if told else {}),
            **summary,
        }
    if score and "mean_score" in summary:
        write = metric_of(score).write
        found[f"{plain_markdown(metric_of(score).title)} of the mean model"] = write(
            summary["mean_score"]
        )
        ends = (summary.get("worst_node_score"), summary.get("best_node_score"))
        if None not in ends:
            found["of single nodes"] = " to ".join(write(end) for end in ends)
    found |= {
        "loss of the mean model": _number(summary, "mean_loss"),
        time: duration(summary["wall_s"]) if "wall_s" in summary else None,
        "samples a second": _number(summary, "samples_per_s"),
        "step (ms)": _number(summary, "step_ms"),
        "step, median of the nodes' medians (ms)": _number(summary, "step_ms_p50"),
        "step, 99th percentile (ms)": _number(summary, "step_ms_p99"),
        "step, longest (ms)": _longest(summary, run),
        "exchanges": _number(summary, "exchanges"),
        "lost exchanges": _number(summary, "lost_exchanges"),
        "blocks left out": f"{sum(node.left_out for node in nodes):,.0f}",
        "sent": bytes_text(summary["bytes_sent"]) if "bytes_sent" in summary else None,
        "bits a parameter": _number(summary, "bits") or "float32" * ("graph" in summary) or None,
        "Γ at the end": _number(summary, "gamma"),
        "parameters": f"{int(summary['parameters']):,}" if "parameters" in summary else None,
    }
    return {name: text for name, text in found.items() if text is not None}


def _longest(summary: Mapping[str, Any], run: Run) -> str | None:
    longest = _number(summary, "step_ms_max")
    times = {
        node.node: node.step_times.max
        for node in run.story.nodes.values()
        if node.step_times is not None
    }
    if longest is None or not times:
        return longest
    return f"{longest} (node {max(times, key=lambda node: times[node])})"


def _number(summary: Mapping[str, Any], name: str) -> str | None:
    value = finite(summary.get(name))
    if value is None:
        return None
    return f"{value:,}" if isinstance(value, int) else digits(value)


def nodes_table(run: Run) -> Table | None:
    """A row a node; of many those to look at first: dead ones, then slow ones."""
    story = run.story
    if not story.nodes:
        return None
    details = run.summary.get("nodes_detail")
    how = (
        {d.get("node"): d for d in details if isinstance(d, dict)}
        if isinstance(details, list)
        else {}
    )
    dead = set(dead_nodes(run))
    order = sorted(
        story.nodes.values(), key=lambda v: (v.node not in dead, -(v.step_ms or 0), v.node)
    )
    kept = order[:_MOST_NODES]
    if len(order) <= _MOST_NODES:
        kept = sorted(kept, key=lambda node: node.node)
    columns = ["node", "state", "steps", "ms a step", "longest", "loss", "exchanges", "sent",
               "waiting", "left-out blocks", "Γ seen"]  # fmt: skip
    rows = [
        _node_row(node, _state(run, node, how.get(node.node, {}), node.node in dead))
        for node in kept
    ]
    many = len(order) - len(kept)
    note = f"{many:,} more nodes are not listed; these died or are the slowest. " if many else ""
    note += _WORDS
    return Table(title="Nodes", columns=columns, rows=rows, note=note)


def _state(run: Run, node: NodeStory, how: Mapping[str, Any], dead: bool) -> str:
    silent_s = run.story.end_s - node.last_t
    if dead:
        return f"**died: {plain_markdown(how['how'])}**" if how.get("how") else "**died**"
    if not run.summary and node.state in ("training", "joined") and silent_s > _SILENT_S:
        return f"**silent for {duration(silent_s)}**"
    return plain_markdown(node.state)


def _node_row(node: NodeStory, state: str) -> list[str]:
    result = node.last.get("result", {})
    gamma = finite({**node.last.get("progress", {}), **result}.get("gamma_estimate"))
    return [
        str(node.node),
        state,
        f"{node.steps:,}",
        _cell(node.step_ms),
        _cell(node.longest_ms),
        _cell(finite(node.loss)),
        f"{node.exchanges or sum(one.weight for one in node.mixing):,.0f}",
        bytes_text(finite(node.bytes_sent) or 0.0),
        duration((finite(node.blocked_s) or 0.0) + node.waited_s),
        f"{node.left_out:,.0f}",
        _cell(gamma),
    ]


def _cell(value: float | None) -> str:
    return NONE if value is None else digits(value)


def settings_table(run: Run) -> Table | None:
    """The run's settings, flat."""
    rows = [[plain_markdown(name), plain_markdown(value)] for name, value in _flat(run.config)]
    if not rows:
        return None
    left = len(rows) - MOST_SETTINGS
    note = f"{left:,} more are in config.json." if left > 0 else ""
    return Table(
        title="Settings", columns=["", ""], rows=rows[:MOST_SETTINGS], note=note, folded=True
    )


def _flat(config: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict) and depth < 4:
            found += _flat(value, f"{prefix}{name} ", depth + 1)
        else:
            text = (
                NONE
                if value is None
                else ", ".join(map(str, value))
                if isinstance(value, list)
                else str(value)
            )
            found.append((prefix + str(name), text or NONE))
    return found


def environment_table(run: Run) -> Table | None:
    """Where it ran: nodes of the same host and software in one row."""
    places: dict[tuple[str, str, str], list[int]] = {}
    for node in sorted(run.story.nodes):
        last = run.story.nodes[node].last
        where = {**last.get("start", {}), **last.get("plan", {})}  # older records: in the plan
        if "host" in where:
            key = tuple(str(where.get(name, NONE)) for name in ("host", "threads", "software"))
            places.setdefault((key[0], key[1], key[2]), []).append(node)
    if not places:
        return None
    rows = [
        [plain_markdown(host), _numbers(nodes), plain_markdown(threads), plain_markdown(software)]
        for (host, threads, software), nodes in list(places.items())[:_MOST_NODES]
    ]
    heads = ["host", "nodes", "threads of torch", "software"]
    return Table(title="Where it ran", columns=heads, rows=rows, folded=True)


def _numbers(nodes: Sequence[int]) -> str:
    text = ", ".join(map(str, nodes[:12]))
    return text if len(nodes) <= 12 else f"{text}, ... ({len(nodes)})"


def words_of_node(run: Run, node: NodeStory, about: Sequence[Happening]) -> list[tuple[str, str]]:
    """What is known of one node, a line each: who and where it is, how it goes, what happened."""
    found = {"state": "died" if node.node in dead_nodes(run) else node.state}
    for kind, names in (
        ("start", ("host", "pid", "threads", "software")),
        ("plan", ("total_steps",)),
        ("progress", ("steps", "samples", "loss", "lr", "exchanges", "bytes_sent", "blocked_s",
                      "gamma_estimate")),
        ("result", ("step_ms_p50", "step_ms_p99", "step_ms_max")),
        ("end", ("hook_s_p99", "lost", "late", "refused", "left_out_blocks", "lost_peers")),
    ):  # fmt: skip
        last = node.last.get(kind, {})
        found |= {name: last[name] for name in names if last.get(name) not in (None, {})}
    edges = [(pair, edge) for pair, edge in run.story.edges.items() if node.node in pair]
    slow = max(edges, key=lambda item: item[1].mean_s or 0.0, default=None)
    if slow is not None and slow[1].mean_s:
        peer = sum(slow[0]) - node.node
        found["slowest peer"] = f"{peer}: {digits(1000 * slow[1].mean_s)} ms from offer to reply"
    lines = [
        (plain_markdown(name), plain_markdown(_figure(value))) for name, value in found.items()
    ]
    for event in sorted(about, key=lambda event: event.t)[-20:]:
        who = "" if event.node == node.node else f" (told by {event.node})" * (event.node >= 0)
        whom = "" if event.peer in (None, node.node) else f" {event.peer}"
        words = f"{event.what}{whom}{who}: {event.text}"
        lines.append((f"at {duration(event.t)}", plain_markdown(words)))
    return lines


def _figure(value: Any) -> str:
    return digits(value) if isinstance(value, float) else str(value)
