"""One node's end of its exchanges: messages in, messages out, carried by whoever drives it.

It ties the machine (`core.node`, or `core.matching`) to the node's vectors and to the bytes of
messages. The real run and the simulator drive it alike: they hand it what arrived and the time, and
give it `Ports` to send, to pool buffers and to hear what happened. It knows no clock, thread or
socket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from swarmsgd.core import events, messages
from swarmsgd.core.matching import Machine
from swarmsgd.core.messages import Draft, ExchangeId, Kind, Message
from swarmsgd.core.replica import Replica
from swarmsgd.core.wire_code import Bytes, Mixed
from swarmsgd.errors import ProtocolError

RECENT = 1 / 8
"""The weight of the newest exchange in `Traffic.recent_sq`."""
PARTING_S = 0.5
"""How long a link whose peer broke the protocol stays open, so that the peer can be told why."""


class Exchange(NamedTuple):
    """One exchange as one of its ends saw it."""

    role: str
    """initiator or partner."""
    peer: int
    counter: int
    begun: float
    """When the offer was begun (initiator) or came in (partner), in the driver's time."""
    bytes_out: int
    bytes_in: int

    def fields(self, mixed: Mixed, now: float) -> dict[str, Any]:
        """The record of it, at its end."""
        return {
            "role": self.role,
            "peer": self.peer,
            "counter": self.counter,
            "seconds": now - self.begun,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "distance": math.sqrt(mixed.distance_sq),
            "left_out": mixed.left_out,
            "float32_blocks": mixed.float32_blocks,
            "cell": mixed.cell,
            "noise": math.sqrt(mixed.noise_sq),
        }


@dataclass(slots=True)
class Traffic:
    """What went over the wire, counted where it is sent and received."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    left_out_blocks: int = 0
    mixed_blocks: int = 0
    float32_blocks: int = 0
    """Blocks that came in as float32."""
    distance_sq: float = 0.0
    """Sum of ||Q_i - Q_j||^2 over the exchanges this node mixed, of the model."""
    noise_sq: float = 0.0
    """The part of it that the code's own error is expected to make up, of what came in."""
    recent_sq: float = 0.0
    """Running mean of the squared distance over the last exchanges, without the code's error."""
    mixes: int = 0
    distrusted: int = 0
    """Peers dropped because of what they sent."""

    def count(self, mixed: Mixed) -> None:
        """One more exchange was mixed."""
        self.mixes += 1
        self.distance_sq += mixed.distance_sq
        self.noise_sq += mixed.noise_sq
        true_sq = max(0.0, mixed.distance_sq - 2 * mixed.noise_sq)  # both ends were rounded
        self.recent_sq += max(1 / self.mixes, RECENT) * (true_sq - self.recent_sq)
        self.mixed_blocks += mixed.blocks - mixed.left_out
        self.left_out_blocks += mixed.left_out
        self.float32_blocks += mixed.float32_blocks


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


_WITH_VECTORS = {Kind.OFFER: events.Offered, Kind.REPLY: events.Replied}


class Endpoint:
    """Carries events to `machine` and its effects out.

    `run` is the fingerprint that every message must carry. Times are seconds of the driver's clock,
    never going back.
    """

    __slots__ = (
        "_inbox",
        "_left",
        "_owing",
        "_parting",
        "_ports",
        "_run",
        "_sections",
        "_sent_at",
        "lost_peers",
        "machine",
        "replica",
        "traffic",
    )

    def __init__(self, machine: Machine, replica: Replica, ports: Ports, *, run: int) -> None:
        self.machine = machine
        self.replica = replica
        self.traffic = Traffic()
        self.lost_peers: dict[int, str] = {}
        self._ports = ports
        self._run = run
        self._sections = tuple((i, v.bits) for i, v in enumerate(replica.vectors))
        self._inbox: dict[tuple[int, ExchangeId], tuple[Message, Bytes]] = {}
        self._sent_at: dict[ExchangeId, tuple[float, int]] = {}
        self._parting: dict[int, float] = {}
        self._owing: set[int] = set()
        self._left = False

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do at the latest, if it has."""
        due = self.machine.deadline
        if not self._parting:
            return due
        return min([*self._parting.values(), math.inf if due is None else due])

    # What a driver says.

    def burst_ended(self, now: float) -> None:
        """A burst ended and was published: begin an exchange with somebody."""
        self._carry_out(self.machine.handle(events.BurstEnded(), now), now)

    def received(self, peer: int, buffer: Bytes, now: float) -> None:
        """A message came in over the link to `peer`; the buffer goes back to the ports when it is
        done with.
        """
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(buffer)
        if self._left or peer in self._parting or peer not in self.machine.membership.open:
            self._ports.give(buffer)  # after a goodbye nothing may be mixed
            return
        try:
            message = self._read(peer, buffer)
            if message.kind > Kind.REPLY:
                self._told(peer, message, now)
                self._ports.give(buffer)
                return
            event = _WITH_VECTORS[message.kind](peer, message.exchange)
            effects = self.machine.handle(event, now)
        except ProtocolError as error:
            self._ports.give(buffer)
            self._distrust(peer, str(error), now)
            return
        self._inbox[peer, message.exchange] = (message, buffer)  # until an effect names it
        self._carry_out(effects, now)

    def lost(self, peer: int, reason: str, now: float) -> None:
        """The link to `peer` is closed."""
        if peer in self.machine.membership.open:
            self.lost_peers[peer] = reason
            self._ports.note("lost", peer, reason)
            self._handle(events.Gone(peer), now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.machine.deadline is not None:
            self._handle(events.Tick(), now)
        for peer in [p for p, until in self._parting.items() if until <= now]:
            del self._parting[peer]
            self._ports.drop(peer)

    def stop(self, now: float) -> None:
        """Start no more exchanges; tell who would wait for one."""
        self._carry_out(self.machine.stop(), now)

    def go_on(self) -> None:
        """Start exchanges again."""
        self.machine.go_on()

    def say_goodbye(self) -> None:
        """Tell all peers that this node leaves; what it still waits for is given up, and what comes
        in from now on is not looked at.
        """
        self._left = True
        self.machine.give_up()
        for peer in self.machine.membership.open:
            self._bye(peer)

    # What came in.

    def _read(self, peer: int, buffer: Bytes) -> Message:
        message = messages.parse_message(buffer)
        if message.run != self._run or message.sender != peer:
            raise ProtocolError(
                f"message of node {message.sender}, run {message.run:016x}, came over the link "
                f"to node {peer} of run {self._run:016x}: a node of another run"
            )
        if message.kind in (Kind.OFFER, Kind.REPLY):
            got = tuple([section[:2] for section in message.sections])
            if got != self._sections:
                raise ProtocolError(
                    f"message has sections {list(got)}, this run exchanges "
                    f"{list(self._sections)} (vector, bits)"
                )
            if (peer, message.exchange) in self._inbox:
                raise ProtocolError(f"node {peer} sent {message.exchange} twice")
        return message

    def _told(self, peer: int, message: Message, now: float) -> None:
        """A message without vectors."""
        exchange = message.exchange
        match message.kind:
            case Kind.REFUSE:
                if message.sections and exchange == self.machine.held:
                    self._ports.note("refused", peer, messages.text_of(message))
                self._handle(events.Refused(peer, exchange), now)
            case Kind.DONE:
                self._handle(events.Done(peer, exchange.counter), now)
            case Kind.BYE:
                why = messages.text_of(message)
                self._ports.note("distrusts" if why else "left", peer, why or "left the swarm")
                self._ports.drop(peer)
                self._handle(events.Gone(peer, left=True), now)
            case _:
                pass

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
        self._carry_out(self.machine.handle(event, now), now)

    def _carry_out(self, effects: Iterable[events.Effect], now: float) -> None:
        """All of them: a node is released even if a message cannot be mixed."""
        broken: list[tuple[int, ProtocolError]] = []
        for effect in effects:
            match effect:
                case events.Answer(peer, exchange) | events.Mix(peer, exchange):
                    try:
                        if isinstance(effect, events.Answer):
                            self._answer(peer, exchange, now)
                        else:
                            self._mix(peer, exchange, now)
                    except ProtocolError as error:
                        broken.append((peer, error))
                        self._handle(events.Spoiled(exchange), now)
                case events.Release():
                    self._ports.release()
                case events.SendOffer(peer, exchange):
                    self._send_offer(peer, exchange, now)
                case events.Refuse(peer, exchange, reason):
                    self._forget(peer, exchange)
                    self._tell(peer, Kind.REFUSE, exchange, reason)
                case events.Discard(peer, exchange):
                    self._forget(peer, exchange)
                case events.Announce(phase):
                    done = ExchangeId(self.machine.rank, self.machine.incarnation, phase)
                    for peer in self.machine.membership.open:
                        self._tell(peer, Kind.DONE, done)
        for peer, error in broken:
            self._distrust(peer, str(error), now)

    def _send_offer(self, peer: int, exchange: ExchangeId, now: float) -> None:
        draft = Draft(len(self._sections), self._ports.take)
        self.replica.offer(messages.offset_seed(exchange, Kind.OFFER), draft)
        nbytes = self._send(peer, self._finish(draft, Kind.OFFER, exchange))
        if not nbytes:
            self._handle(events.Unsent(peer, exchange), now)
        self._sent_at = {exchange: (now, nbytes)}

    def _answer(self, peer: int, exchange: ExchangeId, now: float) -> None:
        message, buffer = self._inbox.pop((peer, exchange))
        draft = Draft(len(self._sections), self._ports.take)
        seed = messages.offset_seed(exchange, Kind.REPLY)
        try:
            mixed = self.replica.answer(message.sections, seed, draft)
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
            mixed = self.replica.mix(message.sections)
        finally:
            self._ports.give(buffer)
        self.traffic.count(mixed)
        self._ports.mixed(
            Exchange("initiator", peer, exchange.counter, begun, nbytes, len(buffer)), mixed
        )

    # What goes out.

    def _finish(self, draft: Draft, kind: Kind, exchange: ExchangeId) -> Bytes:
        machine = self.machine
        return draft.finish(kind, self._run, machine.rank, machine.incarnation, exchange)

    def _send(self, peer: int, message: Bytes) -> int:
        nbytes = self._ports.send(peer, message)
        if nbytes:
            self.traffic.messages_sent += 1
            self.traffic.bytes_sent += nbytes
        return nbytes

    def _tell(self, peer: int, kind: Kind, exchange: ExchangeId, text: str = "") -> None:
        machine = self.machine
        self._send(
            peer,
            messages.control(kind, self._run, machine.rank, machine.incarnation, exchange, text),
        )

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
