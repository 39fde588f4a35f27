"""The one ZeroMQ socket of a node: it listens, dials, and says which connection ended.

Learned about ZeroMQ 4.3, and relied on:

* A ROUTER socket cannot close a connection that it accepted. So the connection itself is shut down,
  and ZeroMQ sees it end, as if the peer had.
* Two connections may not have one routing id, or the process aborts. So ours are random.
* A dialled connection that ends takes what had come in and was not read with it. So who leaves in
  order waits until the others have read all (`transport/zmq.py`). If a message of several parts was
  half read, the process aborts later. So a message is one part (`packed`).
* The options that a socket has when it binds or connects are those of that connection for good. So
  one socket is a CURVE server to those who dial it, and a client to those it dials.
* It aborts when it finds no descriptor where it needs one. So there must be some to spare.
* Its heartbeats abort the process if a peer has died behind more messages than may wait here to be
  read, and a beat is due before they are. So TCP's keepalive stands in for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import secrets
import socket
import threading
from typing import NamedTuple

import zmq
import zmq.utils.z85
from zmq.utils.monitor import recv_monitor_message

from swarmsgd.errors import ConfigError
from swarmsgd.limits import need_descriptors, need_threads
from swarmsgd.transport.base import Buffer
from swarmsgd.transport.descriptors import borrowed
from swarmsgd.transport.keys import SwarmKey

_SILENT_S = 15
"""A host whose system answers nothing for so long has vanished, or takes nothing in. Where the way
takes milliseconds TCP sends what was not confirmed again after 0.2, 0.6, 1.4, 3, 6.2 and 12.6 s:
an outage that ends before the last of these costs no link. A link that was given up is dialled
again.
"""
_PROBE_S = 3
KEEP_ALIVE: dict[int, int] = {
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: _SILENT_S - 3 * _PROBE_S,
    zmq.TCP_KEEPALIVE_INTVL: _PROBE_S,
    zmq.TCP_KEEPALIVE_CNT: 3,
    zmq.TCP_MAXRT: 1000 * _SILENT_S,
}
"""How a host that vanished is found out: by TCP's own means."""
HANDSHAKE_S = 10
"""Who connects and does not speak our language within this time is hung up on."""
UNREAD = 4
"""Messages of one peer that may wait here to be read; behind them the peer's own queue fills."""
ENCRYPTING_BYTES = 64
"""ZeroMQ adds up to so many to a message that it encrypts, 33 as of now, and counts them in."""
EVERYWHERE = "*"
SPARE = 48
"""Descriptors that must be free; a port needs about 20, and one a link."""
SPARE_THREADS = 6
"""ZeroMQ aborts, too, where it cannot start one."""

_LIBC = ctypes.PyDLL(None)
"""Calls of the C library that keep the interpreter's lock: the training thread wakes the exchange
thread, and would at once lose the lock to it.
"""

_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_FOREIGN = "who listens there speaks another language"
_WHY: dict[int, str] = {
    zmq.EVENT_CLOSED: "nobody listens there, or a firewall is between",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "who listens there hung up or said nothing",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: _FOREIGN,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not take our key",
    zmq.EVENT_DISCONNECTED: "the connection ended",
}
SOMEBODY = "somebody"
_REFUSALS = _FOREIGN, _WHY[zmq.EVENT_HANDSHAKE_FAILED_AUTH]


class Received(NamedTuple):
    """One message of a connection."""

    id: bytes
    """Names the connection."""
    fd: int
    """Its descriptor."""
    kind: bytes
    body: memoryview


class Ended(NamedTuple):
    """A connection ended, or could not be made."""

    fd: int
    """Its descriptor; -1 if only its handshake is known to have failed."""
    endpoint: str
    """Whom we dialled, if we did, else where we listen."""
    reason: str
    stranger: str | None = None
    """Somebody who dialled and got no further than the first words, in words."""


DATA = b"M"
"""The kind whose body travels as it is, without a copy."""
_OURS = b"\xf5swarm\0\1"
"""Begins what is of another kind."""


def packed(kind: bytes, body: bytes | Buffer) -> bytes | Buffer:
    """One part that tells its kind, a byte. A body of DATA that begins like another kind's, which
    none does, is marked as well.
    """
    if kind == DATA and bytes(body[: len(_OURS)]) != _OURS:
        return body
    return _OURS + kind + bytes(body)


def unpacked(part: memoryview) -> tuple[bytes, memoryview]:
    """Kind and body of what `packed` made."""
    if part[: len(_OURS)] != _OURS:
        return DATA, part
    kind, body = bytes(part[len(_OURS) : len(_OURS) + 1]), part[len(_OURS) + 1 :]
    return kind, memoryview(bytes(body)) if kind == DATA else body  # numbers want to be aligned


class Full(Exception):
    """A connection's queue is full."""


class NotConnected(Exception):
    """There is no such connection."""


class Port:
    """Listens at `address` (EVERYWHERE: at all of this machine; None: nowhere, it only dials), on
    `port`, 0 being one of the system's choice. One thread at a time uses it, but for `wake`. Raises
    ConfigError.
    """

    def __init__(
        self,
        address: str | None,
        *,
        port: int = 0,
        message_bytes: int,
        queued_messages: int,
        key: SwarmKey | None = None,
    ) -> None:
        need_descriptors(SPARE, "a port")
        need_threads(SPARE_THREADS, "a port")
        self._context = zmq.Context()
        self._router = router = self._context.socket(zmq.ROUTER)
        for option, value in {
            zmq.LINGER: 0,
            zmq.ROUTER_MANDATORY: 1,
            zmq.RECONNECT_IVL: -1,
            zmq.BACKLOG: 1024,
            zmq.IPV6: int(_wants_ipv6(address)),
            zmq.SNDHWM: queued_messages,
            zmq.RCVHWM: UNREAD,
            zmq.MAXMSGSIZE: message_bytes,
            zmq.HANDSHAKE_IVL: 1000 * HANDSHAKE_S,
            zmq.CONNECT_TIMEOUT: 1000 * HANDSHAKE_S,
            **KEEP_ALIVE,
        }.items():
            router.setsockopt(option, value)
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)  # ZeroMQ's thread waits where there is no room
        router.monitor("inproc://ended", _EVENTS)
        self._monitor.connect("inproc://ended")
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._waking = threading.Lock()
        self._poller = zmq.Poller()
        for readable in (router, self._monitor, self._woken):
            self._poller.register(readable, zmq.POLLIN)
        self.wants = (
            "it has a key, or is no node" if key is None else "it has no key or another one"
        )
        """Why somebody who dials is refused."""
        self._accepted: dict[int, str] = {}
        """Who dialled, by descriptor."""
        self._failed: dict[str, str] = {}
        """Why a handshake has failed, by endpoint, until the end of its connection is told."""
        self._gate: zmq.Socket[bytes] | None = None
        """Where ZeroMQ asks whether it may let in who has proved to hold a key."""
        if key is not None:
            self._public = zmq.utils.z85.decode(key.public)
            self._gate = self._context.socket(zmq.REP)
            self._gate.bind("inproc://zeromq.zap.01")
            self._poller.register(self._gate, zmq.POLLIN)
            router.setsockopt(zmq.CURVE_PUBLICKEY, key.public)
            router.setsockopt(zmq.CURVE_SECRETKEY, key.secret)
            router.setsockopt(zmq.ZAP_DOMAIN, b"swarmsgd")
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.MAXMSGSIZE, message_bytes + ENCRYPTING_BYTES)
        self.endpoint = "" if address is None else self._bind(address, port)
        """Where others dial; "" if it only dials itself."""
        if key is not None:
            router.setsockopt(zmq.CURVE_SERVER, 0)
            router.setsockopt(zmq.CURVE_SERVERKEY, key.public)

    def _bind(self, address: str, port: int) -> str:
        try:
            self._router.bind(
                f"tcp://{f'[{address}]' if ':' in address else address}:{port or '*'}"
            )
        except zmq.ZMQError as error:
            self.close()
            at = f"{address}:{port}" if port else address
            raise ConfigError(
                f"cannot listen on {at}: {os.strerror(error.errno or 0)}. Pass an address of "
                f"this machine that the other nodes reach{', and a free port' if port else ''}"
            ) from None
        return self._router.getsockopt_string(zmq.LAST_ENDPOINT)

    def dial(self, endpoint: str) -> bytes:
        """Begin to connect; the id of the connection. Raises ConfigError for no endpoint."""
        routing_id = b"d" + secrets.token_bytes(8)
        try:
            self._router.setsockopt(zmq.CONNECT_ROUTING_ID, routing_id)
            self._router.connect(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"cannot dial {endpoint!r}: {os.strerror(error.errno or 0)}"
            ) from None
        return routing_id

    def undial(self, endpoint: str) -> None:
        """Close the connection to an endpoint that was dialled, if there is one."""
        with contextlib.suppress(zmq.ZMQError):
            self._router.disconnect(endpoint)

    def hang_up(self, fd: int) -> None:
        """Shut down a connection that was accepted."""
        with borrowed(fd) as sock:
            if sock and self.endpoint and sock.getsockname()[1] == port_of(self.endpoint):
                sock.shutdown(socket.SHUT_RDWR)

    def send(self, to: bytes, kind: bytes, body: bytes | Buffer = b"") -> zmq.MessageTracker:
        """Queue a message without copying a large one; the tracker tells when it was sent. Raises
        Full, Gone.
        """
        try:
            self._router.send(to, zmq.SNDMORE | zmq.NOBLOCK)
            part = zmq.Frame(packed(kind, body), track=True, copy=False)
            return self._router.send(part, zmq.NOBLOCK, track=True)
        except zmq.Again:
            raise Full from None
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            raise NotConnected from None

    def receive(self) -> Received | None:
        """The next message, if there is one; what is none of ours is let fall, and hung up on."""
        self._let_in()
        while True:
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            try:
                fd = int(parts[-1].get(zmq.SRCFD))
            except zmq.ZMQError:
                continue  # who speaks the first version of the protocol has none
            if len(parts) == 2:
                return Received(parts[0].bytes, fd, *unpacked(parts[1].buffer))
            self.hang_up(fd)

    def ended(self) -> list[Ended]:
        """Connections that ended since this was last asked."""
        happened: list[tuple[int, int, str, str]] = []
        while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            event = recv_monitor_message(self._monitor)
            what, value = event["event"], int(event["value"])
            caller = _somebody(value) if what == zmq.EVENT_ACCEPTED else ""
            happened.append((what, value, event["endpoint"].decode(), caller))
        last = {event[1]: event for event in happened if event[0] == zmq.EVENT_ACCEPTED}
        found: list[Ended] = []
        for each in happened:
            what, value, endpoint, caller = each
            if what == zmq.EVENT_ACCEPTED:
                # If it is accepted anew below, the descriptor was another's by now.
                self._accepted[value] = caller if each is last[value] else SOMEBODY
            elif what in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
                reason = self._failed.pop(endpoint, "")
                caller = self._accepted.pop(value, None)
                stranger = caller if reason in _REFUSALS else None
                found.append(Ended(value, endpoint, reason or _WHY[what], stranger))
            else:  # the value is an error number; the descriptor comes with what follows
                self._failed[endpoint] = reason = _WHY[what]
                found.append(Ended(-1, endpoint, reason))
        return found

    def wait(self, timeout_s: float | None) -> bool:
        """Until there may be something to receive, or a connection ended; whether `wake` was
        called.
        """
        wait_ms = None if timeout_s is None else math.ceil(1000 * timeout_s)
        ready = dict(self._poller.poll(wait_ms))
        if self._woken.fileno() not in ready:
            return False
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        return True

    def _let_in(self) -> None:
        """Answer ZeroMQ's questions (RFC 27, ZAP): who holds the key of this swarm may come in."""
        gate = self._gate
        while gate is not None and int(gate.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            version, request, _, _, _, mechanism, *credentials = gate.recv_multipart()
            member = mechanism == b"CURVE" and credentials == [self._public]
            gate.send_multipart([version, request, b"200" if member else b"400", b"", b"", b""])

    def wake(self) -> None:
        """End `wait`, now or when it is called next; from any thread."""
        # If so many wakes wait already, or it is closed (descriptor -1), nothing is sent.
        with self._waking:
            _LIBC.send(self._waker.fileno(), b"\0", 1, 0)

    def close(self) -> None:
        """Close all at once; no thread is left. May be called twice."""
        if self._router.closed:
            return
        self._router.disable_monitor()
        if self._gate is not None:
            self._gate.close(0)
        self._monitor.close(0)
        self._router.close(0)
        self._context.term()
        with self._waking:
            self._woken.close()
            self._waker.close()


def _somebody(fd: int) -> str:
    """The other end of a connection, or of one that has ended meanwhile."""
    with borrowed(fd) as sock:
        if sock is not None:  # of IPv4, over a socket that knows both
            return f"{SOMEBODY} at {sock.getpeername()[0].removeprefix('::ffff:')}"
    return SOMEBODY


def port_of(endpoint: str) -> int:
    """The port of tcp://ADDRESS:PORT."""
    return int(endpoint.rpartition(":")[2])


def _wants_ipv6(address: str | None) -> bool:
    """Whether a socket that listens there, or only dials, shall know IPv6."""
    return speaks_ipv6() if address in (None, EVERYWHERE) else ":" in address


def speaks_ipv6() -> bool:
    """Whether this machine has IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return socket.has_ipv6
