"""A node that arrives takes model, exchanged optimizer state and buffers from its neighbours."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from swarmsgd.core import healing, messages
from swarmsgd.core.healing import OTHERS, PART_BYTES, Want
from swarmsgd.core.messages import Draft, Kind
from swarmsgd.core.progress import Total
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import LinkClosed, PeerError, ProtocolError
from swarmsgd.transport.base import Arrived, Lost, Opened
from swarmsgd.transport.zmq import ZmqTransport

SILENT_S = 10.0
"""A neighbour that has answered nothing for so long is left for another."""
AHEAD = 4
"""Parts that are asked for before the first of them is there."""
_LOOK_S = 0.2

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
) -> Healed:
    """Fill `vectors` (as bytes), and `others` bytes more, from those that live. Raises PeerError.

    `members` tells who lives now. All parts come from one neighbour, unless it dies.
    """
    healer = _Healer(transport, run, incarnation, vectors, others)
    give_up = time.monotonic() + timeout_s
    while healer.missing:
        here = members()
        if not here:
            raise PeerError("the run ended before this node had a model of it")
        for peer in _in_turn(here, transport.rank):
            if healer.ask(peer, here[peer][1]):
                break
        else:
            if time.monotonic() > give_up:
                raise PeerError(
                    f"no node of the swarm gave this one its model within {timeout_s:.0f} s, tried "
                    f"{sorted(here)}: {healer.why}. Can this machine reach the addresses at which "
                    "they listen?"
                )
            time.sleep(_LOOK_S)
    return Healed(healer.others, healer.progress, healer.of)


def _in_turn(members: Members, rank: int) -> list[int]:
    """Newcomers that come at once begin with different ones."""
    ids = sorted(members)
    first = rank % len(ids)
    return ids[first:] + ids[:first]


class _Healer:
    def __init__(
        self,
        transport: ZmqTransport,
        run: int,
        incarnation: int,
        vectors: list[Bytes],
        others: int,
    ) -> None:
        self.others = np.empty(others, np.uint8)
        self.progress = Total()
        self.of: list[int] = []
        self.why = ""
        self._transport = transport
        self._run = run
        self._incarnation = incarnation
        self._into = dict(enumerate(vectors)) | {OTHERS: self.others}
        self.missing = deque(
            Want(vector, start, min(PART_BYTES, len(into) - start))
            for vector, into in self._into.items()
            for start in range(0, len(into), PART_BYTES)
        )

    def ask(self, peer: int, endpoint: str) -> bool:
        """Ask one neighbour for all that is missing; whether it is there then."""
        self._transport.dial(peer, endpoint)
        asked: deque[Want] = deque()
        heard = time.monotonic()
        is_open = peer in self._transport.peers
        try:
            while self.missing or asked:
                while is_open and self.missing and len(asked) < AHEAD:
                    asked.append(self.missing.popleft())
                    self._send(peer, asked[-1])
                event = self._transport.poll(_LOOK_S)
                if isinstance(event, Opened):
                    is_open |= event.peer == peer
                elif isinstance(event, Lost) and event.peer == peer:
                    raise LinkClosed(event.reason)
                elif (
                    isinstance(event, Arrived)
                    and event.peer == peer
                    and self._take_in(event.message, asked)
                ):
                    heard = time.monotonic()
                    if peer not in self.of:
                        self.of.append(peer)
                if time.monotonic() - heard > SILENT_S:
                    raise LinkClosed(f"it sent nothing for {SILENT_S:.0f} s")
        except (PeerError, ProtocolError) as error:
            self.missing.extendleft(reversed(asked))
            self.why = f"node {peer}: {error}"
            _log.warning("this node takes its model elsewhere: %s", self.why)
            self._transport.drop(peer)
            return False
        return True

    def _send(self, peer: int, want: Want) -> None:
        draft = Draft(1, self._transport.take)
        healing.write_want(draft, want)
        rank = self._transport.rank
        self._transport.send(
            peer, draft.finish(Kind.WANT, self._run, rank, self._incarnation, healing.ID)
        )

    def _take_in(self, buffer: Bytes, asked: deque[Want]) -> bool:
        try:
            message = messages.parse_message(buffer)
            if message.kind != Kind.PART or not asked:
                return False
            part, want = healing.read_part(message), asked[0]
            into = self._into[want.vector]
            if part[:2] != want[:2] or part.whole != len(into) or len(part.data) != want.nbytes:
                raise ProtocolError(
                    f"it sent bytes {part.start} of {part.whole} of vector {part.vector}, wanted "
                    f"{want.start} of {len(into)} of vector {want.vector}"
                )
            into[want.start : want.start + want.nbytes] = part.data
            asked.popleft()
            self.progress = Total(*map(max, self.progress, message.progress))
            return True
        finally:
            self._transport.give(buffer)
