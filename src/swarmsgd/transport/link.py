"""One end of a link, and what may be sent over it."""

from __future__ import annotations

from collections import deque

import numpy as np
import zmq

from swarmsgd.errors import ProtocolError
from swarmsgd.transport.base import Buffer

QUEUED_BYTES = 1 << 28
"""More than so much does not wait for a peer that takes nothing in, by default."""


class Link:
    """One end of a link: open, or dialled and not answered yet."""

    __slots__ = ("endpoint", "fd", "heard", "id", "is_open", "parting", "peer", "waiting")

    def __init__(self, peer: int, id: bytes, endpoint: str | None) -> None:
        self.peer = peer
        self.id = id
        """Names the connection."""
        self.fd: int | None = None
        self.endpoint = endpoint
        """Whom we dialled, if we did."""
        self.is_open = False
        self.parting = False
        """We have said goodbye on this link alone."""
        self.heard = False
        """The peer has read our goodbye."""
        self.waiting: deque[tuple[zmq.MessageTracker, Buffer]] = deque()
        """What was not sent yet."""

    def opened(self, fd: int) -> None:
        """Both ends know of it; `fd` is the connection's descriptor."""
        self.fd, self.is_open = fd, True

    def waiting_bytes(self) -> int:
        """Bytes of messages that are not sent yet."""
        return sum(len(message) for _, message in self.waiting)


def check_message(peer: int, message: Buffer, most: int) -> None:
    """Raise ProtocolError unless it is contiguous uint8 [N] with N of at most `most` bytes."""
    if message.dtype != np.uint8 or message.ndim != 1 or not message.flags.c_contiguous:
        raise ProtocolError(
            f"message to node {peer} is {message.dtype} of shape {message.shape}, "
            "wanted contiguous 1-d uint8: take() one"
        )
    if len(message) > most:
        raise ProtocolError(
            f"message to node {peer} has {len(message)} bytes, the limit is {most}; raise "
            "max_message_bytes on all nodes"
        )
