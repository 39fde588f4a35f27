"""The exchange side of one node: one thread that carries events to the machine and its effects out.

The training thread talks to it through two things that never block: the flag `ready` and an event
queue. A transport's reader threads put messages on the same queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from swarmsgd.core import messages
from swarmsgd.core import node as machine
from swarmsgd.core.code import Bytes, Mixed
from swarmsgd.core.messages import Draft, ExchangeId, Kind, Message
from swarmsgd.errors import LinkClosed, ProtocolError
from swarmsgd.observe.records import Recorder
from swarmsgd.train.replica import Replica
from swarmsgd.transport.base import LinkBackedUp, Transport

log = logging.getLogger("swarmsgd")

UNREAD_MESSAGES = 4
"""Messages of one peer that may wait here; beyond, its link is not read until one was handled."""
PARTING_S = 0.5
"""How long a link whose peer broke the protocol stays open, so that the peer can be told why."""

Pick = Callable[[int, tuple[int, ...]], int | None]
"""Given the number of the burst and who can be asked, the partner to ask, or None."""


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
    """Sum of ||Q_i - Q_j||^2 over the exchanges this node mixed."""
    noise_sq: float = 0.0
    """The part of it that the code's own error is expected to make up, of what came in."""
    mixes: int = 0
    distrusted: int = 0
    """Peers dropped because of what they sent."""
    busy_s: float = 0.0
    """Time this thread spent on events."""


class Worker:
    """Runs `node` over `transport`, with the numbers in `replica`.

    `run` is the fingerprint that every message must carry. `pick` chooses partners. The thread
    starts with `start()` and ends with `close()`; an error in it is kept in `error` and ends it.
    """

    def __init__(
        self,
        node: machine.Node,
        replica: Replica,
        transport: Transport,
        *,
        run: int,
        pick: Pick,
        recorder: Recorder,
        bits: int | None = None,
        rounds: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.replica = replica
        self.transport = transport
        self.traffic = Traffic()
        self.error: BaseException | None = None
        self.released = threading.Event()
        self.released.set()
        self.lost_peers: dict[int, str] = {}
        self._run_id = run
        self._pick = pick
        self._recorder = recorder
        self._bits = bits or 0
        self._rounds = rounds
        self._clock = clock
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._unread = {peer: threading.Semaphore(UNREAD_MESSAGES) for peer in node.membership.open}
        self._inbox: dict[ExchangeId, tuple[Message, Bytes]] = {}
        self._sent_at: dict[ExchangeId, tuple[float, int]] = {}
        self._parting: dict[int, float] = {}
        self._bursts = 0
        self._paused = False
        self._closing = False
        self._thread = threading.Thread(target=self._loop, name="swarmsgd-exchange", daemon=True)

    # Called by the training thread.

    def start(self) -> None:
        """Begin to answer and to exchange, on a thread of its own."""
        self._thread.start()
        self.attach()

    def attach(self) -> None:
        """Take messages of the transport; `start` does this too."""
        self.transport.start(self._on_message, self._on_lost)

    @property
    def ready(self) -> bool:
        """Whether a burst may end now: no exchange of this node is waited for."""
        return self.released.is_set()

    def burst_ended(self) -> None:
        """The copy was published: ask somebody. Returns at once."""
        self.released.clear()
        self._queue.put(self._burst)

    def wait_released(self) -> None:
        """Return when no exchange of this node is waited for, or the thread has ended."""
        while not self.released.wait(0.2):
            if not self._thread.is_alive():
                return

    def pause(self) -> None:
        """Start no more exchanges, tell the peers; wait until none of ours is waited for."""
        self._queue.put(self._announce_done)
        self.wait_released()

    def resume(self) -> None:
        """Start exchanges again."""
        self._queue.put(self._start_again)

    def close(self, drain_s: float = 5.0) -> None:
        """Finish or give up what is in flight, say goodbye, end the thread and the transport."""
        if self._closing:
            return
        if self._thread.is_alive():
            self.pause()
            self._queue.put(self._say_goodbye)
            self._closing = True
            self._queue.put(None)
            self._thread.join()
        self._closing = True
        for semaphore in self._unread.values():
            semaphore.release(1 << 16)
        self.transport.close(drain_s)

    # Called by the transport's threads.

    def _on_message(self, peer: int, buffer: Bytes) -> None:
        self._unread[peer].acquire()
        self._queue.put(lambda: self._arrived(peer, buffer))

    def _on_lost(self, peer: int, reason: str) -> None:
        self._queue.put(lambda: self._lost(peer, reason))

    # The thread.

    def _loop(self) -> None:
        try:
            while True:
                try:
                    job = self._queue.get(timeout=self._wait_s())
                except queue.Empty:
                    job = self._tick
                if job is None:
                    return
                self._do(job)
        except BaseException as error:  # handed to the training thread, which raises it
            self.error = error
        finally:
            self.released.set()

    def _do(self, job: Callable[[], None]) -> None:
        begin = time.perf_counter()
        job()
        self._tick()
        self.traffic.busy_s += time.perf_counter() - begin

    def pump(self) -> None:
        """Do what is queued, on the caller's thread: for a driver that steps a worker not
        started.
        """
        self._do(self._tick)
        while not self._queue.empty():
            job = self._queue.get()
            if job is not None:
                self._do(job)

    def _wait_s(self) -> float | None:
        times = [*self._parting.values()]
        if self.node.deadline is not None:
            times.append(self.node.deadline)
        return max(0.0, min(times) - self._clock()) if times else None

    def _tick(self) -> None:
        now = self._clock()
        self._handle(machine.Tick())
        for peer in [p for p, until in self._parting.items() if until <= now]:
            del self._parting[peer]
            self.transport.drop(peer)

    def _handle(self, event: machine.Event) -> None:
        self._carry_out(self.node.handle(event, self._clock()))

    def _carry_out(self, effects: Iterable[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.SendOffer(peer, exchange):
                    self._send_offer(peer, exchange)
                case machine.Answer(peer, exchange):
                    self._answer(peer, exchange)
                case machine.Mix(peer, exchange):
                    self._mix(peer, exchange)
                case machine.Refuse(peer, exchange, reason):
                    self._forget(exchange)
                    self._tell(peer, Kind.REFUSE, exchange, reason)
                case machine.Discard(_, exchange):
                    self._forget(exchange)
                case machine.Release():
                    self.released.set()

    # Jobs.

    def _burst(self) -> None:
        number = self._bursts
        self._bursts += 1
        candidates = self.node.membership.candidates(self._clock())
        peer = None if self._paused else self._pick(number, candidates)
        if peer is None:
            self.node.counts.skipped += 1
            self.released.set()
            return
        self._handle(machine.Start(peer, number if self._rounds else None))

    def _announce_done(self) -> None:
        self._paused = True
        phase = ExchangeId(self.node.rank, self.node.incarnation, self.node.phase)
        self._tell_all(Kind.DONE, phase)

    def _start_again(self) -> None:
        self._paused = False
        self.node.next_phase()

    def _say_goodbye(self) -> None:
        self._tell_all(Kind.BYE, messages.NO_EXCHANGE)

    def _arrived(self, peer: int, buffer: Bytes) -> None:
        self._unread[peer].release()
        self.traffic.messages_received += 1
        self.traffic.bytes_received += len(buffer)
        if peer in self._parting or peer not in self.node.membership.open:
            self.transport.give(buffer)
            return
        try:
            self._take_in(peer, buffer)
        except ProtocolError as error:
            self._distrust(peer, str(error))

    def _take_in(self, peer: int, buffer: Bytes) -> None:
        message = messages.parse(buffer)
        if message.run != self._run_id or message.sender != peer:
            raise ProtocolError(
                f"message of node {message.sender}, run {message.run:016x}, came over the link "
                f"to node "
                f"{peer} of run {self._run_id:016x}: a node of another run"
            )
        exchange = message.exchange
        match message.kind:
            case Kind.OFFER | Kind.REPLY:
                self._check_sections(message)
                self._inbox[exchange] = (message, buffer)
                event = machine.Offered if message.kind is Kind.OFFER else machine.Replied
                try:
                    self._handle(event(peer, exchange))
                except ProtocolError:
                    self._forget(exchange)
                    raise
                return
            case Kind.REFUSE:
                self._note("refused", peer, messages.text_of(message))
                self._handle(machine.Refused(peer, exchange))
            case Kind.DONE:
                self._handle(machine.Done(peer, exchange.counter))
            case Kind.BYE:
                self._note("left", peer, messages.text_of(message) or "left the swarm")
                self.transport.drop(peer)
                self._handle(machine.Gone(peer, left=True))
        self.transport.give(buffer)

    def _check_sections(self, message: Message) -> None:
        got = [(s.vector, s.bits) for s in message.sections]
        if got != [(0, self._bits)]:
            raise ProtocolError(
                f"message has sections {got}, this run exchanges [(0, {self._bits})] (vector, bits)"
            )

    def _lost(self, peer: int, reason: str) -> None:
        if peer in self.node.membership.open:
            self.lost_peers[peer] = reason
            self._note("lost", peer, reason)
            self._handle(machine.Gone(peer))

    def _distrust(self, peer: int, reason: str) -> None:
        """Tell the peer why, close its link shortly after; all other links go on."""
        self.traffic.distrusted += 1
        self.lost_peers[peer] = reason
        self._note("distrusted", peer, reason)
        self._tell(peer, Kind.BYE, messages.NO_EXCHANGE, f"dropped by the peer: {reason}")
        self._parting[peer] = self._clock() + PARTING_S
        self._handle(machine.Gone(peer))

    # Effects.

    def _send_offer(self, peer: int, exchange: ExchangeId) -> None:
        begin = self._clock()
        draft = Draft(1, self.transport.take)
        seed = messages.offset_seed(exchange, Kind.OFFER)
        self.replica.offer(seed, draft.allocator(0, self._bits))
        nbytes = self._send(peer, self._finish(draft, Kind.OFFER, exchange))
        if not nbytes:  # it never left: the partner cannot have mixed
            self._handle(machine.Refused(peer, exchange))
        self._sent_at = {exchange: (begin, nbytes)}

    def _answer(self, peer: int, exchange: ExchangeId) -> None:
        message, buffer = self._inbox.pop(exchange)
        begin = self._clock()
        draft = Draft(1, self.transport.take)
        seed = messages.offset_seed(exchange, Kind.REPLY)
        try:
            _, mixed = self.replica.answer(
                message.sections[0].payload, seed, draft.allocator(0, self._bits)
            )
        finally:
            self.transport.give(buffer)
        nbytes = self._send(peer, self._finish(draft, Kind.REPLY, exchange))
        self._saw(mixed, "partner", peer, exchange, begin, nbytes, len(buffer))

    def _mix(self, peer: int, exchange: ExchangeId) -> None:
        message, buffer = self._inbox.pop(exchange)
        begin, nbytes = self._sent_at.pop(exchange, (self._clock(), 0))
        try:
            mixed = self.replica.mix(message.sections[0].payload)
        except ProtocolError:
            self.node.counts.completed -= 1
            self.node.counts.lost += 1
            raise
        finally:
            self.transport.give(buffer)
        self._saw(mixed, "initiator", peer, exchange, begin, nbytes, len(buffer))

    def _saw(
        self,
        mixed: Mixed,
        role: str,
        peer: int,
        exchange: ExchangeId,
        begin: float,
        bytes_out: int,
        bytes_in: int,
    ) -> None:
        traffic = self.traffic
        traffic.mixes += 1
        traffic.distance_sq += mixed.distance_sq
        traffic.mixed_blocks += mixed.blocks - mixed.left_out
        traffic.left_out_blocks += mixed.left_out
        traffic.float32_blocks += mixed.float32_blocks
        traffic.noise_sq += mixed.noise_sq
        self._recorder.write(
            "exchange",
            role=role,
            peer=peer,
            counter=exchange.counter,
            seconds=self._clock() - begin,
            bytes_out=bytes_out,
            bytes_in=bytes_in,
            distance=float(np.sqrt(mixed.distance_sq)),
            left_out=mixed.left_out,
            float32_blocks=mixed.float32_blocks,
            cell=mixed.cell,
            noise=float(np.sqrt(mixed.noise_sq)),
        )

    def _finish(self, draft: Draft, kind: Kind, exchange: ExchangeId) -> Bytes:
        return draft.finish(
            kind,
            run=self._run_id,
            sender=self.node.rank,
            incarnation=self.node.incarnation,
            exchange=exchange,
        )

    def _send(self, peer: int, message: Bytes) -> int:
        nbytes = len(message)
        try:
            self.transport.send(peer, message)
        except LinkClosed as error:
            reason = str(error)
            self._queue.put(lambda: self._lost(peer, reason))
            return 0
        except LinkBackedUp:  # a hung peer; its initiator counts an unanswered exchange as lost
            self.transport.give(message)
            return 0
        self.traffic.messages_sent += 1
        self.traffic.bytes_sent += nbytes
        return nbytes

    def _tell(self, peer: int, kind: Kind, exchange: ExchangeId, text: str = "") -> None:
        message = messages.control(
            kind,
            run=self._run_id,
            sender=self.node.rank,
            incarnation=self.node.incarnation,
            exchange=exchange,
            text=text,
        )
        self._send(peer, message)

    def _tell_all(self, kind: Kind, exchange: ExchangeId) -> None:
        for peer in self.node.membership.open:
            self._tell(peer, kind, exchange)

    def _forget(self, exchange: ExchangeId) -> None:
        kept = self._inbox.pop(exchange, None)
        if kept is not None:
            self.transport.give(kept[1])

    def _note(self, what: str, peer: int, text: str) -> None:
        self._recorder.write("event", what=what, peer=peer, text=text)
        level = logging.INFO if what == "left" else logging.WARNING
        log.log(level, "node %d: peer %d %s: %s", self.node.rank, peer, what, text)
