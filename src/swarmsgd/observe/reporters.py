"""Who sends a run's figures to sinks, and when: a node of a script, or the parent of `train`."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swarmsgd.observe.sinks import Sink
from swarmsgd.observe.view import RunView

EVERY_S = 2.0
"""How often figures are sent."""
_MOST_NODES = 32
"""Nodes with figures of their own."""

_log = logging.getLogger("swarmsgd")


class Outlet:
    """Sends figures to sinks. One that fails is told of once and sent no more: a run never ends for
    it.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)
        self._open: list[Sink] = []
        self._step = 0

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None = None) -> None:
        """Open them. Raises what a sink raises, with the others closed: nothing runs yet."""
        try:
            for sink in self._sinks:
                sink.begin(name, flat(settings), folder)
                self._open.append(sink)
        except BaseException:
            self.close()
            raise

    def log(self, figures: Mapping[str, Any], step: int) -> None:
        """The finite ones of these figures."""
        known = {name: float(value) for name, value in figures.items() if _is_finite(value)}
        self._step = max(self._step, step)
        for sink in list(self._open) if known else ():
            self._try(sink, lambda sink=sink: sink.log(known, self._step))

    def close(self) -> None:
        """Close them."""
        for sink in list(self._open):
            self._try(sink, sink.end)
        self._open.clear()

    def _try(self, sink: Sink, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tool raises: training goes on
            self._open.remove(sink)
            what = f"{type(sink).__name__}: {type(error).__name__}: {error}"
            _log.warning("no figures are sent any more to %s", what)


class Reporter:
    """Sends a node's figures every `EVERY_S` from a thread of its own, until it is closed: what
    `join(log_to=...)` starts.
    """

    def __init__(
        self,
        figures: Callable[[], Mapping[str, Any]],
        sinks: Sequence[Sink],
        name: str,
        settings: Mapping[str, Any],
    ) -> None:
        self._figures = figures
        self._outlet = Outlet(sinks)
        self._outlet.begin(name, settings)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swarmsgd-figures", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(EVERY_S):
            self._send()

    def _send(self) -> None:
        found = self._figures()
        self._outlet.log({f"swarm/{k}": v for k, v in found.items()}, int(found.get("steps", 0)))

    def close(self) -> None:
        """Send the last figures, close the sinks. May be called twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self._send()
            self._outlet.close()


class RunReporter:
    """Sends the figures of a run of `swarmsgd train`, as its parent sees them. `tick` it often."""

    def __init__(
        self, view: RunView, outlet: Outlet, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._view, self._outlet, self._clock = view, outlet, clock
        self._sent_at = clock()

    def tick(self) -> None:
        """Send, if it is time."""
        now = self._clock()
        if now - self._sent_at >= EVERY_S:
            self._sent_at = now
            self._outlet.log(run_figures(self._view), int(self._view.total("samples")))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """What the run came to."""
        step = int(self._view.total("samples"))
        self._outlet.log(run_figures(self._view), step)
        self._outlet.log({f"final/{name}": value for name, value in summary.items()}, step)


def run_figures(view: RunView) -> dict[str, float | None]:
    """Figures of a run now: of all nodes, and of each where they are not too many."""
    found: dict[str, float | None] = {
        "loss": view.loss,
        "samples": view.total("samples"),
        "samples_per_s": view.total("samples_per_s"),
        "exchanges": view.total("exchanges") / 2,
        "bytes_sent": view.total("bytes_sent"),
        "gamma_estimate": view.gamma,
        "nodes_training": sum(node.state == "training" for node in view.nodes),
        "nodes_failed": sum(node.state == "failed" for node in view.nodes),
    }
    for node in view.nodes if len(view.nodes) <= _MOST_NODES else ():
        for name in ("loss", "steps", "samples_per_s", "blocked_s", "gamma_estimate"):
            found[f"node/{node.node}/{name}"] = getattr(node, name)
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by names with dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
