"""The picture of the rooms of the code: boxes in layers, arrows to rooms that one may enter."""

from collections.abc import Mapping, Sequence

WIDE, HIGH, GAP_X, GAP_Y, EDGE = 132, 34, 22, 46, 16
SWEEPS = 12


def drawn(arrows: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> str:
    """The SVG: room -> rooms that its arrows lead to; what all lead to is at the bottom."""
    layers = _ordered(_layers(arrows), arrows)
    width = max(map(len, layers)) * (WIDE + GAP_X) - GAP_X + 2 * EDGE
    height = len(layers) * (HIGH + GAP_Y) - GAP_Y + 2 * EDGE
    at = {
        room: (
            (width - len(row) * (WIDE + GAP_X) + GAP_X) / 2 + k * (WIDE + GAP_X),
            EDGE + (len(layers) - 1 - level) * (HIGH + GAP_Y),
        )
        for level, row in enumerate(layers)
        for k, room in enumerate(row)
    }
    lines = [_arrow(at[room], at[other]) for room in at for other in arrows[room]]
    boxes = [_box(*at[room], labels.get(room, room)) for room in at]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#6b7785"/></marker>'
            "</defs>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _layers(arrows: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Rooms by the longest way down from them."""
    level: dict[str, int] = {}

    def of(room: str) -> int:
        if room not in level:
            level[room] = max((1 + of(other) for other in arrows[room]), default=0)
        return level[room]

    rows: list[list[str]] = [[] for _ in range(1 + max(map(of, arrows)))]
    for room in arrows:
        rows[level[room]].append(room)
    return rows


def _ordered(rows: list[list[str]], arrows: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Each row in the order of the middles of what it is joined to, so that few arrows cross."""
    joined: dict[str, list[str]] = {room: list(arrows[room]) for room in arrows}
    for room, others in arrows.items():
        for other in others:
            joined[other].append(room)
    for _ in range(SWEEPS):
        place = {r: (k + 1) / (len(row) + 1) for row in rows for k, r in enumerate(row)}
        for row in rows:
            row.sort(key=lambda r: sum(place[o] for o in joined[r]) / max(1, len(joined[r])))
            place |= {r: (k + 1) / (len(row) + 1) for k, r in enumerate(row)}
    return rows


def _box(x: float, y: float, text: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{HIGH}" rx="5" fill="#f2f4f6" '
        f'stroke="#6b7785"/><text x="{x + WIDE / 2:g}" y="{y + 22:g}" text-anchor="middle" '
        f'fill="#1b1f24">{text}</text>'
    )


def _arrow(begin: tuple[float, float], end: tuple[float, float]) -> str:
    x, y, to_x, to_y = begin[0] + WIDE / 2, begin[1] + HIGH, end[0] + WIDE / 2, end[1]
    bend = (to_y - y) / 2
    return (
        f'<path d="M{x:g} {y:g}C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}" '
        'fill="none" stroke="#a3adb8" marker-end="url(#tip)"/>'
    )
