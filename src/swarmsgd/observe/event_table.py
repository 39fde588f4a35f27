"""What happened in a run, and why, as a table of a page."""

from __future__ import annotations

from collections.abc import Sequence

from swarmsgd.observe.finals import NONE, duration
from swarmsgd.observe.page import Table
from swarmsgd.observe.safe import plain_markdown
from swarmsgd.observe.sources import Run
from swarmsgd.observe.story import Happening

MOST_EVENTS = 80
TOGETHER_S = 3.0
"""What several nodes tell within such a time is one thing."""
SAME_S = 10.0
"""And so long before or after another event one is its echo."""
_BAD = ("lost", "died", "killed", "failed", "terminated", "distrusted", "distrusts", "refused")
_ECHOES = {"gone": ("lost", "left", "died", "killed"), "back": ("joined",)}
"""What says no more than another event of the same node at about the same time."""


def events_table(run: Run) -> Table | None:
    """What happened, with why; of many the bad ones."""
    story = run.story
    found = _without_echoes(sorted([*story.events, *_ends(run)], key=lambda event: event.t))
    if not found:
        return None
    grouped = _together(found)
    bad = [events for events in grouped if events[0].what in _BAD]
    shown = grouped if len(grouped) <= MOST_EVENTS else (bad or grouped)[:MOST_EVENTS]
    rows = [
        [
            duration(events[0].t),
            _tellers(events),
            plain_markdown(events[0].what),
            NONE if _about(events[0]) is None else str(_about(events[0])),
            _whys(events),
        ]
        for events in shown
    ]
    counts = ", ".join(
        f"{plain_markdown(what)} {count:,}" for what, count in story.event_counts.most_common(12)
    )
    return Table(
        title="What happened",
        columns=["time", "told by node", "what", "about node", "why"],
        rows=rows,
        note=f"In all: {counts}." if counts else "",
    )


def _without_echoes(found: Sequence[Happening]) -> list[Happening]:
    times: dict[tuple[str, int | None], list[float]] = {}
    for event in found:
        times.setdefault((event.what, event.peer), []).append(event.t)
    return [
        event
        for event in found
        if not any(
            abs(event.t - t) <= SAME_S
            for what in _ECHOES.get(event.what, ())
            for t in times.get((what, event.peer), ())
        )
    ]


def _about(event: Happening) -> int | None:
    """Whom it is about; who took over another's model is itself what is told of."""
    return event.node if event.what == "healed" else event.peer


def _why(event: Happening) -> str:
    text = event.text
    return f"listens at {text}" if event.what == "joined" and text.startswith("tcp://") else text


def _together(found: Sequence[Happening]) -> list[list[Happening]]:
    """What several nodes tell of one node at about one time is one thing that happened."""
    groups: list[list[Happening]] = []
    last: dict[tuple[str, int | None], list[Happening]] = {}
    for event in found:
        about = _about(event)
        group = last.get((event.what, about))
        if group is None or about is None or event.t > group[0].t + TOGETHER_S:
            last[event.what, about] = group = []
            groups.append(group)
        group.append(event)
    return groups


def _tellers(events: Sequence[Happening]) -> str:
    nodes = sorted({event.node for event in events if event.node >= 0})
    if not nodes:
        return NONE
    return ", ".join(map(str, nodes[:8])) + f", ... ({len(nodes):,})" * (len(nodes) > 8)


def _whys(events: Sequence[Happening]) -> str:
    """Each text once, as far as a person reads."""
    texts = list(dict.fromkeys(plain_markdown(_why(event)) for event in events))
    return "; ".join(texts[:2]) + f"; {len(texts) - 2:,} more" * (len(texts) > 2)


def _ends(run: Run) -> list[Happening]:
    """Why processes failed, with their last words, where no record of the command tells."""
    details = run.summary.get("nodes_detail")
    told = {event.peer for event in run.story.events if event.what == "died"}
    found: list[Happening] = []
    for one in details if isinstance(details, list) else ():
        if isinstance(one, dict) and one.get("failed") and one.get("node") not in told:
            node = one["node"] if type(one.get("node")) is int else -1
            text = f"{one.get('how')}; last words: {one.get('last_words')}"
            last = run.story.nodes[node].last_t if node in run.story.nodes else run.story.end_s
            found.append(Happening(last, -1, "died", node, text))
    return found
