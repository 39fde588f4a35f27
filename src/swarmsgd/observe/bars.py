"""Horizontal bars of two pieces: where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.colours import pale
from swarmsgd.observe.lines import BOTTOM_PX, TOP_PX, blank

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of two pieces, the second pale; `text` stands behind it."""

    label: str
    first: float
    second: float
    text: str
    colour: str


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    subtitle: str,
    x_title: str,
    pieces: tuple[str, str],
    room: float = 1.3,
) -> Figure:
    """Horizontal bars, the first on top; `pieces` names the two pieces in the tooltip. The axis
    goes to `room` times the longest, so that there is some for the texts.
    """
    height = TOP_PX + BOTTOM_PX + 30 * max(len(rows), 2)
    figure = blank(title, subtitle, height, 24)
    far = max((row.first + row.second for row in rows), default=0.0) or 1.0
    for row in rows:
        shared = {"y": [row.label], "orientation": "h", "legendgroup": row.label, "width": 0.62}
        for value, colour, name in (
            (row.first, row.colour, pieces[0]),
            (row.second, pale(row.colour, 0.35), pieces[1]),
        ):
            hover = f"<b>{row.label}</b><br>{name} %{{x:,.4~r}}<extra></extra>"
            marker = {"color": colour, "line": {"color": row.colour, "width": 1}}
            figure.add_bar(
                x=[value], marker=marker, hovertemplate=hover, showlegend=False, **shared
            )
        figure.add_scatter(
            x=[row.first + row.second],
            y=[row.label],
            mode="text",
            text=["  " + row.text],
            textposition="middle right",
            hoverinfo="skip",
            legendgroup=row.label,
            showlegend=False,
            cliponaxis=False,
        )
    words = Axis(title=x_title, limits=(0, room * far)).layout((0, room * far))
    figure.update_layout(
        barmode="stack",
        xaxis=words,
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
    )
    return figure
