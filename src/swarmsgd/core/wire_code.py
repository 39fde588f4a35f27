"""What turns a model into bytes and back: the one interface that every wire code has.

One code object serves one named vector of one node. It owns what it learned about cell sizes and
the few figures a block of its newest offer, never the vectors themselves: `copy` and `pending` are
float32 vectors of length D that belong to the node (`core.replica`).

The lattice point Q_i of an offer is not kept: `mix` makes it again from the model that was offered,
and the checks that were sent prove that it is the same. So whoever changes `copy` while an offer is
out keeps a snapshot of it first, and hands that to `mix`.

Conserved by every implementation: `answer` adds (Q_i - Q_j)/2 to the partner's copy and pending,
`mix` adds the exact opposite to the initiator's, for the same set of coordinates. Nothing is ever
added that fails a check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Figures = npt.NDArray[np.float32]
"""[P] one value a block."""
Places = npt.NDArray[np.int64]
"""Addresses, or indices of a vector."""
Allocate = Callable[[int], Bytes]
"""Given a number of bytes, returns a writable uint8 array of exactly that length."""


class Mixed(NamedTuple):
    """What one end saw while it mixed: all sums are over the coordinates that were mixed."""

    distance_sq: float
    """||Q_i - Q_j||^2, the squared distance of the two lattice points."""
    blocks: int
    """Blocks of the vector."""
    left_out: int = 0
    """Blocks that were not mixed because the offer could not be decoded here."""
    float32_blocks: int = 0
    """Blocks that came in as float32."""
    noise_sq: float = 0.0
    """Expected squared error of what came in, sum of s^2/12 next to `distance_sq`."""
    cell: float = 0.0
    """Median cell width of the blocks that came in coded; 0 without any."""


class Code(Protocol):
    """Encode and decode one vector of D parameters.

    Payloads are written where `allocate` says, in one call of it.
    """

    bits: int
    """Bits a coordinate on the wire; 0 for float32."""

    def offer(self, copy: Vector, seed: int, allocate: Allocate) -> None:
        """Initiator: encode `copy`. `mix` is for the newest offer alone.

        Raises ModelError for a model that cannot be exchanged; there is no offer to mix then.
        """
        ...

    def check_offer(self, offer: Bytes) -> None:
        """Raises the ProtocolError that `answer` would, and changes nothing."""
        ...

    def answer(
        self, offer: Bytes, copy: Vector, pending: Vector, seed: int, allocate: Allocate
    ) -> Mixed:
        """Partner: decode the offer next to `copy`, encode the reply, then update copy and pending.

        Raises ProtocolError for bytes that no peer of this run sends; nothing is changed then.
        """
        ...

    def mix(self, reply: Bytes, offered: Vector, copy: Vector, pending: Vector) -> Mixed:
        """Initiator: decode the reply next to Q_i, update copy and pending, once for each offer.

        `offered` holds what was offered: a snapshot, or `copy` itself if it has not changed since.

        Raises ProtocolError for a reply that fails its checks. If it is one block's check that
        fails, that block is left as it was and the others are mixed, as the partner has mixed
        them; anything else that is wrong changes nothing.
        """
        ...

    def published(self, burst_max: Figures) -> None:
        """Told at each publish: the largest |change| of the burst just ended, one value a block."""
        ...

    def learned(self) -> Figures | None:
        """What it knows by now of the distances to other nodes, in memory of its own; None if it
        learns nothing.
        """
        ...

    def learn(self, learned: Figures) -> None:
        """Know what another code `learned`; nothing changes if that was of other blocks."""
        ...


ApplyPending = Callable[[Places, Places, Vector], None]
"""(addresses, starts, pending): x += pending; pending = 0. x is a table of `core.segments`."""
ApplyAndPublish = Callable[[Places, Places, Vector, Vector, Figures], bool]
"""(addresses, starts, pending, copy, burst_max): x += pending; pending = 0; burst_max = max|x -
copy| of each block; copy = x. False, with copy as it was, if a value of x is then not finite, or
beyond `lattice.PUBLISHED`.
"""
