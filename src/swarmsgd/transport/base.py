"""What the rest of the package asks of a transport: move bytes between neighbours, say who is lost.

A transport knows bytes only. It does not look into a message, choose a peer or retry. What is
promised here is what `swarmsgd.testing.check_transport` checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from swarmsgd.errors import PeerError

Buffer = npt.NDArray[np.uint8]
OnMessage = Callable[[int, Buffer], None]
OnLost = Callable[[int, str], None]


class LinkBackedUp(PeerError):
    """A peer takes nothing in and its queue is full: the message was not queued, the link stays."""


class Transport(Protocol):
    """Ordered byte messages over one link per neighbour.

    The two callbacks run on threads of the transport. They may call `send`, `take`, `give` and
    `drop`, and should return soon. One that raises is a bug: it is logged and costs the link.
    """

    @property
    def peers(self) -> frozenset[int]:
        """The neighbours whose link is open now."""
        ...

    def start(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """Begin to deliver; what arrived earlier was kept.

        `on_message(peer, message)` is called once a message, in the order the peer sent them, never
        twice at once for one peer; while it blocks, only that peer's link is not read. The buffer
        belongs to the callee, who hands it back with `give` when done. `on_lost(peer, reason)` is
        called exactly once for a link that breaks for any reason other than our own `drop` or
        `close`, after the last `on_message` of that peer. A process that dies is lost within
        milliseconds; one that hangs, or whose machine vanishes, is merely silent.
        """
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

        Does not wait for the callbacks: the message of that peer that is being delivered may still
        be when this returns, but no other will.
        """
        ...

    def close(self, drain_s: float = 0.0) -> None:
        """Close all links, first waiting up to `drain_s` for queued messages to be sent.

        After it returns no thread or descriptor of the transport is left. It waits for callbacks
        that are running, so the caller must hold no lock that they want. May be called twice.
        """
        ...
