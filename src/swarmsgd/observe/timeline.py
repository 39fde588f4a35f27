"""When nodes exchanged, and what happened to them: a map of the whole run, and its first exchanges
one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.colours import GRID, MUTED, pale
from swarmsgd.observe.lines import blank
from swarmsgd.observe.safe import shown
from swarmsgd.observe.story import Happening, NodeStory, Story

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MOST_ROWS = 64
COLUMNS = 120
_COLOUR = "#3B6EA8"
MARKS = {
    "lost": ("x", "#B3261E"),
    "died": ("x", "#B3261E"),
    "killed": ("x", "#B3261E"),
    "failed": ("x", "#B3261E"),
    "terminated": ("x", "#B3261E"),
    "distrusted": ("diamond", "#75104F"),
    "distrusts": ("diamond", "#75104F"),
    "left": ("triangle-left", "#5A6370"),
    "joined": ("triangle-right", "#1F7A5C"),
    "back": ("triangle-right", "#1F7A5C"),
}
"""What of an event -> symbol and colour; others are small circles."""


def timeline_figure(story: Story, unit: str) -> Figure | None:
    """A row for each node, or for several where there are many: the darker, the more exchanges it
    mixed then; marks where something happened. None if there is nothing to show.
    """
    nodes = [story.nodes[number] for number in sorted(story.nodes)]
    if not nodes or not story.end_s:
        return None
    groups = _groups(nodes)
    widest = max((node.mixing.width_s for node in nodes), default=0.0)
    width = max(story.end_s / COLUMNS, widest)
    columns = min(COLUMNS, max(1, round(story.end_s / width + 0.5)))
    counts = [_row(group, width, columns) for group in groups]
    if not any(map(any, counts)) and not story.events:
        return None
    names = [_name(group) for group in groups]
    height = 120 + max(160, min(520, 22 * len(groups)))
    several = len(groups) < len(nodes)
    subtitle = "exchanges mixed" + (" (mean of the nodes of a row)" if several else "")
    figure = blank("Exchanges and events of each node", f"{subtitle}; marks: events", height, 24)
    figure.add_heatmap(
        x=[(k + 0.5) * width for k in range(columns)],
        y=names,
        z=[[round(value, 3) for value in row] for row in counts],
        colorscale=[[0, pale(_COLOUR, 0.0)], [1, _COLOUR]],
        zmin=0,
        showscale=False,
        hovertemplate="node %{y}<br>at %{x:,.4~r} s<br>%{z:,.3~r} exchanges<extra></extra>",
    )
    row_of = {v.node: name for group, name in zip(groups, names, strict=True) for v in group}
    _mark(figure, story.events, row_of)
    figure.update_layout(
        xaxis=Axis(title=unit, unit="seconds").layout((0.0, story.end_s)) | {"showgrid": False},
        yaxis={
            "type": "category",
            "categoryorder": "array",
            "categoryarray": names[::-1],
            "title": {"text": "node", "font": {"size": 13}},
            "automargin": True,
            "gridcolor": GRID,
            "nticks": 24,
        },
    )
    return figure


def _groups(nodes: Sequence[NodeStory]) -> list[list[NodeStory]]:
    size = -(-len(nodes) // _MOST_ROWS)
    return [list(nodes[i : i + size]) for i in range(0, len(nodes), size)]


def _name(group: Sequence[NodeStory]) -> str:
    first, last = group[0].node, group[-1].node
    return str(first) if first == last else f"{first}–{last}"


def _row(group: Sequence[NodeStory], width: float, columns: int) -> list[float]:
    rows = [node.mixing.totals(width, columns) for node in group]
    return [sum(column) / len(group) for column in zip(*rows, strict=True)]


def _mark(figure: Figure, events: Sequence[Happening], row_of: dict[int, str]) -> None:
    """Events at the rows of those they are about, else of those that tell of them."""
    kinds: dict[str, list[Happening]] = {}
    for event in events:
        kinds.setdefault(event.what, []).append(event)
    for what, found in kinds.items():
        symbol, colour = MARKS.get(what, ("circle", MUTED))
        rows = [(e, row_of.get(e.node if e.node in row_of else _about(e))) for e in found]
        shown_rows = [(e, row) for e, row in rows if row is not None]
        figure.add_scatter(
            x=[e.t for e, _ in shown_rows],
            y=[row for _, row in shown_rows],
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": 9, "line": {"width": 0}},
            text=[shown(_words(e)) for e, _ in shown_rows],
            hovertemplate="at %{x:,.4~r} s: %{text}<extra></extra>",
            showlegend=False,
        )


def _about(event: Happening) -> int:
    return -1 if event.peer is None else event.peer


def _words(event: Happening) -> str:
    whom = "" if event.peer is None or event.peer == event.node else f" {event.peer}"
    who = "command" if event.node < 0 else f"node {event.node}"
    return f"{who}: {event.what}{whom}, {event.text[:80]}"


def meetings_figure(story: Story, unit: str) -> Figure | None:
    """The first exchanges, each a line from the node that began it to the one it asked; None if
    there are none, or too many nodes to tell apart.
    """
    found = sorted(story.first)
    if not found or len(story.nodes) > _MOST_ROWS:
        return None
    begin = max(0.0, found[0].t)
    end = max(m.t + m.seconds for m in found[: len(found)])
    figure = blank(
        "The first exchanges, one by one",
        "a line from the node that asked, at its offer, to the one that answered, at the mix",
        120 + max(160, min(420, 22 * len(story.nodes))),
        24,
    )
    x: list[float | None] = []
    y: list[float | None] = []
    for meeting in found:
        x += [meeting.t, meeting.t + meeting.seconds, None]
        y += [meeting.node, meeting.peer, None]
    line = {"color": pale(_COLOUR, 0.8), "width": 1.4}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    figure.add_scatter(
        x=[m.t for m in found],
        y=[m.node for m in found],
        mode="markers",
        marker={"size": 5, "color": _COLOUR},
        text=[f"{m.node} asked {m.peer}, {1000 * m.seconds:,.3g} ms" for m in found],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    top = max(max(m.node, m.peer) for m in found)
    figure.update_layout(
        xaxis=Axis(title=unit, unit="seconds").layout((begin, end)) | {"showgrid": False},
        yaxis={"range": [top + 0.6, -0.6], "title": {"text": "node", "font": {"size": 13}}}
        | {"gridcolor": GRID, "zeroline": False, "dtick": max(1, (top + 1) // 12)},
    )
    return figure
