"""Lines, and the empty figure that every plot starts from. Plain values in, a plotly figure out.

plotly is imported when the first plot is made, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis, drawable, spread_out
from swarmsgd.observe.colours import INK, MUTED, looks, pale, readable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
LETTER_PX = 7.3
LINE_PX = 16
MOST_MARKED = 12  # points are marked if no line has more of them
TOP_PX, BOTTOM_PX, SIDE_PX = 64, 54, 66

Values = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: y against x, with a band from `low` to `high` if both are given.

    `group` gives the colour (an algorithm's name, or any word). `strong` draws it on top, thicker.
    A `reference` (theory, a baseline's value) is a thin dashed dark line, or one in `colour`.
    `colour` and `dash` override what the group gives; `note` is added to the tooltip. `ended`
    marks the last point with a cross and says why the line ends there.
    """

    label: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    group: str = ""
    strong: bool = False
    reference: bool = False
    colour: str | None = None
    dash: str | None = None
    note: str = ""
    ended: str = ""


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    named: bool = True,
    height: int = 400,
) -> Figure:
    """Lines with their names at their right ends, or without (`named`: a page's legend has them).

    Points that are null, not finite, or not positive on a logarithmic axis are left out. Raises
    ConfigError if there is nothing to draw.
    """
    drawn = [s for s in styled(series) if _points(s, x, y)]
    if not drawn:
        raise ConfigError(
            f"nothing to draw in {title!r}: no series of {len(series)} has a point that fits its "
            "axes; leave the plot out or give it values"
        )
    marked = all(s.reference or len(s.x) <= MOST_MARKED for s in drawn)
    x_span = x.span((v for s in drawn for v, _ in _points(s, x, y)), pad=0.02 if marked else 0.0)
    y_span = y.span((v for s in drawn for v in _reach(s, x, y)), pad=0.05)
    right = SIDE_PX // 3
    if named:
        right = 24 + round(LETTER_PX * max(len(s.label) for s in drawn))
    figure = blank(title, y.title, height, right)
    for one in sorted(drawn, key=lambda s: (s.reference, s.strong)):
        _draw(figure, one, x, y, marked)
    if named:
        _name(figure, drawn, x, y, x_span[1], y_span, height)
    figure.update_layout(
        xaxis=x.layout(x_span) | {"showgrid": False},
        yaxis=y.layout(y_span) | {"title": None},
    )
    return figure


def any_point(series: Sequence[Series], x: Axis, y: Axis) -> bool:
    """Whether there is anything to draw."""
    return any(_points(one, x, y) for one in series)


def styled(series: Sequence[Series]) -> list[Series]:
    """The series, each with a colour and a dash."""
    groups = [s.group or s.label for s in series if not s.reference]
    found = iter(looks(groups))
    result: list[Series] = []
    for one in series:
        colour, dash = (INK, "dash") if one.reference else next(found)
        own = {"colour": one.colour or colour, "dash": one.dash or dash}
        result.append(Series(**{**vars(one), **own}))
    return result


def _points(series: Series, x: Axis, y: Axis) -> list[tuple[float, float]]:
    return [
        (a, b)
        for a, b in zip(series.x, series.y, strict=True)
        if a is not None and b is not None and drawable(a, x.log) and drawable(b, y.log)
    ]


def _reach(series: Series, x: Axis, y: Axis) -> list[float | None]:
    values: list[float | None] = [b for _, b in _points(series, x, y)]
    return [*values, *(series.low or ()), *(series.high or ())]


def _draw(figure: Figure, series: Series, x: Axis, y: Axis, marked: bool) -> None:
    shared = {"legendgroup": series.label, "name": series.label, "showlegend": False}
    colour = series.colour or INK
    if series.low is not None and series.high is not None and not series.reference:
        figure.add_scatter(**_band(series, y), fillcolor=pale(colour, 0.16), **shared)
    points = _points(series, x, y)
    dots = len(points) == 1 or (marked and not series.reference)
    width = 1.3 if series.reference else 3.2 if series.strong else 2
    note = f"<br>{series.note}" if series.note else ""
    figure.add_scatter(
        x=[a for a, _ in points],
        y=[b for _, b in points],
        mode="lines+markers" if dots else "lines",
        line={"color": colour, "dash": series.dash, "width": width},
        marker={"color": colour, "size": 6},
        hovertemplate=f"<b>%{{fullData.name}}</b><br>{y.hover('y')}<br>at {x.hover('x')}{note}"
        "<extra></extra>",
        **shared,
    )
    if series.ended:
        figure.add_scatter(
            x=[points[-1][0]],
            y=[points[-1][1]],
            mode="markers",
            marker={"color": colour, "size": 11, "symbol": "x-thin", "line_width": 3}
            | {"line_color": colour},
            hovertemplate=f"<b>%{{fullData.name}}</b><br>{series.ended}<extra></extra>",
            **shared,
        )


def _band(series: Series, y: Axis) -> dict[str, Any]:
    """The outline of a band, as one filled trace."""
    rows = [
        (a, lo, hi)
        for a, lo, hi in zip(series.x, series.low or (), series.high or (), strict=True)
        if drawable(lo, y.log) and drawable(hi, y.log)
    ]
    return {
        "x": [a for a, _, _ in rows] + [a for a, _, _ in reversed(rows)],
        "y": [lo for _, lo, _ in rows] + [hi for _, _, hi in reversed(rows)],
        "fill": "toself",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _name(
    figure: Figure,
    drawn: Sequence[Series],
    x: Axis,
    y: Axis,
    right: float,
    y_span: tuple[float, float],
    height: int,
) -> None:
    """Each series' name right of the plot, at the height of its end, none on top of another,
    tied to it by a hairline."""
    ends = [_points(series, x, y)[-1] for series in drawn]
    gap = (y_span[1] - y_span[0]) * LINE_PX / (height - TOP_PX - BOTTOM_PX)
    places = spread_out([y.place(b) for _, b in ends], gap, *y_span)
    for series, end, place in zip(drawn, ends, places, strict=True):
        name = f"<b>{series.label}</b>" if series.strong else series.label
        figure.add_scatter(
            x=[end[0], x.value(right)],
            y=[end[1], y.value(place)],
            mode="lines+text",
            line={"color": pale(series.colour or INK, 0.4), "width": 0.8},
            text=["", f"\u2002{name}"],
            textposition="middle right",
            textfont={"color": readable(series.colour or INK), "size": 13},
            cliponaxis=False,
            hoverinfo="skip",
            legendgroup=series.label,
            showlegend=False,
        )


def blank(title: str, subtitle: str, height: int, right: int) -> Figure:
    """An empty figure with everything but axes and traces."""
    import plotly.graph_objects as go

    below = f"<br><span style='font-size:13px;color:{MUTED}'>{subtitle}</span>" if subtitle else ""
    return go.Figure(
        layout={
            "template": "none",
            "title": {
                "text": f"<b>{title}</b>{below}",
                "x": 0,
                "xanchor": "left",
                "xref": "container",
                "y": 1 - 14 / height,
                "yanchor": "top",
                "pad": {"l": 6},
                "font": {"size": 16},
            },
            "font": {"family": FONT, "size": 13, "color": INK},
            "height": height,
            "margin": {"l": SIDE_PX, "r": right, "t": TOP_PX, "b": BOTTOM_PX},
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "white", "bordercolor": MUTED, "font": {"color": INK}},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "showlegend": False,
        }
    )
