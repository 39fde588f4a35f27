"""What the rest of the package asks of a transport: move bytes between neighbours, say who is lost.

A transport knows bytes only. It does not look into a message, choose a peer or retry. What is
promised here is what `swarmsgd.testing.check_transport` checks.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from swarmsgd.errors import PeerError

Buffer = npt.NDArray[np.uint8]


class LinkBackedUp(PeerError):
    """A peer takes nothing in and its queue is full: the message was not queued, the link stays."""


class Arrived(NamedTuple):
    """A message came in. The buffer belongs to who polled; `give` it back when done."""

    peer: int
    message: Buffer


class Opened(NamedTuple):
    """A link is open that was not there when all were opened at the start."""

    peer: int
    how: str
    """dialled, or accepted."""


IN_ORDER = "closed by the peer"
"""The reason of a loss behind which nothing is missing."""


class Lost(NamedTuple):
    """A link broke, for any reason but our own `drop` or `close`; or it could not be opened."""

    peer: int
    reason: str


class Transport(Protocol):
    """Ordered byte messages over one link per neighbour.

    One thread at a time may call it, but for `peers`, `take`, `give` and `wake`, which any thread
    may, and `close`, which ends another thread's `poll`.
    """

    @property
    def peers(self) -> frozenset[int]:
        """Those whose link is open now."""
        ...

    def poll(self, timeout_s: float | None) -> Arrived | Opened | Lost | None:
        """The next thing that happened; None after `timeout_s` (None: for ever) or a `wake`.

        The messages of a peer come in the order it sent them. A link that breaks is told of once,
        after the last message of that peer. A process that dies is lost within milliseconds; one
        that hangs is merely silent. What nobody polls for waits, and holds back who sends it.
        Raises LinkClosed when the transport is closed.
        """
        ...

    def wake(self) -> None:
        """End the `poll` that waits, or else the next one."""
        ...

    def send(self, peer: int, message: Buffer) -> None:
        """Queue one message (1-d uint8, may be empty) and return at once, whatever the peer does.

        The buffer belongs to the transport from here on; it goes back to the pool once sent. If
        this raises, it is still the caller's. Raises LinkClosed when there is no open link to
        `peer`, and LinkBackedUp when the peer takes nothing in and so much is waiting for it
        already that memory would grow without bound.
        """
        ...

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly `nbytes` from the pool; its pages have been touched if it was used
        before.
        """
        ...

    def give(self, buffer: Buffer) -> None:
        """Hand a buffer back to the pool. Ignored for a buffer that is not out of the pool."""
        ...

    def drop(self, peer: int) -> None:
        """Close the link to one peer at once; what was queued for it is lost. No-op if it is
        closed.
        """
        ...

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links, first waiting up to `drain_s` until the peers have what was queued for
        them. What comes in meanwhile is not told.

        After it returns no thread or descriptor of the transport is left. May be called twice.
        """
        ...
