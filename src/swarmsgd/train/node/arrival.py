"""A node that arrives takes model, exchanged optimizer state and buffers from its neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from swarmsgd.core import messages
from swarmsgd.core.healing import GIVER_SILENT_S, Healing, in_turn, message_of
from swarmsgd.core.progress import Total
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ConfigError, LinkClosed, PeerError, ProtocolError
from swarmsgd.transport.base import Arrived, Lost, Opened
from swarmsgd.transport.zmq import ZmqTransport

_LOOK_S = 0.2
_CALL_AGAIN_S = 5.0

_log = logging.getLogger("swarmsgd")

Members = Mapping[int, tuple[int, str]]


class Healed(NamedTuple):
    """What a newcomer got."""

    others: Bytes
    progress: Total
    of: list[int]
    """Whose parts they are."""


def heal(
    transport: ZmqTransport,
    members: Callable[[], Members],
    vectors: list[Bytes],
    others: int,
    *,
    run: int,
    incarnation: int,
    timeout_s: float,
    call: Callable[[], None],
) -> Healed:
    """Fill `vectors` (as bytes), and `others` bytes more, from those that live. Raises PeerError.

    `members` tells who lives now. All parts come from one neighbour, unless it dies. Where nobody
    lives who could be dialled `call` asks them to dial this node.
    """
    rest = np.empty(others, np.uint8)
    healing = Healing(vectors, rest)
    healer = _Healer(transport, run, incarnation, healing)
    give_up, call_at = time.monotonic() + timeout_s, 0.0
    while not healing.done:
        here = members()
        if not here:
            raise PeerError("the run ended before this node had a model of it")
        near = [p for p, (_, endpoint) in here.items() if endpoint or p in transport.peers]
        if not near and transport.endpoint and time.monotonic() > call_at:
            call_at = time.monotonic() + _CALL_AGAIN_S
            call()
        for peer in in_turn(near, transport.rank):
            if healer.ask(peer, here[peer][1]):
                break
        else:
            if time.monotonic() > give_up:
                raise PeerError(
                    f"no node of the swarm gave this one its model within {timeout_s:.0f} s, tried "
                    f"{sorted(here)}: {healer.why}. Can this machine reach the addresses at which "
                    "they listen?"
                )
            transport.poll(_LOOK_S)
    return Healed(rest, healing.progress, healing.of)


class _Healer:
    """Asks over real links for what `healing` lacks."""

    def __init__(
        self, transport: ZmqTransport, run: int, incarnation: int, healing: Healing
    ) -> None:
        self.why = "none of them listens, so that none can be dialled"
        self._transport = transport
        self._run = run
        self._incarnation = incarnation
        self._healing = healing

    def ask(self, peer: int, endpoint: str) -> bool:
        """Ask one neighbour for all that is missing; whether it is there then."""
        heard = time.monotonic()
        try:
            self._transport.dial(peer, endpoint)
            is_open = peer in self._transport.peers
            while not self._healing.done:
                if is_open:
                    self._send_wants(peer)
                event = self._transport.poll(_LOOK_S)
                if isinstance(event, Opened):
                    is_open |= event.peer == peer
                elif isinstance(event, Lost) and event.peer == peer:
                    raise LinkClosed(event.reason)
                elif (
                    isinstance(event, Arrived)
                    and event.peer == peer
                    and self._take_in(peer, event.message)
                ):
                    heard = time.monotonic()
                if time.monotonic() - heard > GIVER_SILENT_S:
                    raise LinkClosed(f"it sent nothing for {GIVER_SILENT_S:.0f} s")
        except (PeerError, ProtocolError, ConfigError) as error:  # a hidden one cannot be dialled
            self._healing.leave()
            self.why = f"node {peer}: {error}"
            _log.warning("this node takes its model elsewhere: %s", self.why)
            self._transport.drop(peer)
            return False
        return True

    def _send_wants(self, peer: int) -> None:
        transport = self._transport
        for want in self._healing.wants():
            transport.send(
                peer,
                message_of(want, transport.take, self._run, transport.rank, self._incarnation),
            )

    def _take_in(self, peer: int, buffer: Bytes) -> bool:
        try:
            return self._healing.take_in(peer, messages.parse_message(buffer))
        finally:
            self._transport.give(buffer)
