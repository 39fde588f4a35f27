"""The graph of a run as its exchanges draw it: edges by traffic, nodes by speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swarmsgd.observe.colours import pale
from swarmsgd.observe.console import bytes_text
from swarmsgd.observe.finals import digits
from swarmsgd.observe.lines import blank
from swarmsgd.observe.story import EdgeStory, Story

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_DRAWN = 1500
"""Edges; of more the ones with the most traffic are drawn."""
MOST_HOVERED = 400
MOST_SPRUNG = 150
"""Nodes; more of them lie on a circle."""
LEVELS = 5
"""Widths of edges."""
_SPEEDS = ((0.0, "#B3261E"), (0.5, "#E8A33D"), (1.0, "#1F7A5C"))
"""Slow, middling, fast."""
_COLOUR = "#3B6EA8"

_Places = Mapping[int, tuple[float, float]]

ALIKE = 1.3
"""Nodes whose speeds differ by no more are alike."""


def network_figure(story: Story, speeds: Mapping[int, float]) -> Figure | None:
    """Nodes where their graph puts them, None if there were no exchanges. `speeds` are local steps
    a second, or another measure of who is slow; nodes without one are grey.
    """
    if not story.edges:
        return None
    drawn = sorted(story.edges.items(), key=lambda item: -item[1].bytes)[:MOST_DRAWN]
    nodes = sorted({*story.nodes, *(node for pair, _ in drawn for node in pair)})
    places = layout(nodes, [pair for pair, _ in drawn], len(story.edges))
    left = len(story.edges) - len(drawn)
    what = "lines: the thicker, the more bytes; red: slow nodes"
    below = f"{what}; the {len(drawn):,} busiest of {len(story.edges):,} pairs" if left else what
    figure = blank("Who exchanged with whom", below, 460, 24)
    faint = min(1.0, 200 / len(drawn))
    for width, pairs in _levels(drawn):
        _lines(figure, pairs, places, width, faint)
    _middles(figure, drawn[:MOST_HOVERED], places)
    _dots(figure, story, nodes, places, speeds)
    hidden = {"visible": False, "fixedrange": False}
    reach = [-1.16, 1.16]
    figure.update_layout(
        xaxis={**hidden, "range": reach},
        yaxis={**hidden, "range": reach, "scaleanchor": "x"},
        margin={"l": 12, "r": 12, "b": 12},
    )
    return figure


def layout(nodes: Sequence[int], pairs: Sequence[tuple[int, int]], edges: int) -> _Places:
    """Where to draw each node, in [-1, 1]: a circle for few, many or all tied to all, else by
    springs.
    """
    n = len(nodes)
    dense = edges > 0.6 * n * (n - 1) / 2
    if n <= 8 or n > MOST_SPRUNG or dense or edges <= n:
        angles = [math.pi / 2 - 2 * math.pi * i / n for i in range(n)]
        return {v: (math.cos(a), math.sin(a)) for v, a in zip(nodes, angles, strict=True)}
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(pairs)
    found = networkx.spring_layout(graph, seed=0, iterations=150)
    reach = max(float(np.abs(place).max()) for place in found.values()) or 1.0
    return {v: (float(p[0]) / reach, float(p[1]) / reach) for v, p in found.items()}


def _levels(
    drawn: Sequence[tuple[tuple[int, int], EdgeStory]],
) -> list[tuple[float, list[tuple[int, int]]]]:
    """Pairs by width in pixels, thin ones first."""
    most = max(edge.bytes for _, edge in drawn) or 1.0
    thin = 0.5 if len(drawn) > 400 else 1.0
    found: dict[int, list[tuple[int, int]]] = {}
    for pair, edge in drawn:
        found.setdefault(min(LEVELS - 1, int(LEVELS * edge.bytes / most)), []).append(pair)
    return [(thin * (0.8 + 1.3 * level), found[level]) for level in sorted(found)]


def _lines(
    figure: Figure, pairs: list[tuple[int, int]], places: _Places, width: float, faint: float
) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    for i, j in pairs:
        x += [places[i][0], places[j][0], None]
        y += [places[i][1], places[j][1], None]
    line = {"color": pale(_COLOUR, round(faint * min(0.9, 0.25 + 0.12 * width), 3)), "width": width}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _middles(
    figure: Figure, drawn: Sequence[tuple[tuple[int, int], EdgeStory]], places: _Places
) -> None:
    """Points in the middles of edges, unseen, for their tooltips."""
    texts = [_edge_text(pair, edge) for pair, edge in drawn]
    ends = [(places[i], places[j]) for (i, j), _ in drawn]
    figure.add_scatter(
        x=[(a[0] + b[0]) / 2 for a, b in ends],
        y=[(a[1] + b[1]) / 2 for a, b in ends],
        mode="markers",
        marker={"size": 14, "opacity": 0},
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _edge_text(pair: tuple[int, int], edge: EdgeStory) -> str:
    text = f"<b>{pair[0]} – {pair[1]}</b><br>{edge.mixes:,.0f} exchanges, {bytes_text(edge.bytes)}"
    if edge.mean_s is None:
        return text
    mean, longest = (f"{digits(1000 * s)} ms" for s in (edge.mean_s, edge.longest_s))
    return f"{text}<br>offer to reply {mean}, longest {longest}"


def _dots(
    figure: Figure,
    story: Story,
    nodes: Sequence[int],
    places: _Places,
    speeds: Mapping[int, float],
) -> None:
    size = 22 if len(nodes) <= 40 else 12 if len(nodes) <= 150 else 6
    known = sorted(speeds.values())
    low, high = (known[0], known[-1]) if known else (0.0, 1.0)
    if high <= ALIKE * low:  # none is slow
        low = 0.0
    marker: dict[str, Any] = {
        "size": size,
        "color": [_mix(speeds[v], low, high) if v in speeds else "#9AA4B2" for v in nodes],
        "line": {"color": "white", "width": 1.5 if size > 10 else 0.5},
    }
    figure.add_scatter(
        x=[places[v][0] for v in nodes],
        y=[places[v][1] for v in nodes],
        mode="markers+text" if size == 22 else "markers",
        marker=marker,
        text=[str(v) for v in nodes],
        textfont={"color": "#FFFFFF", "size": 11},
        customdata=[[v] for v in nodes],
        hovertext=[_node_text(story, v, speeds.get(v)) for v in nodes],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        name="nodes",
    )


def _mix(speed: float, low: float, high: float) -> str:
    """The colour of a speed."""
    share = (speed - low) / (high - low) if high > low else 1.0
    at = 2 * min(1.0, max(0.0, share))
    first, second = (_SPEEDS[0], _SPEEDS[1]) if at < 1 else (_SPEEDS[1], _SPEEDS[2])
    part = at % 1 if at < 2 else 1.0
    parts = [
        round((1 - part) * int(first[1][k : k + 2], 16) + part * int(second[1][k : k + 2], 16))
        for k in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02X}" for value in parts)


def _node_text(story: Story, number: int, speed: float | None) -> str:
    node = story.nodes.get(number)
    text = f"<b>node {number}</b>"
    if node is None:
        return f"{text}<br>no records"
    lines = [f"{node.state}, {node.exchanges:,} exchanges"] if node.exchanges else [node.state]
    if speed is not None:
        lines.append(f"{digits(speed)} steps/s")
    return "<br>".join([text, *lines])
