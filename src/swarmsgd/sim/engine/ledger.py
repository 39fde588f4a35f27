"""What a simulated run counts and writes down, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from swarmsgd.observe.records import Recorder
from swarmsgd.observe.schema import filled
from swarmsgd.observe.view import record_path
from swarmsgd.sim.engine.agenda import Agenda

_Figures = npt.NDArray[np.int64]
MOST_RECORDED = 256
"""Runs of more nodes than this have no records of single nodes, only the curve of the whole run."""


class Ledger:
    """Figures of each node, [N], and the nodes' records, which go to `folder` if there is one."""

    def __init__(self, num_nodes: int, folder: Path | None) -> None:
        self.clock = Agenda()
        """Its `now` is the time of a record. An algorithm that has an agenda puts it here."""
        self.bytes_sent_N = np.zeros(num_nodes, np.int64)
        self.bytes_received_N = np.zeros(num_nodes, np.int64)
        self.exchanges_N = np.zeros(num_nodes, np.int64)
        """Exchanges that a node mixed, whoever began them; or messages, where there are no pairs.
        """
        self.initiated_N = np.zeros(num_nodes, np.int64)
        """The same, with an exchange of two counted once: what curve and summary add up."""
        self.lost_N = np.zeros(num_nodes, np.int64)
        self.blocked_s_N = np.zeros(num_nodes)
        """Virtual seconds spent waiting for others."""
        self.compute_s_N = np.zeros(num_nodes)
        """Virtual seconds spent in local steps."""
        self.gamma_estimate: float | None = None
        """Mean over the live nodes of Gamma as each one's exchanges show it."""
        self.events = 0
        """Entries of an agenda that were carried out."""
        self.stopped: str | None = None
        """Why the run ended before all steps were made, if it did."""
        self._folder = folder if num_nodes <= MOST_RECORDED else None
        self._recorders: dict[int, Recorder] = {}

    def clear(self) -> None:
        """Set all figures of nodes to 0, to be added up anew."""
        for figures_N in (
            self.bytes_sent_N, self.bytes_received_N, self.exchanges_N, self.initiated_N,
            self.lost_N, self.blocked_s_N, self.compute_s_N,
        ):  # fmt: skip
            figures_N[:] = 0

    def recorder(self, node: int) -> Recorder:
        """The recorder of one node. In a run without records all nodes share one that drops its
        lines.
        """
        if self._folder is None:
            node = -1
        found = self._recorders.get(node)
        if found is None:
            path = None if self._folder is None else record_path(self._folder, node)
            found = self._recorders[node] = Recorder(
                path, node, clock=lambda: self.clock.now, start=0.0
            )
        return found

    def write_results(self, live: Iterable[int], steps_N: _Figures, batch_size: int) -> None:
        """What each live node came to, into its records, if it has any."""
        for node in live:
            if node in self._recorders:
                steps, blocked_s = int(steps_N[node]), float(self.blocked_s_N[node])
                fields = {
                    "steps": steps,
                    "samples": steps * batch_size,
                    "exchanges": int(self.exchanges_N[node]),
                    "bytes_sent": int(self.bytes_sent_N[node]),
                    "bytes_received": int(self.bytes_received_N[node]),
                    "blocked_s": blocked_s,
                    "wall_s": float(self.compute_s_N[node]) + blocked_s,
                }
                self._recorders[node].write("result", **filled("result", **fields))

    def close(self) -> None:
        """Flush and close all files."""
        for recorder in self._recorders.values():
            recorder.close()
