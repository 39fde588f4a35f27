"""What a live page shows, piece by piece: made at most so often, and sent where it changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.bins import Bins
from swarmsgd.observe.event_table import events_table
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.page import PagePart, Row, Table, html_of, json_of
from swarmsgd.observe.run_curve import run_curves
from swarmsgd.observe.run_page import COLOUR, detail_figures, overview, time_title
from swarmsgd.observe.run_tables import (
    dead_nodes,
    environment_table,
    first_figures,
    headline,
    nodes_table,
    settings_table,
    words_of_node,
)
from swarmsgd.observe.sources import Run

READ_S = 1.0
"""How often the records are looked at, while somebody looks."""
FIGURES_SHARE = 1 / 40
"""Share of one core's time that drawing may take at most: figures of a large run come seldom."""


class _Source(Protocol):
    """A run as it is now: `sources.Following` or `sources.Replaying`."""

    @property
    def over(self) -> bool:
        """Whether nothing more comes: what is shown then is the whole."""
        ...

    def refresh(self) -> Run:
        """Take in what is new."""
        ...


class Piece(NamedTuple):
    """A piece of the page: `figure` as plotly's JSON, or `html`."""

    kind: str
    key: str
    text: str


class Feed:
    """The pieces of one run's page; any thread may ask."""

    def __init__(self, source: _Source, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._lock = threading.Lock()
        self._read_at = self._drawn_until = float("-inf")
        self._seen: tuple[int, bool, bool] | None = None
        """What all that is shown was made of."""
        self._drawn_at_end = False
        self._dead: list[int] = []
        self._figures: list[Piece] = []
        self._texts: list[Piece] = []
        self.t = self.figures_t = 0.0
        """The run's own time, of the texts and of the figures."""

    def pieces(self, *, last: bool = False) -> list[Piece]:
        """All pieces, in order; made anew if it is time, or this is the `last` look."""
        with self._lock:
            now = self._clock()
            if last or now - self._read_at >= READ_S:
                self._read_at = now
                run = self._source.refresh()
                seen = run.story.records, bool(run.summary), bool(run.config)
                if seen == self._seen:
                    return [*self._texts, *self._figures]
                self.t = run.story.end_s
                self._texts = list(_texts(run))
                at_end = (last or self._source.over) and not self._drawn_at_end
                dead = dead_nodes(run)
                if now >= self._drawn_until or at_end or dead != self._dead:
                    self._drawn_at_end, self._dead = last or self._source.over, dead
                    import plotly.graph_objects  # noqa: F401 (its import is no part of the cost)

                    begin = time.thread_time()
                    self._figures = list(_figures(run))
                    cost_s = time.thread_time() - begin
                    self._drawn_until = now + cost_s / FIGURES_SHARE
                    self._seen, self.figures_t = seen, self.t
            return [*self._texts, *self._figures]

    def node(self, number: int) -> str:
        """All that is known of one node, as HTML."""
        self.pieces()
        with self._lock:
            return "".join(html_of(part) for part in _node_parts(self._source.refresh(), number))


def _texts(run: Run) -> Iterator[Piece]:
    yield Piece("html", "headline", html_of(headline(run)))
    tables = (
        first_figures([run]) if run.summary else None,
        events_table(run),
        nodes_table(run),
        settings_table(run),
        environment_table(run),
    )
    for table in tables:
        if table is not None:
            yield Piece("html", table.title, html_of(table))


def _figures(run: Run) -> Iterator[Piece]:
    figures = [*overview(run_curves([run]), time_title([run])), *detail_figures(run)]
    for figure in figures:
        title = str(figure.layout["title"]["text"]).split("</b>")[0].removeprefix("<b>")
        yield Piece("figure", title, json_of(figure))


def _node_parts(run: Run, number: int) -> list[PagePart]:
    node = run.story.nodes.get(number)
    if node is None:
        return [f"There is no record of node {number} yet."]
    unit = time_title([run])
    figures = [
        figure
        for figure in (
            _rate(node.stepping, "Local steps a second", unit),
            _rate(node.mixing, "Exchanges a second", unit),
        )
        if figure is not None
    ]
    about = [event for event in run.story.events if number in (event.node, event.peer)]
    rows = [[name, text] for name, text in words_of_node(run, node, about)]
    return [
        Table(title=f"Node {number}", columns=["", ""], rows=rows),
        *([Row(figures)] if figures else []),
    ]


def _rate(bins: Bins, title: str, unit: str):
    found = list(bins)
    if len(found) < 2:
        return None
    rates = [one.total / bins.width_s for one in found]
    series = Series(label=title, x=[one.middle_s for one in found], y=rates, colour=COLOUR)
    axes = {"x": Axis(title=unit, unit="seconds"), "y": Axis(title="")}
    return line_plot([series], title=title, named=False, height=260, **axes)
