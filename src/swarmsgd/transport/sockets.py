"""What Gloo does not say of its sockets: who listens, who is connected.

Finding the sockets of this process works on Linux; elsewhere there is nothing to find, and the
guards built on it are off.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
SocketAddress = tuple[str, int]
"""Numeric address and port."""

_OPEN_FILES = Path("/proc/self/fd")
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27


def watch_listener(make: Callable[[], _T]) -> tuple[_T, int | None, SocketAddress]:
    """What `make()` gives, and the socket that began to listen meanwhile: descriptor, endpoint.

    (None, ("", 0)) in their place if that cannot be told.
    """
    before = {fd for fd, _ in _listeners()}
    made = make()
    found = [(fd, at) for fd, at in _listeners() if fd not in before]
    fd, at = found[0] if len(found) == 1 else (None, ("", 0))
    return made, fd, at


def _listeners() -> Iterator[tuple[int, SocketAddress]]:
    for fd in _socket_descriptors():
        with _borrowed(fd) as sock:
            if sock and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield fd, sock.getsockname()[:2]


def _socket_descriptors() -> list[int]:
    try:
        names = [int(path.name) for path in _OPEN_FILES.iterdir()]
    except OSError:
        return []
    found: list[int] = []
    for fd in names:
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            continue  # closed meanwhile
    return found


@contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket | None]:
    """A stream socket object on a descriptor that somebody else owns and goes on owning."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        yield None
        return
    try:
        internet = sock.family in (socket.AF_INET, socket.AF_INET6)
        yield sock if internet and sock.type == socket.SOCK_STREAM else None
    except OSError:
        return  # closed meanwhile
    finally:
        sock.detach()


def set_deaf(fd: int, deaf: bool) -> None:
    """Make a listening socket ignore new connections, or hear them again. Open ones go on."""
    with _borrowed(fd) as sock:
        if sock is None:
            return
        if deaf:
            drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0), 8)  # ret #0
            program = struct.pack("HP", 1, ctypes.addressof(drop_all))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        else:
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def descriptors(own: set[SocketAddress], peers: set[SocketAddress]) -> list[int]:
    """The sockets of this process that are bound to one of `own` or connected to one of `peers`."""
    found: list[int] = []
    for fd in _socket_descriptors():
        with _borrowed(fd) as sock:
            if sock and (sock.getsockname()[:2] in own or _remote(sock) in peers):
                found.append(fd)
    return found


def hang_up(own: SocketAddress) -> int:
    """Shut down the connections that others made to `own`; how many there are."""
    count = 0
    for fd in descriptors({own}, set()) if own[1] else []:
        with _borrowed(fd) as sock:
            if sock and _remote(sock):
                count += 1
                sock.shutdown(socket.SHUT_RDWR)
    return count


def _remote(sock: socket.socket) -> SocketAddress | None:
    try:
        return sock.getpeername()[:2]
    except OSError:
        return None
