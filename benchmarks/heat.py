"""Heat maps in small multiples: one a setting, with a common colour scale and the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swarmsgd.errors import ConfigError
from swarmsgd.observe.lines import FONT, INK, blank

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Grid = Sequence[Sequence[float | None]]

PAGE_PX = 1280
CELL_PX = 34
NARROWEST_CELL_PX = 46
WIDEST_CELL = 0.07  # of the figure
PANEL_TOP_PX, PANEL_BOTTOM_PX = 34, 58
EMPTY = "#E3E6EA"
SEQUENTIAL = [
    [i / 4, c] for i, c in enumerate(("#FFFFFF", "#E0ECF7", "#BDD7EC", "#8FC1E1", "#5BA3D0"))
]


def heat_map(
    panels: Sequence[Grid],
    *,
    title: str,
    subtitle: str = "",
    panel_titles: Sequence[str] = ("",),
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    x_title: str,
    y_title: str,
    number: str = ".3~g",
) -> Figure:
    """One heat map per grid, all in one colour scale; grid[y][x], null cells stay grey.

    `number` is the d3 format of the number in each cell (".1%", ".2f"). Raises ConfigError if a
    grid does not fit the labels or none holds a value.
    """
    _check(panels, panel_titles, x_labels, y_labels, title)
    beside = max(1, min(len(panels), PAGE_PX // (NARROWEST_CELL_PX * len(x_labels) + 30)))
    below = -(-len(panels) // beside)
    inner = CELL_PX * len(y_labels)
    height = 60 + below * (PANEL_TOP_PX + inner + PANEL_BOTTOM_PX)
    figure = blank(title, subtitle, height, 20)
    figure.update_layout(margin={"t": 60, "b": 0, "l": 20, "r": 20}, plot_bgcolor=EMPTY)
    figure.update_layout(meta={"min_width": beside * NARROWEST_CELL_PX * len(x_labels) + 150})
    low, high = _limits(panels)
    for place, (grid, name) in enumerate(zip(panels, panel_titles, strict=True)):
        _draw(figure, grid, place, x_labels, y_labels, number)
        row, column = divmod(place, beside)
        _axes(
            figure,
            place,
            row,
            column,
            (beside, below),
            len(x_labels),
            inner,
            (x_title, y_title, name),
        )
    figure.update_layout(
        coloraxis={
            "cmin": low,
            "cmax": high,
            "colorscale": SEQUENTIAL,
            "showscale": False,
        }
    )
    return figure


def _check(
    panels: Sequence[Grid],
    titles: Sequence[str],
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    title: str,
) -> None:
    if len(panels) != len(titles):
        raise ConfigError(
            f"{title!r}: {len(panels)} heat maps but {len(titles)} panel titles; give one each"
        )
    for grid in panels:
        shape = (len(grid), {len(row) for row in grid})
        if shape != (len(y_labels), {len(x_labels)}):
            raise ConfigError(
                f"{title!r}: a heat map of {len(grid)} rows of {sorted(shape[1])} values does not "
                f"fit {len(y_labels)} y labels and {len(x_labels)} x labels; give grid[y][x]"
            )
    if np.isnan(_array(panels)).all():
        raise ConfigError(f"{title!r}: no cell has a value; leave the heat map out")


def _array(panels: Sequence[Grid]) -> np.ndarray:
    return np.array(panels, dtype=float)  # null becomes NaN


def _limits(panels: Sequence[Grid]) -> tuple[float, float]:
    values = _array(panels)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high > low else (low - 1, high + 1)


def _draw(
    figure: Figure,
    grid: Grid,
    place: int,
    x_labels: Sequence[str],
    y_labels: Sequence[str],
    number: str,
) -> None:
    values = np.array(grid, dtype=float)
    figure.add_heatmap(
        z=[[None if np.isnan(v) else float(v) for v in row] for row in values],
        x=list(x_labels),
        y=list(y_labels),
        coloraxis="coloraxis",
        texttemplate=f"%{{z:{number}}}",
        textfont={"size": 13, "color": INK},
        xgap=1.5,
        ygap=1.5,
        hoverongaps=False,
        hovertemplate=f"%{{y}}, %{{x}}<br><b>%{{z:{number}}}</b><extra></extra>",
        xaxis=f"x{place + 1}",
        yaxis=f"y{place + 1}",
    )


def _axes(
    figure: Figure,
    place: int,
    row: int,
    column: int,
    shape: tuple[int, int],
    columns: int,
    inner: int,
    titles: tuple[str, str, str],
) -> None:
    """Where the panel lies: columns share the width, rows their names."""
    beside, below = shape
    x_title, y_title, name = titles
    left, gap = 0.07, 0.025
    width = min((1 - left - gap * (beside - 1)) / beside, WIDEST_CELL * columns)
    x0 = left + column * (width + gap)
    total = below * (PANEL_TOP_PX + inner + PANEL_BOTTOM_PX)
    y1 = 1 - (row * (PANEL_TOP_PX + inner + PANEL_BOTTOM_PX) + PANEL_TOP_PX) / total
    n = place + 1
    plain: dict[str, Any] = {"type": "category", "ticks": "", "showgrid": False, "zeroline": False}
    across = (
        plain
        | {"domain": [x0, x0 + width], "anchor": f"y{n}"}
        | {"title": {"text": x_title, "font": {"size": 13}, "standoff": 8}}
    )
    up = plain | {
        "domain": [y1 - inner / total, y1],
        "anchor": f"x{n}",
        "title": {"text": y_title if column == 0 else "", "font": {"size": 13}, "standoff": 8},
        "ticksuffix": " ",
        "showticklabels": column == 0,
    }
    suffix = "" if n == 1 else str(n)
    figure.update_layout({f"xaxis{suffix}": across, f"yaxis{suffix}": up})
    if name:
        figure.add_annotation(
            text=f"<b>{name}</b>",
            x=x0 + width / 2,
            y=y1,
            xref="paper",
            yref="paper",
            yanchor="bottom",
            showarrow=False,
            font={"size": 14, "family": FONT},
        )
