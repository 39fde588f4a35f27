"""An exchanged vector of all virtual nodes: what lies where."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from swarmsgd.core.wire_code import Vector


class Rows(NamedTuple):
    """One exchanged vector of all nodes, float32 [N, D]: live, copy and pending."""

    name: str
    bits: int | None
    live_ND: Vector
    copy_ND: Vector
    pending_ND: Vector

    @classmethod
    def of(cls, name: str, bits: int | None, live_ND: Vector) -> Rows:
        """Copies as the live ones are now, and nothing pending."""
        return cls(name, bits, live_ND, live_ND.copy(), np.zeros_like(live_ND))

    def begin(self, node: int, vector: Vector | None) -> None:
        """A node begins with `vector`; with None as it is, what is pending included."""
        start = self.live_ND[node] + self.pending_ND[node] if vector is None else vector
        self.live_ND[node] = self.copy_ND[node] = start
        self.pending_ND[node] = 0
