"""Whether a model is trained though no step of its optimizer is counted."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref

import torch

from swarmsgd.core.segments import Segments

_log = logging.getLogger("swarmsgd")

AFTER_S = 30.0
"""How often to look on its own."""
MOVES = 2
"""So many looks in turn that find a change mean training; weights are loaded once."""


class Uncounted:
    """Looks until the first step is counted whether parameters change, and says so once.

    Whoever updates them without a step of the optimizer that joined (a wrapper that does the
    arithmetic itself) ends no burst: nothing is exchanged, and nothing fails. It looks on its own,
    too, since a script asks for nothing before its end; not on a device, where that could break in
    on the capture of a graph.
    """

    def __init__(self, live: Segments, optimizer: str) -> None:
        self._live = live
        self._optimizer = optimizer
        self._moves = 0
        self._over = False
        """It was said, or a step was counted."""
        self._timer: threading.Timer | None = None
        self.forget()
        self._look_later()

    def end(self) -> None:
        """A step was counted, or the node leaves."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def forget(self) -> None:
        """What has changed so far is no training."""
        self._sums = self._sum()

    def look(self, enough: int = 1) -> None:
        """Log a warning, but once, if parameters have changed so many times."""
        if self._over:
            return
        before, self._sums = self._sums, self._sum()
        self._moves = self._moves + 1 if before != self._sums else 0
        if self._moves < enough:
            return
        self._over = True
        _log.warning(
            "the parameters have changed since this model joined, but no step of its optimizer "
            "(%s) was counted: something else trains them, each node alone, and nothing is "
            "exchanged. Join with the torch.optim.Optimizer whose step() does the work; one of "
            "your own has to be a subclass of it whose step() does. If these are weights that were "
            "loaded, nothing is wrong",
            self._optimizer,
        )

    def _sum(self) -> bytes:
        """A sum of each tensor: no step leaves all of them as they were."""
        sums = [t.detach().sum(dtype=torch.float64) for t in self._live.tensors]
        return torch.stack(sums).cpu().numpy().tobytes()

    def _look_later(self) -> None:
        if self._live.device.type != "cpu":
            return
        self._timer = threading.Timer(AFTER_S, _look_alone, [weakref.ref(self)])
        self._timer.daemon = True
        self._timer.start()

    def look_alone(self) -> None:
        """As a thread of its own does, again and again until a step is counted."""
        with contextlib.suppress(RuntimeError):  # a tensor that has no memory just now
            self.look(MOVES)
        if not self._over:
            self._look_later()


def _look_alone(reference: weakref.ref[Uncounted]) -> None:
    uncounted = reference()
    if uncounted is not None:
        uncounted.look_alone()
