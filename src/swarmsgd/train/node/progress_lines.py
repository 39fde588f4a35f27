"""How far a node is, in its records: a line every half second, from the training thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from swarmsgd.observe.records import Recorder
from swarmsgd.observe.schema import filled

_EVERY_S = 0.5
FIELDS = ("steps", "bytes_sent", "bytes_received", "blocked_s", "gamma_estimate")
"""Of `Swarm.stats`, in a progress line under the same name."""


class ProgressLines:
    """Writes the lines of kind "progress" of a node whose script does not."""

    def __init__(self, recorder: Recorder) -> None:
        self._write = recorder.write
        self.due = math.inf if recorder.path is None else -math.inf
        """When a line is to be added, on the clock of `time.perf_counter`."""
        self._losses, self._loss_sum = 0, 0.0

    def stop(self) -> None:
        """Somebody else writes them."""
        self.due = math.inf

    def note(self, loss: float) -> None:
        """A loss; the next line has the mean of those since the last one."""
        self._losses += 1
        self._loss_sum += loss

    def add(self, now: float, figures: Mapping[str, Any]) -> None:
        """A line of these figures; the next is `due` a while later."""
        self.due = now + _EVERY_S
        loss = self._loss_sum / self._losses if self._losses else None
        self._losses, self._loss_sum = 0, 0.0
        self._write(
            "progress",
            **filled(
                "progress",
                loss=loss,
                exchanges=figures["completed"] + figures["answered"],
                step_ms_max=1000 * figures["step_s_max"] or None,
            )
            | {name: figures[name] for name in FIELDS},
        )
