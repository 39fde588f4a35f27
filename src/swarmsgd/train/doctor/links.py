"""The way between two machines, over the transport of a real run: both ends of a conversation.

One end listens and answers. The other asks for its versions and its clock, sends bytes to it, has
bytes sent, and lets it dial back, as nodes of a run dial each other.
"""

from __future__ import annotations

import json
import secrets
import statistics
import time
from typing import Any, NamedTuple

import numpy as np

from swarmsgd.errors import PeerError
from swarmsgd.train.doctor.machine import own_version
from swarmsgd.transport.base import Arrived, LinkBackedUp, Lost
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.zmq import ZmqTransport

_RUN = "swarmsgd doctor"
LISTENER = 0
_WAIT_S = 20.0
PINGS = 20
_PIECE = 1 << 20
LEAST_S = 0.3
"""What is sent takes so long, or it is too little to tell."""
MOST_PIECES = 128


class LinkQuality(NamedTuple):
    """What was measured."""

    peer: str
    """Version of the other end."""
    round_trip_s: float
    there: float
    """Bytes a second, to the other end."""
    back: float
    clock_s: float
    """How far the other end's clock is ahead."""
    dialled_back: str
    """Why the other end could not dial this one; empty: it could."""


class End:
    """One end: a transport, and messages that are JSON or bulk."""

    def __init__(self, address: str, key: SwarmKey | None, number: int) -> None:
        self.transport = ZmqTransport(number, address=address, key=key)
        self.transport.run = _RUN

    def dial(self, peer: int, endpoint: str) -> str:
        """Open a link; why that did not work, empty if it did."""
        self.transport.dial(peer, endpoint)
        give_up = time.monotonic() + _WAIT_S
        while peer not in self.transport.peers:
            self.transport.poll(0.1)
            if (why := self.transport.refusal(peer)) is not None:
                return why
            if time.monotonic() > give_up:
                return f"{endpoint} did not answer within {_WAIT_S:.0f} s"
        return ""

    def say(self, peer: int, **fields: Any) -> None:
        """Send a short message."""
        self._send(peer, json.dumps(fields).encode())

    def pour(self, peer: int, pieces: int) -> None:
        """Send so many pieces of bulk."""
        piece = bytes(_PIECE)
        for _ in range(pieces):
            self._send(peer, piece)

    def _send(self, peer: int, data: bytes) -> None:
        message = self.transport.take(len(data))
        message[:] = np.frombuffer(data, np.uint8)
        while True:
            try:
                self.transport.send(peer, message)
                return
            except LinkBackedUp:
                self.transport.poll(0.01)

    def hear(self, peer: int | None = None) -> tuple[int, dict[str, Any] | None]:
        """Who said what next; None for bulk. Raises PeerError if `peer` is lost or says nothing."""
        give_up = time.monotonic() + _WAIT_S
        while True:
            event = self.transport.poll(0.5)
            if isinstance(event, Arrived):
                data = event.message.tobytes() if len(event.message) < _PIECE else None
                self.transport.give(event.message)
                return event.peer, None if data is None else json.loads(data)
            if peer is not None and isinstance(event, Lost) and event.peer == peer:
                raise PeerError(f"the link was lost: {event.reason}. Start both ends again")
            if peer is not None and time.monotonic() > give_up:
                raise PeerError(
                    f"the other end said nothing for {_WAIT_S:.0f} s. Is something on the way that "
                    "swallows large packets (the MTU of a tunnel)?"
                )


def listen(end: End) -> None:
    """Answer whoever dials, for ever."""
    while True:
        peer, message = end.hear()
        try:
            _answer(end, peer, message or {})
        except PeerError:
            continue  # it went; the next one may come


def _answer(end: End, peer: int, message: dict[str, Any]) -> None:
    match message.get("ask"):
        case "ping":
            end.say(peer, unix_s=time.time(), version=own_version())
        case "take":
            for _ in range(int(message["pieces"])):
                end.hear(peer)
            end.say(peer, taken=True)
        case "pour":
            end.pour(peer, min(MOST_PIECES, int(message["pieces"])))
        case "dial":
            back = int(message["number"])
            end.say(peer, why=end.dial(back, str(message["endpoint"])))
            end.transport.drop(back)
        case _:
            pass


def measure(end: End, endpoint: str, back: End) -> LinkQuality:
    """All that can be told of the way to the end that listens there. Raises PeerError."""
    if why := end.dial(LISTENER, endpoint):
        raise PeerError(f"no link: {why}. Is `swarmsgd doctor --listen` running there, with "
                        "the same --key or none, and the way open?")  # fmt: skip
    trips: list[tuple[float, float]] = []
    version = ""
    for _ in range(PINGS):
        unix_s, begin = time.time(), time.perf_counter()
        end.say(LISTENER, ask="ping")
        answer = end.hear(LISTENER)[1] or {}
        seconds = time.perf_counter() - begin
        trips.append((seconds, answer["unix_s"] - (unix_s + seconds / 2)))
        version = answer["version"]
    round_trip_s = statistics.median(seconds for seconds, _ in trips)
    return LinkQuality(
        version,
        round_trip_s,
        _rate(end, take=True),
        _rate(end, take=False),
        min(trips)[1],
        _dialled_back(end, back),
    )


def _rate(end: End, *, take: bool) -> float:
    pieces = 1
    while True:
        begin = time.perf_counter()
        end.say(LISTENER, ask="take" if take else "pour", pieces=pieces)
        if take:
            end.pour(LISTENER, pieces)
            end.hear(LISTENER)
        else:
            for _ in range(pieces):
                end.hear(LISTENER)
        seconds = time.perf_counter() - begin
        if seconds > LEAST_S or pieces >= MOST_PIECES:
            return pieces * _PIECE / seconds
        pieces = min(MOST_PIECES, pieces * 4)


def _dialled_back(end: End, back: End) -> str:
    end.say(LISTENER, ask="dial", number=back.transport.rank, endpoint=back.transport.endpoint)
    give_up = time.monotonic() + 2 * _WAIT_S
    while time.monotonic() < give_up:
        back.transport.poll(0.02)  # lets it in
        event = end.transport.poll(0.02)
        if isinstance(event, Arrived):
            return str(json.loads(event.message.tobytes())["why"])
    return "no word of whether it could"


def any_number() -> int:
    """A number for an end that dials: several may at once."""
    return 1 + secrets.randbelow(1 << 30)
