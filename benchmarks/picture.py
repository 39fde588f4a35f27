"""Draw the picture of docs/simulator.md, `docs/steps.svg`, from the record of `sim_steps.py`.

    python benchmarks/picture.py

Bars: virtual time of a local step of 64 nodes, on two links, with equal nodes and with one that is
four times slower. A bar with an arrow at its end is cut: it is longer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import HERE, RECORDS

PICTURE = HERE.parent / "docs" / "steps.svg"
NODES = "64"
METHODS = {
    "SwarmSGD, 8 bits": "swarm, 8 bits",
    "AD-PSGD": "AD-PSGD",
    "overlap SGP": "OSGP",
    "Local SGD": "Local SGD",
    "all-reduce": "all-reduce",
    "SGP": "SGP",
    "D-PSGD": "D-PSGD",
}
"""Name in the picture -> in the record."""
LINKS = ("1 Gbit/s", "100 Mbit/s")
STRAGGLER = "{}, one 4x straggler"
COMPUTE_MS, MOST_MS = 10.0, 90.0
LEFT, PANEL, GAP, TOP, ROW, BAR = 160, 330, 26, 74, 38, 13
COLOURS = {True: ("#f4b58a", "#d95f02"), False: ("#c3ccd6", "#6b7785")}
"""Of equal nodes and with a slow one; for the swarm, and for what it is compared with."""


def picture(figures: dict[str, Any]) -> str:
    """The SVG, from the figures of the record."""
    width = LEFT + len(LINKS) * PANEL + (len(LINKS) - 1) * GAP + 24
    bottom = TOP + ROW * len(METHODS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 44}" '
        f'viewBox="0 0 {width} {bottom + 44}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{bottom + 44}" fill="#ffffff"/>',
        _text(LEFT, 22, f"Time of a local step, {NODES} nodes (simulated)", weight="bold"),
        *_key(LEFT, 42),
    ]
    for row, name in enumerate(METHODS):
        y = TOP + ROW * row + ROW / 2 + 1
        parts.append(_text(LEFT - 10, y, name, anchor="end", weight="bold" if not row else ""))
    for at, link in enumerate(LINKS):
        parts += _panel(LEFT + at * (PANEL + GAP), bottom, link, figures)
    return "\n".join([*parts, "</svg>", ""])


def _key(x: float, y: float) -> list[str]:
    parts: list[str] = []
    for slow, words in enumerate(("all nodes equal", "one of them 4 times slower")):
        for swarm in (True, False):
            fill = COLOURS[swarm][slow]
            parts.append(_bar(x + 13 * (not swarm), y - 10, 11, fill))
        parts.append(_text(x + 32, y + 1, words))
        x += 160
    return parts


def _panel(x: float, bottom: float, link: str, figures: dict[str, Any]) -> list[str]:
    scale = PANEL / MOST_MS
    parts = [_text(x + PANEL, TOP - 8, link, anchor="end", weight="bold")]
    for ms in range(0, int(MOST_MS) + 1, 30):
        parts.append(_line(x + ms * scale, bottom, "#e3e6ea"))
        parts.append(_text(x + ms * scale, bottom + 17, f"{ms}", anchor="middle"))
    parts.append(_line(x + COMPUTE_MS * scale, bottom, "#222222", dash="3 3"))
    parts.append(_text(x + COMPUTE_MS * scale, bottom + 33, "computing", anchor="middle"))
    parts.append(_text(x + PANEL, bottom + 33, "ms", anchor="end"))
    for row, label in enumerate(METHODS.values()):
        for slow, world in enumerate((link, STRAGGLER.format(link))):
            ms = figures[world][label][NODES]["step_ms"]
            y = TOP + ROW * row + 4 + slow * (BAR + 1)
            end = x + min(ms, MOST_MS) * scale
            number = f"{ms:.1f}" if ms <= MOST_MS else f"{ms:.0f} \u2192"
            parts.append(_bar(x, y, end - x, COLOURS[not row][slow]))
            if end + 40 < x + PANEL:
                parts.append(_text(end + 4, y + 11, number, size=11))
            else:
                fill = "#ffffff" if slow else "#222222"
                parts.append(_text(end - 5, y + 11, number, anchor="end", size=11, fill=fill))
    return parts


def _bar(x: float, y: float, width: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" fill="{fill}"/>'


def _line(x: float, bottom: float, stroke: str, dash: str = "none") -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{stroke}" '
        f'stroke-dasharray="{dash}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    weight: str = "",
    size: int = 13,
    fill: str = "#222222",
) -> str:
    style = f' font-weight="{weight}"' if weight else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{fill}"{style}>{text}</text>'
    )


def main() -> None:
    record: Path = RECORDS / "sim-steps" / "figures.json"
    PICTURE.write_text(picture(json.loads(record.read_text())))


if __name__ == "__main__":
    main()
