"""What the checks of a transport are written with: a cluster of nodes, and an inbox for each."""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from swarmsgd.errors import LinkClosed
from swarmsgd.graphs import Edge
from swarmsgd.transport.base import Arrived, Buffer, Lost, Transport

WAIT_S = 600.0
"""How long a check waits for what must happen. Only a transport that fails makes it wait so."""


@dataclass(frozen=True)
class Cluster:
    """Nodes with open links that nobody polls. The check closes them."""

    nodes: Mapping[int, Transport]
    """By rank; without the victim, if it cannot be had (because it is another process)."""
    kill: Callable[[], None] | None = None
    """Ends the victim as a crash would."""


class MakeCluster(Protocol):
    """Makes nodes that are linked along `edges`; one of them, `victim`, can be killed.

    A transport without a `kill` is not put to the checks that need one.
    """

    def __call__(
        self, edges: Iterable[Edge], *, victim: int | None = None
    ) -> AbstractContextManager[Cluster]: ...


class Inbox:
    """A thread that polls a transport and keeps what it tells. `wait` for a condition on it.

    All else that is done with the node goes through here too: one thread may call a transport.
    """

    def __init__(
        self, node: Transport, on_message: Callable[[int, Buffer], None] | None = None
    ) -> None:
        self.node = node
        self.messages: list[tuple[int, bytes]] = []
        self.lost: list[tuple[int, str]] = []
        self.on_message = on_message
        """Called on the polling thread, before a message is kept."""
        self._changed = threading.Condition()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def peers(self) -> frozenset[int]:
        return self.node.peers

    def send(self, peer: int, content: bytes | Buffer) -> None:
        """As `send`."""
        self.call(lambda: send(self.node, peer, content))

    def drop(self, peer: int) -> None:
        self.call(lambda: self.node.drop(peer))

    def close(self, drain_s: float = 0.0) -> None:
        self.call(lambda: self.node.close(drain_s))
        self._thread.join()

    def call(self, function: Callable[[], Any]) -> Any:
        """What `function` returns or raises on the polling thread, or here if that has ended."""
        future: Future[Any] = Future()
        with self._changed:
            here = self._ended or threading.current_thread() is self._thread
            if not here:
                self._calls.append((function, future))
        if here:
            return function()
        self.node.wake()
        return future.result(WAIT_S)

    def _run(self) -> None:
        while not self._ended:
            self._answer_calls()
            try:
                event = self.node.poll(None)
            except LinkClosed:
                with self._changed:
                    self._ended = True
                self._answer_calls()
                return
            if isinstance(event, Lost):
                with self._changed:
                    self.lost.append(event)
                    self._changed.notify_all()
            elif isinstance(event, Arrived):
                self._keep(*event)

    def _answer_calls(self) -> None:
        while self._calls:
            function, future = self._calls.popleft()
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

    def _keep(self, peer: int, message: Buffer) -> None:
        if self.on_message is not None:
            self.on_message(peer, message)
        # A digest stands for a long message, or a check would hold several of them.
        content = message.tobytes() if len(message) < 1 << 20 else digest(message)
        self.node.give(message)
        with self._changed:
            self.messages.append((peer, content))
            self._changed.notify_all()

    def of(self, peer: int) -> list[bytes]:
        """The messages of one peer, in order."""
        with self._changed:
            return [content for sender, content in self.messages if sender == peer]

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait until `condition()`; it is looked at whenever something is delivered."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), (
                f"{what}: not within {timeout_s:.0f} s; {len(self.messages)} messages came, "
                f"lost {self.lost}"
            )

    def wait_messages(self, count: int) -> None:
        """Wait for `count` messages."""
        self.wait(lambda: len(self.messages) >= count, f"{count} messages")

    def wait_lost(self, *peers: int, timeout_s: float = WAIT_S) -> None:
        """Wait until these peers are lost."""
        self.wait(lambda: set(peers) <= {p for p, _ in self.lost}, f"loss of {peers}", timeout_s)


def digest(message: Buffer) -> bytes:
    """A few bytes that stand for a long message."""
    return zlib.crc32(message.data).to_bytes(4, "big") + len(message).to_bytes(8, "big")


def send(node: Transport, peer: int, content: bytes | Buffer) -> None:
    """Send a copy of `content` from a buffer of the node's pool."""
    message = node.take(len(content))
    message[:] = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    node.send(peer, message)


def threads_and_descriptors() -> dict[str, int]:
    """What this process holds: Python threads, and, where it can be seen, all threads and files."""
    held = {"threads": threading.active_count()}
    for name, folder in (("tasks", "/proc/self/task"), ("descriptors", "/proc/self/fd")):
        if Path(folder).is_dir():
            held[name] = len(list(Path(folder).iterdir()))
    return held
