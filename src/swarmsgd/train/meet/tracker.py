"""The meeting place of runs, as a thread of the launcher, of node 0, or of `swarmsgd store`.

It answers, it serves no training: who has joined goes on without it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections import deque

from swarmsgd.train.meet.register import Out, Register
from swarmsgd.train.meet.session import Client
from swarmsgd.transport import lifetime
from swarmsgd.transport.descriptors import close_connections
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import Full, NotConnected, Port, port_of

_log = logging.getLogger("swarmsgd")

KIND = b"T"
MESSAGE_BYTES = 1 << 28
"""Names and shapes of the parameters of a large model are a few megabytes."""
_TICK_S = 0.2
_TOLD_OF = 100
"""Strangers that are warned of: somebody may have addresses without end."""
HELD_S = 5.0
"""A tick that is so late means that this process was stopped, or its machine slept."""


class Tracker:
    """Listens at `address`:`port` (0: any) from when it is made until it is closed. With a `key`
    only who holds it too is heard. Raises ConfigError if it cannot listen there.
    """

    def __init__(
        self, address: str, port: int = 0, key: SwarmKey | None = None, *, refill_s: float = 0.0
    ) -> None:
        self._port = Port(
            address, port=port, message_bytes=MESSAGE_BYTES, queued_messages=10_000, key=key
        )
        self.port = port_of(self._port.endpoint)
        self.register = Register(
            lambda: secrets.token_hex(8), now=time.monotonic(), refill_s=refill_s
        )
        self.error: BaseException | None = None
        """What ended it, if not `close`."""
        self._fds: dict[int, bytes] = {}
        self._later: deque[Out] = deque()
        self._lock = threading.Lock()
        self.users = 0
        self._strangers: set[str] = set()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="swarmsgd-store", daemon=True)
        self._thread.start()
        lifetime.begins(self)

    @property
    def closed(self) -> bool:
        """Whether it hears nobody any more."""
        return self._closed

    def members_of(self, session: str) -> int:
        """How many nodes of this run are here now."""
        with self._lock:
            found = self.register.sessions.get(session)
            return len(found.members) if found else 0

    def live(self) -> dict[int, int]:
        """The nodes that live, of all runs, and their incarnations."""
        with self._lock:
            sessions = list(self.register.sessions.values())
            return {m.id: m.incarnation for session in sessions for m in session.live()}

    def awaits(self, session: str) -> bool:
        """Whether nodes of this run were never here."""
        with self._lock:
            found = self.register.sessions.get(session)
            return found is not None and found.awaits

    def release(self) -> None:
        """One that uses it does so no more; it closes when nobody does."""
        self.users -= 1
        if not self.users:
            self.close()

    def died(self, rank: int) -> None:
        """Tell all that the process of node `rank` has ended."""
        with self._lock:
            out = self.register.died(rank)
        self._later.append(out)
        self._port.wake()

    def close(self) -> None:
        """Hear nobody any more. May be called twice."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        self._port.wake()
        self._thread.join()
        self._port.close()
        lifetime.ends(self)

    def abandon(self) -> None:
        """In a forked child: the connections are the parent's."""
        close_connections(dict.fromkeys(self._fds, self.port))

    def _run(self) -> None:
        next_tick = time.monotonic()
        try:
            while not self._closed:
                self._port.wait(_TICK_S)
                while self._later:
                    self._send(self._later.popleft())
                self._hear()
                if (late_s := (now := time.monotonic()) - next_tick) >= 0:
                    next_tick = now + _TICK_S
                    with self._lock:
                        if late_s > HELD_S:
                            self.register.stood_still(late_s, now)
                        out = self.register.tick(now)
                    self._send(out)
        except BaseException as error:
            self.error = error
            self._port.close()  # so that all see it

    def _hear(self) -> None:
        while not self._closed:
            got = self._port.receive()
            self._see_ended()  # those that ended before this came: it may have one's descriptor
            if got is None:
                return
            try:
                if got.kind != KIND:
                    raise ValueError("of no kind that a node sends")
                message = json.loads(bytes(got.body))
                self._fds[got.fd] = got.id
                with self._lock:
                    out = self.register.said(got.id, message, time.monotonic())
            except Exception as error:  # whatever a stranger made up, the others go on
                _log.warning(
                    "the store hung up on somebody whose message makes no sense (%s: %s)",
                    type(error).__name__,
                    error,
                )
                self._port.hang_up(got.fd)
                continue
            self._send(out)

    def _see_ended(self) -> None:
        for fd, _, _, stranger in self._port.ended():
            known = stranger in self._strangers or len(self._strangers) >= _TOLD_OF
            if stranger is not None and not known:
                self._strangers.add(stranger)  # once each: it is an address
                _log.warning(
                    "%s who is no node of this swarm was refused at its store (port %d): %s",
                    stranger,
                    self.port,
                    self._port.wants,
                )
            client = self._fds.pop(fd, None)
            if client is not None:
                self._end(client)

    def _end(self, client: Client) -> None:
        with self._lock:
            out = self.register.ended(client, time.monotonic())
        self._send(out)

    def _send(self, out: Out) -> None:
        for client, message in out:
            try:
                self._port.send(client, KIND, json.dumps(message).encode())
            except NotConnected:
                self._end(client)
            except Full:
                pass  # it reads nothing, and is left out once it has been silent for long
