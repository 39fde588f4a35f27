"""One node's end of its exchanges: messages in, messages out, carried by whoever drives it.

It ties the machine (`core.node`, or `core.matching`) to the node's vectors and to the bytes of
messages. The real run and the simulator drive it alike: they hand it what arrived and the time, and
give it `Ports` to send, to pool buffers and to hear what happened. It knows no clock, thread or
socket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from swarmsgd.core import events, healing, messages
from swarmsgd.core.healing import Want
from swarmsgd.core.matching import Machine
from swarmsgd.core.messages import Draft, ExchangeId, Kind, Message
from swarmsgd.core.progress import Progress, Total
from swarmsgd.core.replica import Replica
from swarmsgd.core.traffic import Exchange, Traffic
from swarmsgd.core.wire_code import Bytes, Mixed
from swarmsgd.errors import ProtocolError

PARTING_S = 0.5
"""How long a link whose peer broke the protocol stays open, so that the peer can be told why."""


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

    def others(self) -> Bytes | None:
        """Buffers and the like, for a node that arrives; None if they have to be laid out first,
        which `Endpoint.others_ready` is then told.
        """
        ...


_WITH_VECTORS = {Kind.OFFER: events.Offered, Kind.REPLY: events.Replied}


class Endpoint:
    """Carries events to `machine` and its effects out.

    `run` is the fingerprint that every message must carry. Times are seconds of the driver's clock,
    never going back.
    """

    __slots__ = (
        "_distrusted",
        "_inbox",
        "_left",
        "_owing",
        "_parting",
        "_ports",
        "_run",
        "_sections",
        "_sent_at",
        "_wants",
        "lost_peers",
        "machine",
        "progress",
        "replica",
        "traffic",
    )

    def __init__(self, machine: Machine, replica: Replica, ports: Ports, *, run: int) -> None:
        self.machine = machine
        self.replica = replica
        self.traffic = Traffic()
        self.lost_peers: dict[int, str] = {}
        self.progress = Progress(1 + len(machine.membership.open))
        self._ports = ports
        self._distrusted: dict[int, int] = {}
        """Peers that broke the protocol, and in which life."""
        self._wants: list[tuple[int, Want]] = []
        """What waits for `others`."""
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
        """A message came in over the link to `peer`; its buffer goes back to the ports later."""
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(buffer)
        if self._left or peer in self._parting:
            self._ports.give(buffer)  # after a goodbye nothing may be mixed
            return
        try:
            message = self._read(peer, buffer)
            if message.kind == Kind.WANT:
                self._serve(peer, healing.read_want(message))
                self._ports.give(buffer)
                return
            if peer not in self.machine.membership.open:
                self.opened(peer, message.incarnation)  # what it sends shows that it is live
            if peer not in self.machine.membership.open:  # it broke the protocol in this life
                self._ports.give(buffer)
                return
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

    def opened(self, peer: int, incarnation: int) -> None:
        """There is a link to `peer`, which is live, in this life of its."""
        membership = self.machine.membership
        if peer in membership.open or self._distrusted.get(peer, -1) >= incarnation:
            return
        membership.lives(peer, incarnation)
        membership.joined(peer)
        self._distrusted.pop(peer, None)
        if self.lost_peers.pop(peer, None) is not None:
            self._ports.note("back", peer, "there is a link to it again")

    def waits_for(self, peer: int) -> bool:
        """Whether an exchange with `peer` is under way that this node began."""
        held = self.machine.held
        return held is not None and peer == self.machine.asked

    def owes(self, peer: int) -> bool:
        """Whether a reply to `peer` could not leave: what a goodbye would say of it is untrue."""
        return peer in self._owing

    def others_ready(self) -> None:
        """`Ports.others` has them now."""
        wants, self._wants = self._wants, []
        for peer, want in wants:
            self._serve(peer, want)

    def lost(self, peer: int, reason: str, now: float) -> None:
        """The link to `peer` is closed."""
        if peer in self.machine.membership.open:
            self.lost_peers[peer] = reason
            self._ports.note("lost", peer, reason)
            self._handle(events.Gone(peer), now)

    def unlinked(self, peer: int, now: float) -> None:
        """One end closes the link to `peer` in order, since it wants it no more."""
        self._handle(events.Gone(peer, left=True), now)

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
        known = self.machine.membership.incarnation(peer)
        if message.incarnation < known:
            raise ProtocolError(
                f"message of life {message.incarnation} of node {peer}, which is in life {known}: "
                "what an earlier process sent, again"
            )
        self.machine.membership.lives(peer, message.incarnation)
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
        exchange, text = message.exchange, messages.text_of(message)
        match message.kind:
            case Kind.REFUSE:
                if text and exchange == self.machine.held:
                    self._ports.note("refused", peer, text)
                self._handle(events.Refused(peer, exchange), now)
            case Kind.DONE:
                self._handle(events.Done(peer, exchange.counter), now)
            case Kind.BYE:
                if text:
                    self.lost_peers[peer] = f"it distrusts this node: {text}"
                self._ports.note("distrusts" if text else "left", peer, text or "left the swarm")
                self._ports.drop(peer)
                self._handle(events.Gone(peer, left=True), now)
            case _:
                pass

    def _distrust(self, peer: int, reason: str, now: float) -> None:
        """Tell the peer why, close its link shortly after; all other links go on."""
        self.traffic.distrusted += 1
        self.lost_peers[peer] = reason
        self._distrusted[peer] = self.machine.membership.incarnation(peer)
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
        message = self._finish(draft, Kind.OFFER, exchange, self.progress.offered())
        nbytes = self._send(peer, message)
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
        progress = self.progress.answered(message.progress)
        nbytes = self._send(peer, self._finish(draft, Kind.REPLY, exchange, progress))
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
        self.progress.mixed(message.progress)
        self.traffic.count(mixed)
        self._ports.mixed(
            Exchange("initiator", peer, exchange.counter, begun, nbytes, len(buffer)), mixed
        )

    # What goes out.

    def _finish(self, draft: Draft, kind: Kind, exchange: ExchangeId, progress: Total) -> Bytes:
        machine = self.machine
        return draft.finish(kind, self._run, machine.rank, machine.incarnation, exchange, progress)

    def _serve(self, peer: int, want: Want) -> None:
        """Send a node that arrives a part of what this one has."""
        if want.vector == healing.OTHERS:
            others = self._ports.others()
            if others is None:
                self._wants.append((peer, want))
                return
            whole, data = len(others), others[want.start : want.start + want.nbytes]
        elif want.vector < len(self.replica.vectors):
            whole = self.replica.vectors[want.vector].copy.nbytes
            data = self.replica.part(want.vector, want.start, want.nbytes)
        else:
            raise ProtocolError(f"node {peer} asked for vector {want.vector}, which there is not")
        draft = Draft(1, self._ports.take)
        healing.write_part(draft, healing.Part(want.vector, want.start, whole, data))
        self._send(peer, self._finish(draft, Kind.PART, healing.ID, self.progress.now()))

    def _send(self, peer: int, message: Bytes) -> int:
        nbytes = self._ports.send(peer, message)
        if nbytes:
            self.traffic.messages_sent += 1
            self.traffic.bytes_sent += nbytes
        return nbytes

    def _tell(self, peer: int, kind: Kind, exchange: ExchangeId, text: str = "") -> None:
        sender = self._run, self.machine.rank, self.machine.incarnation
        self._send(peer, messages.control(kind, *sender, exchange, text))

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
