"""Axes of the plots: what they are called, how their numbers are written, how far they reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swarmsgd.observe.colours import GRID, MUTED

UNITS = {
    "plain": {"hover": ",.4~g", "exponentformat": "power", "separatethousands": True},
    "percent": {"hover": ".2%", "tickformat": ".0~%"},
    "bytes": {"hover": ".4~s", "exponentformat": "SI", "ticksuffix": "B", "hover_after": "B"},
    "seconds": {"hover": ",.4~r", "tickformat": ",~g", "hover_after": " s"},
}
"""How each unit is written: d3 formats for the tooltip and at the ticks."""


_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 6, 8), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """`title` with its unit, as in "virtual time (s)"; `unit` is a key of `UNITS`.

    `limits` are the ends in the axis' own unit; None takes them from the data. `ticks` are the
    values that are marked, if not the usual ones.
    """

    title: str
    log: bool = False
    unit: str = "plain"
    limits: tuple[float, float] | None = None
    ticks: Sequence[float] = ()

    def hover(self, letter: str) -> str:
        """The piece of a tooltip that shows this axis' value; `letter` is x or y."""
        style = UNITS[self.unit]
        return f"%{{{letter}:{style['hover']}}}{style.get('hover_after', '')}"

    def place(self, value: float) -> float:
        """Where a value lies on the axis, up to scale: its logarithm on a logarithmic one."""
        return math.log10(value) if self.log else value

    def value(self, place: float) -> float:
        """The inverse of `place`."""
        return 10**place if self.log else place

    def span(self, values: Iterable[float | None], pad: float = 0.0) -> tuple[float, float]:
        """Both ends as places: `limits`, or what the values reach, widened by `pad` of it."""
        if self.limits is not None:
            low, high = (self.place(end) for end in self.limits)
            return low, high
        places = [self.place(v) for v in values if v is not None and drawable(v, self.log)]
        if not places:
            return 0.0, 1.0
        low, high = min(places), max(places)
        width = (high - low) or (1.0 if self.log else abs(high) or 1.0)
        bottom = low - pad * width
        return (0.0 if low >= 0 > bottom and not self.log else bottom), high + pad * width

    def layout(self, span: tuple[float, float]) -> dict[str, Any]:
        """Plotly's words for it; what lies at the very end of the span is still inside."""
        edge = 1e-6 * (span[1] - span[0])
        style = {k: v for k, v in UNITS[self.unit].items() if not k.startswith("hover")}
        words: dict[str, Any] = {
            "type": "log" if self.log else "linear",
            "range": [span[0] - edge, span[1] + edge],
            "gridcolor": GRID,
            "linecolor": MUTED,
            "title": {"text": self.title, "font": {"size": 13}, "standoff": 8},
            "zeroline": False,
            "ticks": "outside",
            "tickcolor": MUTED,
            "ticklen": 4,
            "nticks": 8,
            **style,
        }
        if self.unit == "plain" and not self.log and abs(span[1]) < 1e6:
            words["tickformat"] = ",.6~g"  # 10,000 and not 1 x 10^4
        marks = self.ticks or (_log_ticks(span) if self.log else ())
        if marks:
            texts = [tick(value, self.unit) for value in marks]
            words |= {"tickmode": "array", "tickvals": list(marks), "ticktext": texts}
        return words


def _log_ticks(span: tuple[float, float]) -> list[float]:
    """Decades, or the coarsest division of them that marks four values; none on a short axis."""
    for steps in _STEPS:
        powers = range(math.floor(span[0]), math.ceil(span[1]) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in values if span[0] <= math.log10(value) <= span[1]]
        if len(inside) >= 4:
            return inside[:: math.ceil(len(inside) / 8)]
    return []


def tick(value: float, unit: str) -> str:
    """A value as a person writes it at an axis: 500 kB, 0.02, 10^-4 far from 1."""
    if unit == "percent":
        return f"{100 * value:g} %"
    if unit == "bytes":
        step = min(5, max(0, math.floor(math.log10(value) / 3 + 1e-9))) if value > 0 else 0
        return f"{value / 1000**step:g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB')[step]}"
    power = math.floor(math.log10(abs(value)) + 1e-9) if value else 0
    if -4 < power < 5:
        return f"{value:,.10g}"
    factor = value / 10.0**power
    head = "" if math.isclose(factor, 1) else f"{factor:.3g}·"
    return f"{head}10<sup>{power}</sup>"


def drawable(value: float | None, log: bool) -> bool:
    """Whether a point can be drawn: there, finite, and positive on a logarithmic axis."""
    return value is not None and math.isfinite(value) and (value > 0 or not log)


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed to lie `gap` apart and within [low, high], in order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = [min(max(places[i], low), high) for i in order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    if moved and moved[-1] > high:
        moved[-1] = high
        for i in range(len(moved) - 2, -1, -1):
            moved[i] = min(moved[i], moved[i + 1] - gap)
    found = [0.0] * len(places)
    for i, place in zip(order, moved, strict=True):
        found[i] = place
    return found
