"""One node's end of its exchanges: messages in, messages out, carried by whoever drives it.

It ties the machine (`core.node`) to the node's vectors and to the bytes of messages. The real run
and the simulator drive it alike: they hand it what arrived and the time, and give it `Ports` to
send, to pool buffers and to hear what happened. It knows no clock, thread or socket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from swarmsgd.core import events, messages
from swarmsgd.core.code import Allocate, Bytes, Mixed
from swarmsgd.core.messages import Draft, ExchangeId, Kind, Message
from swarmsgd.core.node import Node
from swarmsgd.core.traffic import Exchange, Traffic
from swarmsgd.errors import ProtocolError

PARTING_S = 0.5
"""How long a link whose peer broke the protocol stays open, so that the peer can be told why."""


class Vectors(Protocol):
    """The numbers of one node, as the exchange side sees them (section 2)."""

    def offer(self, seed: int, allocate: Allocate) -> Bytes:
        """Encode the published copy; what was offered is remembered for `mix`."""
        ...

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> tuple[Bytes, Mixed]:
        """Decode an offer, encode the reply, change copy and pending."""
        ...

    def mix(self, reply: Bytes) -> Mixed:
        """Decode the reply to what was offered, change copy and pending."""
        ...


class Ports(Protocol):
    """What a driver does for an endpoint."""

    def take(self, nbytes: int) -> Bytes:
        """A buffer of exactly `nbytes`."""
        ...

    def give(self, buffer: Bytes) -> None:
        """Take a buffer back."""
        ...

    def send(self, peer: int, message: Bytes) -> int:
        """Send or queue a message; its size in bytes, 0 if it cannot have left."""
        ...

    def drop(self, peer: int) -> None:
        """Close the link to `peer`."""
        ...

    def release(self) -> None:
        """No exchange of this node is waited for any more."""
        ...

    def note(self, what: str, peer: int, text: str) -> None:
        """Something a person should know."""
        ...

    def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
        """An exchange was mixed here."""
        ...


class Endpoint:
    """Carries events to `node` and its effects out.

    `run` is the fingerprint that every message must carry; `bits` says how vectors are coded. Times
    are seconds of the driver's clock, never going back.
    """

    __slots__ = (
        "_bits",
        "_inbox",
        "_left",
        "_owing",
        "_parting",
        "_ports",
        "_run",
        "_sent_at",
        "lost_peers",
        "node",
        "traffic",
        "vectors",
    )

    def __init__(
        self, node: Node, vectors: Vectors, ports: Ports, *, run: int, bits: int | None
    ) -> None:
        self.node = node
        self.vectors = vectors
        self.traffic = Traffic()
        self.lost_peers: dict[int, str] = {}
        self._ports = ports
        self._run = run
        self._bits = bits or 0
        self._inbox: dict[tuple[int, ExchangeId], tuple[Message, Bytes]] = {}
        self._sent_at: dict[ExchangeId, tuple[float, int]] = {}
        self._parting: dict[int, float] = {}
        self._owing: set[int] = set()
        self._left = False

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do at the latest, if it has."""
        due = self.node.deadline
        if not self._parting:
            return due
        return min([*self._parting.values(), math.inf if due is None else due])

    # What a driver says.

    def start(self, peer: int, now: float, round: int | None = None) -> None:
        """A burst ended and was published: begin an exchange with `peer`."""
        effects = self.node.handle(events.Start(peer, round), now)
        try:
            self._carry_out(effects, now)
        except ProtocolError as error:  # matching mode: an offer that had come in before
            self._distrust(peer, str(error), now)

    def received(self, peer: int, buffer: Bytes, now: float) -> None:
        """A message came in over the link to `peer`; the buffer goes back to the ports when it is
        done with.
        """
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(buffer)
        if self._left or peer in self._parting or peer not in self.node.membership.open:
            self._ports.give(buffer)  # after a goodbye nothing may be mixed
            return
        try:
            self._take_in(peer, buffer, now)
        except ProtocolError as error:
            self._distrust(peer, str(error), now)

    def lost(self, peer: int, reason: str, now: float) -> None:
        """The link to `peer` is closed."""
        if peer in self.node.membership.open:
            self.lost_peers[peer] = reason
            self._ports.note("lost", peer, reason)
            self._handle(events.Gone(peer), now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._handle(events.Tick(), now)
        for peer in [p for p, until in self._parting.items() if until <= now]:
            del self._parting[peer]
            self._ports.drop(peer)

    def announce_done(self, now: float) -> None:
        """Tell all peers that this node starts no more exchanges in this phase."""
        node = self.node
        self._carry_out(node.finish(), now)
        for peer in node.membership.open:
            self._tell(peer, Kind.DONE, ExchangeId(node.rank, node.incarnation, node.phase))

    def say_goodbye(self) -> None:
        """Tell all peers that this node leaves; what it still waits for is given up, and what comes
        in from now on is not looked at.
        """
        self._left = True
        self.node.give_up()
        for peer in self.node.membership.open:
            self._bye(peer)

    # What came in.

    def _take_in(self, peer: int, buffer: Bytes, now: float) -> None:
        try:
            message = self._read(peer, buffer)
        except ProtocolError:
            self._ports.give(buffer)
            raise
        exchange = message.exchange
        match message.kind:
            case Kind.OFFER | Kind.REPLY:
                self._inbox[peer, exchange] = (message, buffer)
                event = events.Offered if message.kind is Kind.OFFER else events.Replied
                try:
                    self._handle(event(peer, exchange), now)
                except ProtocolError:
                    self._forget(peer, exchange)
                    raise
                return
            case Kind.REFUSE:
                if message.sections and exchange == self.node.held:
                    self._ports.note("refused", peer, messages.text_of(message))
                self._handle(events.Refused(peer, exchange), now)
            case Kind.DONE:
                self._handle(events.Done(peer, exchange.counter), now)
            case Kind.BYE:
                why = messages.text_of(message)
                self._ports.note("distrusts" if why else "left", peer, why or "left the swarm")
                self._ports.drop(peer)
                self._handle(events.Gone(peer, left=True), now)
        self._ports.give(buffer)

    def _read(self, peer: int, buffer: Bytes) -> Message:
        message = messages.parse(buffer)
        if message.run != self._run or message.sender != peer:
            raise ProtocolError(
                f"message of node {message.sender}, run {message.run:016x}, came over the link "
                f"to node {peer} of run {self._run:016x}: a node of another run"
            )
        if message.kind in (Kind.OFFER, Kind.REPLY):
            self._check_sections(message)
            if (peer, message.exchange) in self._inbox:
                raise ProtocolError(f"node {peer} sent {message.exchange} twice")
        return message

    def _check_sections(self, message: Message) -> None:
        got = [(s.vector, s.bits) for s in message.sections]
        if got != [(0, self._bits)]:
            raise ProtocolError(
                f"message has sections {got}, this run exchanges [(0, {self._bits})] (vector, bits)"
            )

    def _distrust(self, peer: int, reason: str, now: float) -> None:
        """Tell the peer why, close its link shortly after; all other links go on."""
        self.traffic.distrusted += 1
        self.lost_peers[peer] = reason
        self._ports.note("distrusted", peer, reason)
        self._bye(peer, reason)
        self._parting[peer] = now + PARTING_S
        self._handle(events.Gone(peer), now)

    # Effects.

    def _handle(self, event: events.Event, now: float) -> None:
        self._carry_out(self.node.handle(event, now), now)

    def _carry_out(self, effects: Iterable[events.Effect], now: float) -> None:
        """All of them: a node is released even if a message cannot be mixed."""
        broken: ProtocolError | None = None
        for effect in effects:
            try:
                self._do(effect, now)
            except ProtocolError as error:
                broken = error
        if broken is not None:
            raise broken

    def _do(self, effect: events.Effect, now: float) -> None:
        match effect:
            case events.SendOffer(peer, exchange):
                self._send_offer(peer, exchange, now)
            case events.Answer(peer, exchange):
                self._answer(peer, exchange, now)
            case events.Mix(peer, exchange):
                self._mix(peer, exchange, now)
            case events.Refuse(peer, exchange, reason):
                self._forget(peer, exchange)
                self._tell(peer, Kind.REFUSE, exchange, reason)
            case events.Discard(peer, exchange):
                self._forget(peer, exchange)
            case events.Release():
                self._ports.release()

    def _send_offer(self, peer: int, exchange: ExchangeId, now: float) -> None:
        draft = Draft(1, self._ports.take)
        seed = messages.offset_seed(exchange, Kind.OFFER)
        self.vectors.offer(seed, draft.allocator(0, self._bits))
        nbytes = self._send(peer, self._finish(draft, Kind.OFFER, exchange))
        if not nbytes:
            self._handle(events.Unsent(peer, exchange), now)
        self._sent_at = {exchange: (now, nbytes)}

    def _answer(self, peer: int, exchange: ExchangeId, now: float) -> None:
        message, buffer = self._inbox.pop((peer, exchange))
        draft = Draft(1, self._ports.take)
        seed = messages.offset_seed(exchange, Kind.REPLY)
        try:
            _, mixed = self.vectors.answer(
                message.sections[0].payload, seed, draft.allocator(0, self._bits)
            )
        except ProtocolError:
            self.node.counts.answered -= 1
            raise
        finally:
            self._ports.give(buffer)
        nbytes = self._send(peer, self._finish(draft, Kind.REPLY, exchange))
        if nbytes:
            self._owing.discard(peer)  # who asks again waits for no earlier reply
        else:
            self._owing.add(peer)
        self.traffic.count(mixed)
        self._ports.mixed(
            Exchange("partner", peer, exchange.counter, now, nbytes, len(buffer)), mixed
        )

    def _mix(self, peer: int, exchange: ExchangeId, now: float) -> None:
        message, buffer = self._inbox.pop((peer, exchange))
        begun, nbytes = self._sent_at.pop(exchange, (now, 0))
        try:
            mixed = self.vectors.mix(message.sections[0].payload)
        except ProtocolError:
            self.node.counts.completed -= 1
            self.node.counts.lost += 1
            raise
        finally:
            self._ports.give(buffer)
        self.traffic.count(mixed)
        self._ports.mixed(
            Exchange("initiator", peer, exchange.counter, begun, nbytes, len(buffer)), mixed
        )

    # What goes out.

    def _finish(self, draft: Draft, kind: Kind, exchange: ExchangeId) -> Bytes:
        return draft.finish(
            kind,
            run=self._run,
            sender=self.node.rank,
            incarnation=self.node.incarnation,
            exchange=exchange,
        )

    def _send(self, peer: int, message: Bytes) -> int:
        nbytes = self._ports.send(peer, message)
        if nbytes:
            self.traffic.messages_sent += 1
            self.traffic.bytes_sent += nbytes
        return nbytes

    def _tell(self, peer: int, kind: Kind, exchange: ExchangeId, text: str = "") -> None:
        message = messages.control(
            kind,
            run=self._run,
            sender=self.node.rank,
            incarnation=self.node.incarnation,
            exchange=exchange,
            text=text,
        )
        self._send(peer, message)

    def _bye(self, peer: int, text: str = "") -> None:
        """A goodbye says that what was not answered was not mixed. Where that would be untrue,
        since a reply could not leave, the link is closed without one.
        """
        if peer in self._owing:
            self._ports.drop(peer)
        else:
            self._tell(peer, Kind.BYE, messages.NO_EXCHANGE, text)

    def _forget(self, peer: int, exchange: ExchangeId) -> None:
        kept = self._inbox.pop((peer, exchange), None)
        if kept is not None:
            self._ports.give(kept[1])
