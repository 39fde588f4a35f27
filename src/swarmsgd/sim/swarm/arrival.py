"""A node that joins in virtual time: it asks a live neighbour for all that it needs, by messages.

What it asks for and takes in is `core.healing`, as in a real run; here is who is asked, over the
virtual network, which charges each byte. Until it has all it answers nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swarmsgd.core import messages
from swarmsgd.core.healing import GIVER_SILENT_S, Healing, in_turn, message_of
from swarmsgd.core.traffic import Traffic
from swarmsgd.core.wire_code import Bytes, Vector
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.network import Network


class InSchedule(NamedTuple):
    """Where a node is in its schedule, which a real node works out from the swarm's progress."""

    steps: int
    round: int
    """Of matching mode; else 0."""


_PLACE_BYTES = 16


def others_of(buffers: Vector, place: InSchedule) -> Bytes:
    """The block OTHERS of a virtual node."""
    return np.concatenate([np.array(place, "<i8").view(np.uint8), buffers.view(np.uint8)])


@dataclass(frozen=True, slots=True)
class Ways:
    """What all arrivals of a run share."""

    agenda: Agenda
    network: Network
    run: int
    neighbours: Callable[[int], list[int]]
    """Of a node's neighbours those that live now and have a model."""
    healed: Callable[[Arrival], None]
    """Called when all is there, or nobody lives that could be asked."""


class Arrival:
    """One newcomer, from its start until it is healed."""

    def __init__(
        self, rank: int, incarnation: int, ways: Ways, *, vectors: int, dim: int, buffers: int
    ) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.traffic = Traffic()
        self.vectors = [np.zeros(dim, np.float32) for _ in range(vectors)]
        """Of the run: the model and what else is exchanged."""
        self._others = np.zeros(_PLACE_BYTES + 4 * buffers, np.uint8)
        self.healing = Healing([v.view(np.uint8) for v in self.vectors], self._others)
        self._ways = ways
        self.asked = -1
        """The neighbour that is asked now."""
        self._turn = 0
        self._heard = 0.0
        self._over = False

    @property
    def place(self) -> InSchedule:
        """That of the neighbour which gave it."""
        return InSchedule(*(int(n) for n in self._others[:_PLACE_BYTES].view("<i8")))

    @property
    def buffers(self) -> Vector:
        """That neighbour's."""
        return self._others[_PLACE_BYTES:].view(np.float32)

    @property
    def of(self) -> list[int]:
        """Whose parts it has; nobody's if no neighbour lived."""
        return self.healing.of if self.healing.done else []

    def begin(self) -> None:
        """Ask somebody."""
        neighbours = in_turn(self._ways.neighbours(self.rank), self.rank)
        if not neighbours:
            self._over = True
            self._ways.healed(self)
            return
        self.asked = neighbours[self._turn % len(neighbours)]
        self._turn += 1
        self._heard = self._ways.agenda.now
        self._send_wants()
        self._ways.agenda.at(self._heard + GIVER_SILENT_S, self._look, self._turn)

    def stop(self) -> None:
        """It died, or the run is over."""
        self._over = True

    def received(self, peer: int, message: Bytes) -> None:
        """Whatever else than a part comes in is not looked at."""
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(message)
        if self._over or peer != self.asked:
            return
        if not self.healing.take_in(peer, messages.parse_message(message)):
            return
        self._heard = self._ways.agenda.now
        if self.healing.done:
            self._over = True
            self._ways.healed(self)
        else:
            self._send_wants()

    def lost(self, peer: int) -> None:
        """The link to `peer` broke."""
        if not self._over and peer == self.asked:
            self.healing.leave()
            self.begin()

    def _send_wants(self) -> None:
        for want in self.healing.wants():
            message = message_of(want, _buffer, self._ways.run, self.rank, self.incarnation)
            self._ways.network.send(self.rank, self.asked, message)
            self.traffic.messages_sent += 1
            self.traffic.bytes_sent += len(message)

    def _look(self, turn: int) -> None:
        """The neighbour of this turn may have been silent for too long."""
        if self._over or turn != self._turn:
            return
        if self._heard + GIVER_SILENT_S > self._ways.agenda.now:
            self._ways.agenda.at(self._heard + GIVER_SILENT_S, self._look, turn)
            return
        self._ways.network.close(self.rank, self.asked)
        self.lost(self.asked)


def _buffer(nbytes: int) -> Bytes:
    return np.empty(nbytes, np.uint8)
