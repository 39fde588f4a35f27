"""Matching mode: all nodes of a round are paired by a schedule that each of them draws alike.

::

    lower id of a pair    as in `core.node`: it offers, and waits for the reply
    higher id             expecting ──Offered, Gone, Done, Tick──▶ idle

Runs are then equal bit for bit, whatever takes how long: nobody answers before its own burst has
ended, and everybody waits. A *phase* lies between two moments at which all nodes stop together, for
a mean; in each the rounds begin with the same number on all nodes, however many of them a node made
in the phase before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarmsgd.core.events import (
    Announce,
    BurstEnded,
    Discard,
    Done,
    Effect,
    Event,
    Gone,
    Offered,
    Refuse,
    Release,
    Tick,
)
from swarmsgd.core.messages import ExchangeId
from swarmsgd.core.node import Node
from swarmsgd.errors import ProtocolError

ROUND_PATIENCE_S = 60.0
"""Matching mode exists to compare runs bit for bit: it waits for a slow peer rather than skip a
round.
"""

FINISHED = ""
"""Why a node that makes no more rounds declines the offer of one: nothing a person should know."""

_PHASE = 1 << 32
"""Rounds that a phase has room for."""

Schedule = Callable[[int], int | None]
"""Given the number of a round, the partner in it, or None."""


class Matching:
    """The machine of one node in matching mode: rounds around a `Node`, which it hands the rest."""

    __slots__ = (
        "_deferred",
        "_done",
        "_expected",
        "_expected_since",
        "_expected_until",
        "_finished",
        "_partner_of",
        "_phase",
        "_round",
        "counts",
        "incarnation",
        "membership",
        "next_round",
        "node",
        "rank",
    )

    def __init__(
        self, rank: int, neighbours: Iterable[int], partner_of: Schedule, *, incarnation: int = 0
    ) -> None:
        self.node = Node(rank, neighbours, _nobody, incarnation=incarnation)
        self.rank = rank
        self.incarnation = incarnation
        self.membership = self.node.membership
        self.counts = self.node.counts
        self.next_round = 0
        """Number of the round that the end of this burst begins."""
        self._partner_of = partner_of
        self._round = -1
        self._expected: int | None = None
        """Whose offer is waited for."""
        self._expected_since = 0.0
        self._expected_until = 0.0
        self._deferred: dict[int, ExchangeId] = {}
        """Offers of rounds that this node has not come to."""
        self._done: dict[int, int] = {}
        self._phase = 0
        self._finished = False

    def begin_at(self, round: int) -> None:
        """Before the first event: go on as a node that had come so far."""
        self.next_round = round
        self._round = round - 1
        self._phase = round // _PHASE

    @property
    def deadline(self) -> float | None:
        """When to send a Tick at the latest; None while the node waits for nobody."""
        return self.node.deadline if self._expected is None else self._expected_until

    @property
    def held(self) -> ExchangeId | None:
        """The exchange whose reply would still be mixed."""
        return self.node.held

    @property
    def asked(self) -> int:
        """The partner of the latest exchange that began here."""
        return self.node.asked

    def give_up(self) -> None:
        """The node leaves: no reply is waited for any more."""
        self.node.give_up()

    def stop(self) -> list[Effect]:
        """This node makes no more rounds in this phase. Offers that wait for rounds which it will
        not come to are refused: nobody shall wait for it.
        """
        self._finished = True
        waiting, self._deferred = self._deferred, {}
        effects: list[Effect] = [Refuse(p, e, FINISHED) for p, e in waiting.items()]
        return [*effects, Announce(self._phase)]

    def go_on(self) -> None:
        """The next phase begins: all live nodes have stopped, or this one was left out. A Done of
        the phase before says nothing any more.
        """
        self._phase += 1
        self._finished = False
        self.next_round = self._phase * _PHASE

    def handle(self, event: Event, now: float) -> list[Effect]:
        """As `Node.handle`."""
        match event:
            case BurstEnded():
                return self._round_begins(now)
            case Offered(peer, exchange):
                return self._offered(peer, exchange, now)
            case Gone(peer):
                return self._gone(event, now)
            case Done(peer, phase):
                self._done[peer] = phase
                return self._not_expected(peer) if phase == self._phase else []
            case Tick() if self._expected is not None:
                return self._tick(self._expected, now)
            case _:
                return self.node.handle(event, now)

    def _round_begins(self, now: float) -> list[Effect]:
        if self._expected is not None:
            raise ProtocolError(f"node {self.rank} began a round while it waits for an offer")
        self.node.check_idle()
        round = self._round = self.next_round
        self.next_round += 1
        peer = None if self._finished else self._partner_of(round)
        effects = self._refuse_overtaken()
        if peer is None or peer not in self.membership.open:
            return [*effects, *self._skip()]
        if peer < self.rank:
            return [*effects, *self._expect(peer, now)]
        if self._is_done(peer):
            return [*effects, *self._skip()]
        return [*effects, *self.node.begin(peer, round, now, ROUND_PATIENCE_S)]

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
            return [*self.node.answer(peer, exchange), Release()]
        if round > self._round or self._is_done(peer):
            return self._skip()  # the peer is past this round, or makes no more of them
        self._expected = peer
        self._expected_since = now
        self._expected_until = now + max(self.membership.patience_s(peer), ROUND_PATIENCE_S)
        return []

    def _offered(self, peer: int, exchange: ExchangeId, now: float) -> list[Effect]:
        self.node.heard_offer(peer, exchange)
        if exchange.counter > self._round:
            return self._early(peer, exchange)
        if peer == self._expected and exchange.counter == self._round:
            self.membership.answered(peer, now - self._expected_since)
            self._expected = None
            return [*self.node.answer(peer, exchange), Release()]
        return [Refuse(peer, exchange, _overtaken(exchange))]

    def _early(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        """An offer of a round to come waits for it."""
        if self._finished and not self._is_done(peer):  # else it is of the phase to come
            return [Refuse(peer, exchange, FINISHED)]
        before = self._deferred.get(peer)
        if before is not None and before.counter >= exchange.counter:
            raise ProtocolError(f"node {peer} offered {exchange} after {before}")
        self._deferred[peer] = exchange
        effects: list[Effect] = []
        if before is not None:
            effects.append(Refuse(peer, before, _overtaken(before)))
        return [*effects, *self._not_expected(peer)]  # it is past the round that waits for it

    def _gone(self, event: Gone, now: float) -> list[Effect]:
        effects: list[Effect] = []
        deferred = self._deferred.pop(event.peer, None)
        if deferred is not None:
            effects.append(Discard(event.peer, deferred))
        effects += self.node.handle(event, now)
        if event.peer == self._expected:
            self._expected = None
            effects.append(Release())
        return effects

    def _tick(self, expected: int, now: float) -> list[Effect]:
        if now < self._expected_until:
            return []
        self.counts.overdue += 1
        self.membership.overdue(expected, now)
        self._expected = None
        return [Release()]

    def _is_done(self, peer: int) -> bool:
        return self._done.get(peer, -1) >= self._phase

    def _not_expected(self, peer: int) -> list[Effect]:
        """`peer` makes no offer of this round any more."""
        if peer != self._expected:
            return []
        self._expected = None
        return self._skip()

    def _skip(self) -> list[Effect]:
        self.counts.skipped += 1
        return [Release()]


def _nobody(_candidates: tuple[int, ...]) -> None:
    return None


def _overtaken(exchange: ExchangeId) -> str:
    return f"round {exchange.counter} is over here"


Machine = Node | Matching
"""What decides for a node."""
