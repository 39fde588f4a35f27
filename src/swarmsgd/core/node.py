"""One node's exchange machine: events in, effects out; time and choices are handed to it.

::

    idle ──BurstEnded──▶ waiting ──Replied, Refused, Unsent, Gone, Tick──▶ idle

An answer can be owed in either state: the partner of an exchange is never interrupted, it answers
at once. The one exception: of two offers that cross, i's to j and j's to i, the lower node declines
the other's. If both were mixed, each end would add half the distance twice, and the models would
change places.

One exchange is initiated at a time. An overdue one sets the node free but stays *held*: its reply
still counts until the next offer overwrites what was sent; then it is lost, and counted.

The machine never touches a vector or a byte. Whoever drives it keeps each incoming message under
its exchange id until an effect names what to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from swarmsgd.core.events import (
    Answer,
    BurstEnded,
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
    Spoiled,
    Tick,
    Unsent,
)
from swarmsgd.core.membership import Membership
from swarmsgd.core.messages import ExchangeId
from swarmsgd.errors import ProtocolError

CROSSED = ""
"""Why the lower of two nodes whose offers cross declines one: nothing that a person should know."""

Pick = Callable[[tuple[int, ...]], int | None]
"""Given who can be asked, the partner, or None: the one choice that the machine is handed."""


class Generator(Protocol):
    """What lengths are drawn with; numpy's."""

    def geometric(self, p: float) -> Any:
        """Number of the first success among trials that succeed with probability `p`; 1 or more."""
        ...


@dataclass(frozen=True, slots=True)
class Lengths:
    """H: how many local steps a burst has, fixed or geometric with this mean."""

    mean: int
    geometric: bool = False

    def __str__(self) -> str:
        return f"geometric:{self.mean}" if self.geometric else str(self.mean)

    def draw(self, rng: Generator) -> int:
        """The length of the next burst, in steps, at least 1."""
        return int(rng.geometric(1 / self.mean)) if self.geometric else self.mean


class Burst:
    """Counts the local steps of the burst that goes on.

    A burst that is `due` ends when its model is published, and goes on until it can be: H grows on
    a slow link.
    """

    __slots__ = ("_lengths", "_rng", "length", "made")

    def __init__(self, lengths: Lengths, rng: Generator) -> None:
        self._lengths = lengths
        self._rng = rng
        self.made = 0
        """Local steps made in it so far."""
        self.length = lengths.draw(rng)
        """Local steps after which it is due."""

    @property
    def due(self) -> bool:
        """Whether it may end now."""
        return self.made >= self.length

    def next(self) -> None:
        """This one was published: the next one begins."""
        self.made = 0
        self.length = self._lengths.draw(self._rng)


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
        "_peer",
        "_pick",
        "_started_at",
        "_stopped",
        "counts",
        "deadline",
        "held",
        "incarnation",
        "membership",
        "rank",
    )

    def __init__(
        self, rank: int, neighbours: Iterable[int], pick: Pick, *, incarnation: int = 0
    ) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.membership = Membership(neighbours)
        self.counts = Counts()
        self.deadline: float | None = None
        """When to send a Tick at the latest; None while the node waits for nobody."""
        self.held: ExchangeId | None = None
        """The exchange whose reply would still be mixed."""
        self._pick = pick
        self._counter = 0
        self._peer = -1
        self._started_at = 0.0
        self._answered: dict[int, tuple[int, int]] = {}
        self._stopped = False

    @property
    def asked(self) -> int:
        """The partner of the latest exchange that began here."""
        return self._peer

    def give_up(self) -> None:
        """The node leaves: no reply is waited for any more."""
        if self.held is not None:
            self.counts.lost += 1
            self.held = None

    def stop(self) -> list[Effect]:
        """Bursts that end from now on ask nobody."""
        self._stopped = True
        return []

    def go_on(self) -> None:
        """They ask again."""
        self._stopped = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, monotonic); return what to do, in order.

        Raises ProtocolError for an event no honest peer or correct driver causes; the state is then
        unchanged.
        """
        match event:
            case Offered(peer, exchange):
                return self._offered(peer, exchange)
            case Replied(peer, exchange):
                return self._replied(peer, exchange, now)
            case BurstEnded():
                return self._burst_ended(now)
            case Tick():
                return self._tick(now)
            case Unsent(peer, exchange):
                self.membership.overdue(peer, now)
                return self._not_mixed(peer, exchange)
            case Refused(peer, exchange):
                self.membership.heard(peer)
                return self._not_mixed(peer, exchange)
            case Gone(peer, left):
                return self._gone(peer, left)
            case Spoiled(exchange):
                self._spoiled(exchange)
            case Done():
                pass  # nobody waits for a peer's next offer: see `matching`
        return []

    def begin(
        self, peer: int, counter: int, now: float, least_patience_s: float = 0.0
    ) -> list[Effect]:
        """Offer to `peer`, as exchange number `counter`; only while idle."""
        if self.held is not None:
            self.counts.lost += 1
        self.counts.started += 1
        self._counter = counter
        self.held = ExchangeId(self.rank, self.incarnation, counter)
        self._peer = peer
        self._started_at = now
        self.deadline = now + max(self.membership.patience_s(peer), least_patience_s)
        return [SendOffer(peer, self.held)]

    def check_idle(self) -> None:
        """Raises ProtocolError while the node waits for a reply."""
        if self.deadline is not None:
            raise ProtocolError(
                f"a burst of node {self.rank} ended while it waits for a reply: "
                "one exchange is initiated at a time, wait for Release"
            )

    def heard_offer(self, peer: int, exchange: ExchangeId) -> None:
        """An offer came in. Raises ProtocolError if it is not the peer's own, or a repeated one."""
        if exchange.initiator != peer or exchange[1:] <= self._answered.get(peer, (-1, -1)):
            raise ProtocolError(
                f"node {peer} sent {exchange} as an offer: not its own, or repeated"
            )
        self.membership.heard(peer)

    def answer(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        """Answer an offer."""
        self._answered[peer] = exchange[1:]
        self.counts.answered += 1
        return [Answer(peer, exchange)]

    def _burst_ended(self, now: float) -> list[Effect]:
        self.check_idle()
        peer = None if self._stopped else self._pick(self.membership.candidates(now))
        if peer is None:
            self.counts.skipped += 1
            return [Release()]
        return self.begin(peer, self._counter + 1, now)

    def _offered(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        self.heard_offer(peer, exchange)
        if self.held is not None and peer == self._peer and self.rank < peer:
            # The peer offered before it had answered ours. Both mixed would swap the models.
            return [Refuse(peer, exchange, CROSSED)]
        return self.answer(peer, exchange)

    def _replied(self, peer: int, exchange: ExchangeId, now: float) -> list[Effect]:
        if exchange[:2] != (self.rank, self.incarnation) or exchange.counter > self._counter:
            raise ProtocolError(f"node {peer} replied to {exchange}, which was never offered")
        self.membership.heard(peer)
        if exchange != self.held or peer != self._peer:
            return [Discard(peer, exchange)]
        self.held = None
        self.membership.answered(peer, now - self._started_at)
        self.counts.completed += 1
        if self.deadline is None:
            self.counts.late += 1
            return [Mix(peer, exchange)]
        self.deadline = None
        return [Mix(peer, exchange), Release()]

    def _not_mixed(self, peer: int, exchange: ExchangeId) -> list[Effect]:
        if exchange != self.held or peer != self._peer:
            return []
        self.held = None
        self.counts.refused += 1
        return self._released()

    def _gone(self, peer: int, left: bool) -> list[Effect]:
        self.membership.lost(peer)
        if peer != self._peer:
            return []
        if self.held is not None:
            self.held = None
            if left:  # its replies came before its goodbye, so it has not mixed this one
                self.counts.refused += 1
            else:
                self.counts.lost += 1
        return self._released()

    def _spoiled(self, exchange: ExchangeId) -> None:
        if exchange.initiator == self.rank:
            self.counts.completed -= 1
            self.counts.lost += 1
        else:
            self.counts.answered -= 1

    def _tick(self, now: float) -> list[Effect]:
        if self.deadline is None or now < self.deadline:
            return []
        self.counts.overdue += 1
        self.membership.overdue(self._peer, now)
        return self._released()

    def _released(self) -> list[Effect]:
        if self.deadline is None:
            return []
        self.deadline = None
        return [Release()]
