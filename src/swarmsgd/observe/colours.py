"""One colour for each algorithm, the same on every page, and the greys around them.

The eleven stay apart for full sight and for the three kinds of colour blindness; a test holds
them to it. A variant ("swarm, 8 bits") keeps its algorithm's colour and differs by its dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ALGORITHM_COLOURS: Mapping[str, str] = {
    "swarm": "#D55E00",
    "sgd": "#000000",
    "allreduce": "#0072B2",
    "local-sgd": "#4EA9FF",
    "d-psgd": "#009F81",
    "ad-psgd": "#FA8C00",
    "sgp": "#C382C4",
    "osgp": "#75104F",
    "a2cid2": "#2E2A9B",
    "diloco": "#9BB57A",
    "noloco": "#6E5A4B",
}

INK = "#1B1F24"
MUTED = "#5A6370"
GRID = "#E6E9ED"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

_READABLE = 4.5  # contrast on white that WCAG asks of text
_OTHERS = ("#0072B2", "#D55E00", "#009F81", "#C382C4", "#75104F", "#4EA9FF", "#6E5A4B")


def looks(groups: Sequence[str]) -> list[tuple[str, str]]:
    """(colour, dash) of each of a plot's series, from the algorithm (or other group) of each.

    The first series of a group is solid, its variants are dashed. Unknown groups take colours in
    order of appearance.
    """
    unknown = [group for group in dict.fromkeys(groups) if group not in ALGORITHM_COLOURS]
    seen: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    for group in groups:
        dash = DASHES[seen.get(group, 0) % len(DASHES)]
        seen[group] = seen.get(group, 0) + 1
        if group in ALGORITHM_COLOURS:
            found.append((ALGORITHM_COLOURS[group], dash))
        else:
            found.append((_OTHERS[unknown.index(group) % len(_OTHERS)], dash))
    return found


def readable(colour: str) -> str:
    """The colour, darkened until text in it can be read on white."""
    rgb = _rgb(colour)
    while _contrast_on_white(rgb) < _READABLE:
        rgb = tuple(0.94 * part for part in rgb)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


def pale(colour: str, opacity: float) -> str:
    """The colour as CSS `rgba(...)` of that opacity."""
    red, green, blue = (round(255 * part) for part in _rgb(colour))
    return f"rgba({red},{green},{blue},{opacity:g})"


def linear(rgb: Sequence[float]) -> list[float]:
    """sRGB in 0..1 to linear light."""
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))


def _contrast_on_white(rgb: Sequence[float]) -> float:
    red, green, blue = linear(rgb)
    return 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
