"""One node's exchange machine: events in, effects out, time an argument (section 2).

::

    IDLE ──Start──▶ OFFERED ──Replied──▶ IDLE        initiator
    IDLE ──Start──▶ EXPECTING ──Offered──▶ IDLE      matching mode, the higher node id of a pair

An answer can be owed in any state: the partner of an exchange is never interrupted, it answers at
once. Only of two offers that cross, i's to j and j's to i, the lower node declines the other's:
mixed both, each end would add half the distance twice, and the models would change places. One
exchange is initiated at a time. An overdue one goes back to IDLE but stays *held*: its
reply still counts until the next offer overwrites what was sent; then it is lost, and counted.

The machine never touches a vector or a byte. The driver keeps each incoming message under its
exchange id until an effect names what to do with it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from swarmsgd.core.events import (
    Answer,
    Discard,
    Done,
    Effect,
    Event,
    Gone,
    Mix,
    Offered,
    Refuse,
    Refused,
    Release,
    Replied,
    SendOffer,
    Start,
    Tick,
    Unsent,
)
from swarmsgd.core.membership import Membership
from swarmsgd.core.messages import ExchangeId
from swarmsgd.errors import ProtocolError

MATCHING_PATIENCE_S = 60.0
"""Matching mode exists to compare runs bit for bit: it waits for a slow peer rather than skip a
round.
"""

CROSSED = ""
"""Why the lower of two nodes whose offers cross declines one: nothing that a person should know."""

FINISHED = ""
"""Why a node that makes no more rounds declines the offer of one: nor is this."""


class State(enum.Enum):
    """What the node itself waits for."""

    IDLE = "idle"
    OFFERED = "offered"
    EXPECTING = "expecting"


@dataclass(slots=True)
class Counts:
    """What became of the exchanges, as this node saw it."""

    started: int = 0
    completed: int = 0
    """Started here and mixed here, late ones included."""
    answered: int = 0
    late: int = 0
    """Completed after patience had run out."""
    overdue: int = 0
    lost: int = 0
    """Started here; the partner may have mixed, this node never did: each may shift the sum
    once.
    """
    refused: int = 0
    skipped: int = 0
    """Rounds without a partner (matching mode), or bursts that found no peer to ask."""


class Node:
    """The machine of one node.

    `neighbours` are the node ids it has links to; `incarnation` grows each time the node is started
    again.
    """

    __slots__ = (
        "_answered",
        "_counter",
        "_deferred",
        "_done",
        "_finished",
        "_held",
        "_matching",
        "_peer",
        "_round",
        "_started_at",
        "counts",
        "deadline",
        "incarnation",
        "membership",
        "phase",
        "rank",
        "state",
    )

    def __init__(
        self, rank: int, neighbours: Iterable[int], *, incarnation: int = 0, matching: bool = False
    ) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.membership = Membership(neighbours)
        self.state = State.IDLE
        self.deadline: float | None = None
        """When to send a Tick at the latest; None while the node waits for nobody."""
        self.counts = Counts()
        self.phase = 0
        """Grows when all nodes have stopped together and go on: see `next_phase`."""
        self._matching = matching
        self._counter = 0
        self._peer = -1
        self._round = -1
        self._held: ExchangeId | None = None
        self._started_at = 0.0
        self._answered: dict[int, tuple[int, int]] = {}
        self._deferred: dict[int, ExchangeId] = {}
        self._done: dict[int, int] = {}
        self._finished = False

    @property
    def held(self) -> ExchangeId | None:
        """The exchange whose lattice point `sent` holds and whose reply would still be mixed."""
        return self._held

    def give_up(self) -> None:
        """The node leaves: no reply is waited for any more."""
        if self._held is not None:
            self.counts.lost += 1
            self._held = None

    def finish(self) -> list[Effect]:
        """This node starts no exchange any more in this phase. Offers that wait for rounds which it
        will not come to are refused: nobody shall wait for it.
        """
        self._finished = True
        waiting, self._deferred = self._deferred, {}
        return [Refuse(peer, exchange, FINISHED) for peer, exchange in waiting.items()]

    def next_phase(self) -> None:
        """All live nodes were Done, or this one was left out, and go on: a Done of the phase before
        says nothing any more.
        """
        self.phase += 1
        self._finished = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, monotonic); return what to do, in order.

        Raises ProtocolError for an event no honest peer or correct driver causes; the state is then
        unchanged.
        """
        match event:
            case Start(peer, round):
                return self._start(peer, round, now)
            case Unsent(peer, exchange):
                return self._unsent(peer, exchange, now)
            case Offered(peer, exchange):
                return self._offered(peer, exchange, now)
            case Replied(peer, exchange):
                return self._replied(peer, exchange, now)
            case Refused(peer, exchange):
                return self._refused(peer, exchange)
            case Gone(peer, left):
                return self._gone(peer, left)
            case Done(peer, phase):
                return self._peer_done(peer, phase)
            case Tick():
                return self._tick(now)

    def _start(self, peer: int, round: int | None, now: float) -> list[Effect]:
        if self.state is not State.IDLE:
            raise ProtocolError(
                f"node {self.rank} started an exchange while {self.state.value}: "
                "one exchange is initiated at a time, wait for Release"
            )
        if self._matching:
            if round is None or round <= self._round:
                raise ProtocolError(f"round {round} after round {self._round}: rounds only grow")
            self._round = round
            effects = self._refuse_overtaken()
            if peer not in self.membership.open:
                self.counts.skipped += 1
                return [*effects, Release()]
            if peer < self.rank:
                return [*effects, *self._expect(peer, now)]
            if self._is_done(peer):
                self.counts.skipped += 1
                return [*effects, Release()]
            self._counter = round
        else:
            effects = []
            self._counter += 1
        if self._held is not None:
            self.counts.lost += 1
        self.counts.started += 1
        self._held = ExchangeId(self.rank, self.incarnation, self._counter)
        self._wait(State.OFFERED, peer, now)
        return [*effects, SendOffer(peer, self._held)]

    def _refuse_overtaken(self) -> list[Effect]:
        """Offers for rounds that this node has skipped: nobody shall wait for them."""
        over = [(p, e) for p, e in self._deferred.items() if e.counter < self._round]
        for peer, _ in over:
            del self._deferred[peer]
        return [Refuse(peer, exchange, _overtaken(exchange)) for peer, exchange in over]

    def _expect(self, peer: int, now: float) -> list[Effect]:
        exchange = self._deferred.get(peer)
        round = self._round if exchange is None else exchange.counter
        if exchange is not None and round == self._round:
            del self._deferred[peer]
            return [*self._answer(peer, exchange), Release()]
        if round > self._round or self._is_done(peer):
            self.counts.skipped += 1  # the peer is past this round, or makes no more of them
            return [Release()]
        self._wait(State.EXPECTING, peer, now)
        return []

    def _wait(self, state: State, peer: int, now: float) -> None:
        patience_s = self.membership.patience_s(peer)
        if self._matching:
            patience_s = max(patience_s, MATCHING_PATIENCE_S)
        self.state = state
        self._peer = peer
        self._started_at = now
        self.deadline = now + patience_s

    def _idle(self) -> list[Effect]:
        self.state = State.IDLE
        self.deadline = None
        return [Release()]

    def _answer(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        self._answered[peer] = exchange[1:]
        self.counts.answered += 1
        return [Answer(peer, exchange)]

    def _offered(self, peer: int, exchange: ExchangeId, now: float) -> list[Effect]:
        if exchange.initiator != peer or exchange[1:] <= self._answered.get(peer, (-1, -1)):
            raise ProtocolError(
                f"node {peer} sent {exchange} as an offer: not its own, or repeated"
            )
        self.membership.heard(peer)
        if not self._matching:
            if self._held is not None and peer == self._peer and self.rank < peer:
                # The peer offered before it had answered ours. Both mixed would swap the models.
                return [Refuse(peer, exchange, CROSSED)]
            return self._answer(peer, exchange)
        if exchange.counter > self._round:
            if self._finished and not self._is_done(peer):  # else it is of the phase to come
                return [Refuse(peer, exchange, FINISHED)]
            before = self._deferred.get(peer)
            if before is not None and before.counter >= exchange.counter:
                raise ProtocolError(f"node {peer} offered {exchange} after {before}")
            self._deferred[peer] = exchange
            effects: list[Effect] = []
            if before is not None:
                effects.append(Refuse(peer, before, _overtaken(before)))
            if self.state is State.EXPECTING and peer == self._peer:
                self.counts.skipped += 1  # it is past this round
                effects += self._idle()
            return effects
        if self.state is State.EXPECTING and peer == self._peer and exchange.counter == self._round:
            self.membership.answered(peer, now - self._started_at)
            return [*self._answer(peer, exchange), *self._idle()]
        return [Refuse(peer, exchange, _overtaken(exchange))]

    def _replied(self, peer: int, exchange: ExchangeId, now: float) -> list[Effect]:
        if exchange[:2] != (self.rank, self.incarnation) or exchange.counter > self._counter:
            raise ProtocolError(f"node {peer} replied to {exchange}, which was never offered")
        self.membership.heard(peer)
        if exchange != self._held or peer != self._peer:
            return [Discard(peer, exchange)]
        self._held = None
        self.membership.answered(peer, now - self._started_at)
        self.counts.completed += 1
        if self.state is State.OFFERED:
            return [Mix(peer, exchange), *self._idle()]
        self.counts.late += 1
        return [Mix(peer, exchange)]

    def _unsent(self, peer: int, exchange: ExchangeId, now: float) -> list[Effect]:
        self.membership.overdue(peer, now)
        return self._not_mixed(peer, exchange)

    def _refused(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        self.membership.heard(peer)
        return self._not_mixed(peer, exchange)

    def _not_mixed(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        if exchange != self._held or peer != self._peer:
            return []
        self._held = None
        self.counts.refused += 1
        return self._idle() if self.state is State.OFFERED else []

    def _gone(self, peer: int, left: bool) -> list[Effect]:
        self.membership.lost(peer)
        effects: list[Effect] = []
        deferred = self._deferred.pop(peer, None)
        if deferred is not None:
            effects.append(Discard(peer, deferred))
        if self._held is not None and self._peer == peer:
            self._held = None
            if left:  # its replies came before its goodbye, so it has not mixed this one
                self.counts.refused += 1
            else:
                self.counts.lost += 1
        if self.state is not State.IDLE and self._peer == peer:
            effects += self._idle()
        return effects

    def _is_done(self, peer: int) -> bool:
        return self._done.get(peer, -1) >= self.phase

    def _peer_done(self, peer: int, phase: int) -> list[Effect]:
        self._done[peer] = phase
        if phase == self.phase and self.state is State.EXPECTING and self._peer == peer:
            self.counts.skipped += 1
            return self._idle()
        return []

    def _tick(self, now: float) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        self.counts.overdue += 1
        self.membership.overdue(self._peer, now)
        return self._idle()


def _overtaken(exchange: ExchangeId) -> str:
    return f"round {exchange.counter} is over here"
