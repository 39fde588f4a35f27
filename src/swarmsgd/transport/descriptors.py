"""Connections of ZeroMQ's, which it gives no other hold of than their descriptor."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator


def close_connections(fds: dict[int, int]) -> None:
    """In a forked child: close its copies of connections, which would hold them open. `fds` maps
    descriptors to a port that one end of the connection has.
    """
    for fd, port in fds.items():
        ours = False
        with borrowed(fd) as sock:
            ours = sock is not None and port in (sock.getsockname()[1], sock.getpeername()[1])
        if ours:
            os.close(fd)


@contextlib.contextmanager
def borrowed(fd: int) -> Iterator[socket.socket | None]:
    """A socket object on a descriptor of ZeroMQ's; None if it has closed it meanwhile."""
    sock = None
    with contextlib.suppress(OSError):
        copy = os.dup(fd)
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
    if sock is None:
        yield None
        return
    with sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            yield None
            return
        try:
            yield sock
        except OSError:
            return
