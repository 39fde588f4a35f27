"""What the rest of the package asks of a transport: move bytes between neighbours, say who is lost.

A transport knows bytes only. It does not look into a message, choose a peer or retry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Buffer = npt.NDArray[np.uint8]
OnMessage = Callable[[int, Buffer], None]
OnLost = Callable[[int, str], None]


class Transport(Protocol):
    """Ordered byte messages over one link per neighbour."""

    @property
    def peers(self) -> frozenset[int]:
        """The neighbours whose link is open now."""
        ...

    def start(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """Begin to deliver.

        `on_message(peer, message)` is called once a message, in the order the peer sent them, never twice at
        once for one peer; while it blocks, only that peer's link is not read. The buffer belongs to
        the callee, who hands it back with `give` when done. `on_lost(peer, reason)` is called exactly once for a
        link that breaks for any reason other than our own `drop` or `close`.
        """
        ...

    def send(self, peer: int, message: Buffer) -> None:
        """Queue one message (1-d uint8, may be empty) and return at once, whatever the peer does.

        The buffer belongs to the transport from here on; it goes back to the pool once sent.
        Raises LinkClosed when there is no open link to `peer`.
        """
        ...

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly `nbytes` from the pool; its pages have been touched if it was used before."""
        ...

    def give(self, buffer: Buffer) -> None:
        """Hand a buffer back to the pool."""
        ...

    def drop(self, peer: int) -> None:
        """Close the link to one peer at once. No-op if it is closed."""
        ...

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links, first waiting up to `drain_s` for queued messages to be sent.

        After it returns no thread or descriptor of the transport is left. May be called twice.
        """
        ...
