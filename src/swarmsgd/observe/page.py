"""A page: text, tables and plots in one HTML file that needs nothing from outside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, TypeAlias

from swarmsgd.errors import ConfigError
from swarmsgd.observe.colours import INK
from swarmsgd.observe.lines import FONT, Series, styled

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of texts below `columns`; a cell may hold Markdown (`**best**`). `note` explains it. A
    `folded` one is opened by a click.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Legend:
    """Names of series, shown once for the whole page: a click hides one in all its plots."""

    series: Sequence[Series]


@dataclass(frozen=True)
class Row:
    """Plots side by side where there is room, else below each other."""

    figures: Sequence[Figure]


PagePart: TypeAlias = "str | Table | Legend | Row | Figure"
"""A text is Markdown."""


def page(title: str, parts: Sequence[PagePart]) -> str:
    """The HTML of a page with these parts, in order.

    It holds plotly.js once, page.css and page.js, and forbids the browser to load anything.
    """
    return document(title, "\n".join(html_of(part) for part in parts), ["page.js"])


def document(title: str, body: str, scripts: Sequence[str], policy: str = "") -> str:
    """A page of this HTML with page.css, plotly.js and these scripts of the package; `policy` is
    what it may do beyond showing itself.
    """
    from plotly.offline import get_plotlyjs

    style = Template(_file("page.css")).substitute(ink=INK, font=FONT)
    script = "\n".join(_file(name) for name in scripts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f'</title>\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}{policy}">\n'
        f"<style>\n{style}</style></head>\n<body><main><h1>{escape(title)}</h1>\n"
        "<noscript>The plots of this page are drawn by JavaScript, which is off.</noscript>\n"
        f"{body}\n</main>\n<script>{get_plotlyjs()}</script>\n<script>\n{script}</script>\n"
        "</body></html>\n"
    )


def write_page(path: str | os.PathLike[str], html: str) -> Path:
    """Write a page, make the folder if there is none. Raises ConfigError if that fails."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write the report {path}: {error.strerror}; give a path that can be written to"
        ) from None
    return path


def _file(name: str) -> str:
    return resources.files("swarmsgd.observe").joinpath(name).read_text(encoding="utf-8")


def html_of(part: PagePart) -> str:
    """A part as HTML."""
    match part:
        case str():
            return f'<section class="text">{_markdown(part)}</section>'
        case Table():
            return _table(part)
        case Legend():
            return _legend(part)
        case Row():
            return f'<div class="row">{"".join(_plot(figure) for figure in part.figures)}</div>'
        case _:
            return _plot(part)


def _plot(figure: Figure) -> str:
    data = json_of(figure)
    size = f"height:{figure.layout['height']:g}px"
    if figure.layout["meta"]:  # a plot that cannot be squeezed scrolls sideways
        size += f";min-width:{figure.layout['meta']['min_width']}px"
    return (
        f'<div class="cell"><div class="plot" style="{size}"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def json_of(figure: Figure) -> str:
    """A figure as JSON that can stand in a page: no text in it can end a script."""
    return (figure.to_json() or "").replace("<", "\\u003c")


def _legend(legend: Legend) -> str:
    return (
        '<nav class="legend" aria-label="Series: click to hide in all plots">'
        + "".join(_button(series) for series in styled(legend.series))
        + '<span class="hint">click: hide or show in all plots; double click: only this one</span>'
        + "</nav>"
    )


def _button(series: Series) -> str:
    width = 4 if series.strong else 2.5
    dashes = {
        "solid": "",
        "dash": "8 5",
        "dot": "2.5 4",
        "dashdot": "8 4 2.5 4",
        "longdash": "13 5",
    }
    return (
        f'<button data-group="{escape(series.label)}" aria-pressed="true"><svg width="34" '
        f'height="10" aria-hidden="true"><line x1="1" x2="33" y1="5" y2="5" '
        f'stroke="{series.colour or INK}" stroke-width="{width}" '
        f'stroke-dasharray="{dashes[series.dash or "solid"]}"/></svg>'
        f"{escape(series.label)}</button>"
    )


def _table(table: Table) -> str:
    kinds = [
        " class=words" * any(len(row[k]) > LONG for row in table.rows if k < len(row))
        for k in range(1, len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{kind}>{_inline(column)}</th>'
        for column, kind in zip(table.columns, ["", *kinds], strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{_inline(row[0])}</th>'
        + "".join(f"<td{k}>{_inline(c)}</td>" for c, k in zip(row[1:], kinds, strict=False))
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{_inline(table.note)}</p>' if table.note else ""
    body = (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{note}"
    )
    if table.folded:
        return f"<details><summary>{escape(table.title)}</summary>{body}</details>"
    return f"<section><h2>{escape(table.title)}</h2>{body}</section>"


LONG = 40
"""Letters of a cell beyond which its column is one of words, which are broken into lines."""


def _markdown(text: str) -> str:
    return _reader().render(text)


def _inline(text: str) -> str:
    return _reader().renderInline(text)


@cache
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("js-default", {"html": False, "linkify": False})


_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
