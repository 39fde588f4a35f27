"""A stretch of wire between two nodes that keeps all that passes: a plain TCP forwarder."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"


class Wire:
    """Whoever connects to `port` is connected to the port `to` of this machine. Use as a context
    manager: its end cuts all connections.
    """

    def __init__(self, to: int) -> None:
        self.to = to
        self._server = socket.create_server((LOOPBACK, 0))
        self.port: int = self._server.getsockname()[1]
        self.there: list[bytearray] = []
        """What those who connected have said, one entry a connection."""
        self.back: list[bytearray] = []
        """What they were answered."""
        self._ends: list[socket.socket] = [self._server]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def seen(self) -> bytes:
        """All that has passed, both ways."""
        return b"".join([bytes(each) for each in self.there + self.back])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                near, _ = self._server.accept()
                far = self._connect()
                self._ends += [near, far]
                for source, target, kept in ((near, far, self.there), (far, near, self.back)):
                    kept.append(bytearray())
                    carrying = threading.Thread(
                        target=_carry, args=(source, target, kept[-1]), daemon=True
                    )
                    carrying.start()
                    self._threads.append(carrying)

    def _connect(self) -> socket.socket:
        """Who is connected to may come a moment later."""
        give_up = time.monotonic() + 60.0
        while True:
            try:
                return socket.create_connection((LOOPBACK, self.to))
            except OSError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)  # between two tries


def _carry(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            kept.extend(data)
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
