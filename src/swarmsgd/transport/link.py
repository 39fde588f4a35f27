"""One link: a queue and a thread that sends it, a thread that reads, and how both come to an end.

On the channel a message is a frame of 16 bytes and, unless it is empty, a body. Ending a link needs
no agreement: either end breaks the channel, and the other sees it broken. Only an end that wants
its queue delivered says goodbye behind the last message, and knows by the break that all was read.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from swarmsgd.errors import LinkClosed, ProtocolError
from swarmsgd.transport.base import Buffer, LinkBackedUp, OnLost, OnMessage
from swarmsgd.transport.pool import BufferPool

_log = logging.getLogger("swarmsgd")

LINK_VERSION = 1
"""Of the frame and of how a link is opened. Both ends must speak the same."""
_FRAME = struct.Struct("<4sHHQ")
"""Magic, version, kind, length of the body."""
_MAGIC = b"SWRM"
_MESSAGE, _GOODBYE = 0, 1
_SHORT = 4096
"""Bytes of a message that may wait behind others however long those are."""


class ChannelBroken(Exception):
    """Nothing more can be sent or received; the text says why."""


class Channel(Protocol):
    """What a link runs on: ordered, reliable, of known lengths."""

    def send(self, frame: Buffer, body: Buffer) -> None:
        """Return once the peer has acknowledged both. Raises ChannelBroken."""
        ...

    def receive_frame(self, frame: Buffer) -> None:
        """Fill `frame`. Raises ChannelBroken."""
        ...

    def receive_body(self, body: Buffer) -> None:
        """Fill `body`. Raises ChannelBroken."""
        ...

    def acknowledge(self) -> None:
        """Tell the peer that its frame and body were taken in. Raises ChannelBroken."""
        ...

    def break_off(self) -> None:
        """End every call that waits, at both ends; from any thread, any number of times."""
        ...

    def release(self) -> None:
        """Let go of what is native. No call is running."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one link may hold."""

    message_bytes: int = 1 << 32
    queued_bytes: int = 1 << 28
    queued_messages: int = 4096


class _State(Enum):
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Link:
    """The link to `peer` over an open channel."""

    def __init__(self, peer: int, channel: Channel, pool: BufferPool, limits: Limits) -> None:
        self.peer = peer
        self.channel = channel
        self._pool = pool
        self._limits = limits
        self._changed = threading.Condition()
        self._state = _State.OPEN
        self._said_goodbye = False
        self._lost_because: str | None = None
        self._queue: deque[Buffer] = deque()
        self._queued_bytes = 0
        self._threads: list[threading.Thread] = []

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._state is _State.OPEN

    def start(self, on_message: OnMessage, on_lost: OnLost) -> None:
        """Begin to send and to deliver."""
        arguments = (on_message, on_lost)
        sender = threading.Thread(target=self._send_all, name=f"swarmsgd-send-{self.peer}")
        reader = threading.Thread(
            target=self._read_all, args=arguments, name=f"swarmsgd-read-{self.peer}"
        )
        self._threads = [sender, reader]
        for thread in self._threads:
            thread.daemon = (
                True  # the exit hook ends them; a thread that it cannot end must not hang
            )
            thread.start()

    def send(self, message: Buffer) -> None:
        """Queue one message. Raises LinkClosed, LinkBackedUp, ProtocolError."""
        if message.dtype != np.uint8 or message.ndim != 1 or not message.flags.c_contiguous:
            raise ProtocolError(
                f"message to node {self.peer} is {message.dtype} of shape {message.shape}, "
                "wanted contiguous 1-d uint8: take() one"
            )
        limits, nbytes = self._limits, len(message)
        if nbytes > limits.message_bytes:
            raise ProtocolError(
                f"message to node {self.peer} has {nbytes} bytes, the limit is "
                f"{limits.message_bytes}; raise max_message_bytes on all nodes"
            )
        with self._changed:
            if self._state is not _State.OPEN:
                raise LinkClosed(f"the link to node {self.peer} is closed; other links go on")
            waiting = len(self._queue)
            # One message may always wait, however long it is, and behind it short ones.
            full = self._queued_bytes + nbytes > limits.queued_bytes and nbytes > _SHORT
            if waiting and (waiting >= limits.queued_messages or full):
                raise LinkBackedUp(
                    f"node {self.peer} takes nothing in: {waiting} messages of "
                    f"{self._queued_bytes} bytes wait for it, at most {limits.queued_messages} of "
                    f"{limits.queued_bytes} may. Send to others until it does, or drop it"
                )
            self._queue.append(message)
            self._queued_bytes += nbytes
            self._changed.notify_all()

    def finish(self) -> None:
        """Take no more messages; send those queued, then say goodbye."""
        with self._changed:
            if self._state is _State.OPEN and self._threads:
                self._state = _State.DRAINING
                self._changed.notify_all()

    def wait_closed(self, timeout_s: float) -> None:
        """Wait until a link that was told to finish is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is not _State.DRAINING, timeout_s)

    def close(self, lost_because: str | None = None) -> None:
        """Close at once. With a reason, an open link counts as lost."""
        with self._changed:
            if self._state is _State.CLOSED:
                return
            if self._state is _State.OPEN:
                self._lost_because = lost_because
            self._state = _State.CLOSED
            queued, self._queue = self._queue, deque()
            self._queued_bytes = 0
            self._changed.notify_all()
        self.channel.break_off()
        for message in queued:
            self._pool.give(message)
        if not self._threads:
            self.channel.release()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads of a closed link; False if one is still in a callback."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout_s)
        return not any(t.is_alive() for t in self._threads if t is not threading.current_thread())

    def abandon(self) -> None:
        """In a forked child, which has none of the threads: closed, and nobody holds the lock."""
        self._changed = threading.Condition()
        self._state = _State.CLOSED
        self._threads = []

    # The sender.

    def _send_all(self) -> None:
        frame = np.zeros(_FRAME.size, np.uint8)
        try:
            while (message := self._next_message()) is not None:
                _FRAME.pack_into(frame.data, 0, _MAGIC, LINK_VERSION, _MESSAGE, len(message))
                self.channel.send(frame, message)
                self._pool.give(message)
            if self._state is _State.DRAINING:
                _FRAME.pack_into(frame.data, 0, _MAGIC, LINK_VERSION, _GOODBYE, 0)
                self.channel.send(frame, frame[:0])
                with self._changed:
                    self._said_goodbye = True
                    self._changed.notify_all()
        except ChannelBroken as error:
            self.close(str(error))

    def _next_message(self) -> Buffer | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._state is not _State.OPEN)
            if not self._queue:
                return None
            message = self._queue.popleft()
            self._queued_bytes -= len(message)
            return message

    # The reader.

    def _read_all(self, on_message: OnMessage, on_lost: OnLost) -> None:
        try:
            while self._state is not _State.CLOSED:
                message = self._receive()
                if message is None:
                    break
                if self._state is _State.CLOSED:
                    self._pool.give(message)
                    break
                self._deliver(on_message, message)
                del message  # it is the callee's; do not keep it while waiting for the next
            with self._changed:  # the peer reads on behind its goodbye only until it has ours
                self._changed.wait_for(
                    lambda: self._state is not _State.DRAINING or self._said_goodbye
                )
            self.close("closed by the peer")
        except ChannelBroken as error:
            self.close(str(error))
        self._threads[0].join()
        self.channel.release()
        if self._lost_because is not None:
            try:
                on_lost(self.peer, self._lost_because)
            except Exception:
                _log.exception("on_lost of node %d raised", self.peer)

    def _deliver(self, on_message: OnMessage, message: Buffer) -> None:
        try:
            on_message(self.peer, message)
        except Exception as error:
            _log.exception("on_message of node %d raised; its link is closed", self.peer)
            self.close(f"on_message raised {error!r}")

    def _receive(self) -> Buffer | None:
        """The next message, or None behind the last."""
        frame = np.empty(_FRAME.size, np.uint8)
        self.channel.receive_frame(frame)
        magic, version, kind, length = _FRAME.unpack(frame.tobytes())
        if (magic, version) != (_MAGIC, LINK_VERSION) or kind not in (_MESSAGE, _GOODBYE):
            raise ChannelBroken(
                f"sent {frame.tobytes().hex()}, wanted the frame of a message, version "
                f"{LINK_VERSION}: another program, or corruption"
            )
        if length > self._limits.message_bytes:
            raise ChannelBroken(
                f"announced a message of {length} bytes, the limit is "
                f"{self._limits.message_bytes}; raise max_message_bytes on all nodes, or it is "
                "corruption"
            )
        body = self._pool.take(length)
        if length:
            self.channel.receive_body(body)
        self.channel.acknowledge()
        return None if kind == _GOODBYE else body
