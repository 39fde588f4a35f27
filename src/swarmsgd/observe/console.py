"""A run on the terminal: a live picture there, an occasional plain line elsewhere; at the end a
table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swarmsgd.observe.view import NodeView, RunView
from swarmsgd.scores import metric_of, value_of

_READ_S = 0.25
PLAIN_S = 5.0
PLAIN_WIDTH = 120
_MOST_ROWS = 16

COLUMNS: Mapping[str, Callable[[NodeView], str]] = {
    "node": lambda view: str(view.node),
    "steps": lambda view: f"{view.steps:,} / {view.total_steps:,}",
    "loss": lambda view: "-" if view.loss is None else f"{view.loss:.4f}",
    "samples/s": lambda view: f"{view.samples_per_s:,.0f}",
    "exchanges": lambda view: f"{view.exchanges:,}",
    "sent": lambda view: bytes_text(view.bytes_sent),
    "blocked": lambda view: "-" if view.blocked_s is None else f"{view.blocked_s:.1f} s",
}
"""Those of the table while a run goes on; its state stands behind them."""


class Console:
    """Shows a RunView while it grows. Call `tick` often: it reads and draws when it is time.

    On a terminal a live picture, otherwise a plain line now and then; neither if `quiet`. `epochs`
    turns samples into epochs.
    """

    def __init__(
        self,
        view: RunView,
        title: str,
        *,
        epochs: float,
        quiet: bool = False,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._title = title
        self._epochs = epochs
        self._quiet = quiet
        self._clock = clock
        self._rich = RichConsole(file=file, highlight=False)
        if not self._rich.is_terminal:
            self._rich.width = PLAIN_WIDTH
        self._live: Live | None = None
        self._started = self._read_at = self._said_at = clock()

    def __enter__(self) -> Console:
        if self._quiet:
            return self
        if self._rich.is_terminal:
            self._live = Live(
                get_renderable=self._picture, console=self._rich, auto_refresh=False, transient=True
            )
            self._live.start()
        else:
            self.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_terminal(self) -> bool:
        """Whether it draws a live picture, in colour."""
        return self._rich.is_terminal

    def tick(self) -> None:
        """Read and draw, if it is time."""
        now = self._clock()
        if now - self._read_at < _READ_S:
            return
        self._read_at = now
        self._view.read()
        if self._live is not None:
            self._live.refresh()
        elif now - self._said_at >= PLAIN_S and not self._quiet:
            self._said_at = now
            left_s = self._left_s()
            to_go = "" if left_s is None else f"   {clock_text(left_s)} to go"
            self.print(f"{now - self._started:6.0f} s  {self._totals()}{to_go}")

    def print(self, what: RenderableType) -> None:
        """Print above the live picture, or simply print. A text is printed as it is."""
        if isinstance(what, str):
            self._rich.print(Text.from_ansi(what), soft_wrap=True)
        else:
            self._rich.print(what)

    def _totals(self) -> str:
        view = self._view
        if not view.done:
            ready = sum(node.state in ("joined", "training") for node in view.nodes)
            return f"starting: {ready} of {len(view.nodes)} nodes have joined"
        loss = view.loss
        parts = [
            f"epoch {view.done * self._epochs:.2f} of {self._epochs:g}",
            f"loss {loss:.4f}" if loss is not None else "loss -",
            f"{view.total('samples_per_s'):,.0f} samples/s",
            f"{view.total('exchanges') / 2:,.0f} exchanges",
            f"{bytes_text(view.total('bytes_sent'))} sent",
        ]
        if view.gamma is not None:
            parts.append(f"gamma ~{view.gamma:.3g}")
        if failed := sum(node.state == "failed" for node in view.nodes):
            parts.append(f"{failed} died")
        return "   ".join(parts)

    def _left_s(self) -> float | None:
        """Seconds to the end, at the pace so far."""
        done = self._view.done
        return (self._clock() - self._started) * (1 - done) / done if done > 0 else None

    def _picture(self) -> RenderableType:
        view = self._view
        elapsed_s = self._clock() - self._started
        left_s = self._left_s()
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=view.done, width=40),
            f"{100 * view.done:3.0f} %",
            f"{clock_text(elapsed_s)} so far, "
            + (f"{clock_text(left_s)} to go" if left_s is not None else "starting"),
        )
        return Group(Text(self._title, style="bold"), bar, self._totals(), self._rows())

    def _rows(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in COLUMNS:
            table.add_column(name, justify="right")
        table.add_column("state")
        room = min(_MOST_ROWS, max(1, self._rich.size.height - 8))
        for view in self._view.nodes[:room]:
            table.add_row(*(cell(view) for cell in COLUMNS.values()), _state(view))
        if len(self._view.nodes) > room:
            table.add_row(
                "...", *[""] * (len(COLUMNS) - 1), f"and {len(self._view.nodes) - room} more"
            )
        return table


def _state(view: NodeView) -> str:
    style = {"training": "green", "failed": "red", "left": "dim"}.get(view.state, "default")
    return f"[{style}]{view.state}[/]"


def summary_table(summary: Mapping[str, Any]) -> Table:
    """The end of a run as a table, from the contents of its `summary.json`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("")
    scores = ["accuracy"] if summary["score"] == "accuracy" else []
    scores += ["loss", *summary["scores"]]
    steps = ("steps", "step ms p50", "p99", "max", "exchanges", "sent", "blocked")
    for name in (*(metric_of(score).title for score in scores), *steps):
        table.add_column(name, justify="right")
    if summary["mean_loss"] is not None:
        mean = {"accuracy": summary["mean_accuracy"], "loss": summary["mean_loss"]}
        table.add_row("mean model", *_scores(scores, mean | summary["scores"]), style="bold")
    for node in summary["nodes_detail"]:
        table.add_row(
            f"node {node['node']}" + (" (failed)" if node["failed"] else ""),
            *_scores(scores, node),
            _number(node["steps"], 0),
            *(_number(node[f"step_ms_{name}"], 1) for name in ("p50", "p99", "max")),
            _number(node["exchanges"], 0),
            "-" if node["bytes_sent"] is None else bytes_text(node["bytes_sent"]),
            "-" if node["blocked_s"] is None else f"{node['blocked_s']:.2f} s",
            style="red" if node["failed"] else "",
        )
    return table


def _scores(names: Iterable[str], fields: Mapping[str, Any]) -> Iterable[str]:
    return (metric_of(name).write(value_of(name, fields)) for name in names)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def bytes_text(count: float) -> str:
    """`1.2 GB`: three digits or so, decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 100 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def clock_text(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
