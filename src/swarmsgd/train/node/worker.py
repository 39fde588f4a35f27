"""The exchange side of one node: one thread that carries messages and bursts to its endpoint.

The training thread talks to it through two things that never block: the flag `ready` and a queue of
jobs. The thread itself polls the transport: what it does not read yet waits there.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from swarmsgd.core.endpoint import Endpoint
from swarmsgd.core.matching import Machine
from swarmsgd.core.replica import Replica
from swarmsgd.core.traffic import Exchange
from swarmsgd.core.wire_code import Bytes, Mixed
from swarmsgd.errors import LinkClosed, SwarmError
from swarmsgd.observe.records import Recorder
from swarmsgd.train.meet.news import News
from swarmsgd.train.node.linker import Linker
from swarmsgd.transport.base import IN_ORDER, Arrived, LinkBackedUp, Lost, Opened, Transport

R = TypeVar("R")

_log = logging.getLogger("swarmsgd")

_LOOK_S = 0.001
"""How often the thread looks whether a published model has arrived from its device."""


class Worker:
    """Runs an endpoint of `machine` over `transport`, with the numbers in `replica`.

    `run` is the fingerprint that every message must carry. The thread starts with `start()` and
    ends with `close()`; an error in it is kept in `error` and ends it.
    """

    def __init__(
        self,
        machine: Machine,
        replica: Replica,
        transport: Transport,
        *,
        run: int,
        recorder: Recorder,
        clock: Callable[[], float] = time.monotonic,
        linker: Linker | None = None,
        others: Callable[[], Bytes | None] = lambda: None,
    ) -> None:
        self.linker = linker
        """None where links are those of the start (matching mode)."""
        self.others = others
        """See `core.endpoint.Ports`."""
        self.machine = machine
        self.replica = replica
        self.transport = transport
        self.endpoint = Endpoint(machine, replica, self, run=run)
        self.traffic = self.endpoint.traffic
        self.take = transport.take
        self.give = transport.give
        self.drop = transport.drop
        self.busy_s = 0.0
        """Time this thread spent on events."""
        self.error: BaseException | None = None
        self.released = threading.Event()
        self.released.set()
        self.ready = self.released.is_set
        """Whether a burst may end now: no exchange of this node is waited for."""
        self._recorder = recorder
        self._clock = clock
        self._jobs: deque[Callable[[], None]] = deque()
        self._ended = False
        self._landing = False
        """A burst ended, and what it published is still on its way."""
        self._closing = False
        self._due = math.inf
        """When a deadline is over, as the last wait began."""
        self._strangers = 0
        self._thread = threading.Thread(target=self._loop, name="swarmsgd-exchange", daemon=True)

    @property
    def lost_peers(self) -> dict[int, str]:
        """Neighbours whose link was lost or closed for what they sent, and why."""
        return self.endpoint.lost_peers

    # Called by the training thread.

    def start(self) -> None:
        """Begin to answer and to exchange, on a thread of its own."""
        self._thread.start()

    def do(self, job: Callable[[], None]) -> None:
        """Let the thread run `job` soon; from any thread."""
        self._jobs.append(job)
        self.transport.wake()

    def burst_ended(self) -> None:
        """All was published: ask somebody. Returns at once."""
        self.released.clear()
        self.do(self._burst_ended)

    def wait_released(self) -> None:
        """Return when no exchange of this node is waited for, or the thread has ended."""
        while not self.released.wait(0.2):
            if not self._thread.is_alive():
                return

    def ask(self, question: Callable[[], R]) -> R:
        """What `question` returns on the exchange thread, behind all that is queued there."""
        answers: queue.SimpleQueue[R] = queue.SimpleQueue()
        self.do(lambda: answers.put(question()))
        while True:
            try:
                return answers.get(timeout=0.2)
            except queue.Empty:
                if not self._thread.is_alive():
                    raise self.error or SwarmError("the exchange side has ended") from None

    def pause(self) -> None:
        """Start no more exchanges, tell the peers; wait until none of ours is waited for."""
        self.do(lambda: self.endpoint.stop(self._clock()))
        self.wait_released()

    def resume(self) -> None:
        """Start exchanges again."""
        self.do(self.endpoint.go_on)

    def close(self, drain_s: float = 5.0) -> None:
        """Finish or give up what is in flight, say goodbye, end the thread and the transport."""
        if self._closing:
            return
        try:
            if self._thread.is_alive():
                self.pause()
        finally:  # even if a person does not want to wait that long
            self._closing = True
            self.do(self._end)
            try:
                if self._thread.is_alive():
                    self._thread.join()
            finally:
                self.transport.close(drain_s)

    # The thread.

    def _loop(self) -> None:
        try:
            while not self._ended:
                event = self.transport.poll(self._wait_s())
                begin = time.perf_counter()
                self._handle(event)
                self._do_jobs()
                self._look()
                self.busy_s += time.perf_counter() - begin
        except BaseException as error:  # handed to the training thread, which raises it
            self.error = error
        finally:
            self.released.set()

    def pump(self) -> None:
        """Do all that there is to do now, on the caller's thread: for a driver that steps a worker
        not started.
        """
        self._wait_s()
        self._look()
        self._do_jobs()
        while (event := self.transport.poll(0.0)) is not None:
            self._handle(event)
            self._do_jobs()

    def _do_jobs(self) -> None:
        while self._jobs:
            self._jobs.popleft()()

    def _handle(self, event: Arrived | Opened | Lost | None) -> None:
        now = self._clock()
        if isinstance(event, Lost):
            if self.linker is not None and event.reason == IN_ORDER:
                self.endpoint.unlinked(event.peer, now)  # neighbours change as nodes come and go
            else:
                self.endpoint.lost(event.peer, event.reason, now)
            if self.linker is not None:
                self.linker.lost(event.peer, now)
        elif isinstance(event, Opened):
            if self.linker is not None:
                self.linker.opened(event.peer, self.endpoint, now)
        elif event is not None:
            self.endpoint.received(event.peer, event.message, now)

    def _wait_s(self) -> float | None:
        """Until there is something to do that no event tells of; None: for ever."""
        due = self.endpoint.deadline
        self._due = math.inf if due is None else due
        if self.linker is not None:
            self._due = min(self._due, self.linker.deadline)
        wait_s = None if self._due == math.inf else max(0.0, self._due - self._clock())
        return _LOOK_S if self._landing and (wait_s is None or wait_s > _LOOK_S) else wait_s

    def _look(self) -> None:
        """Whether a deadline is over, or a published model has arrived."""
        if self._due <= self._clock():
            self.endpoint.tick(self._clock())
            if self.linker is not None:
                self.linker.tick(self.endpoint, self._clock())
        self._land()

    def _land(self) -> None:
        if self._landing and self.replica.land():
            self._landing = False
            self.endpoint.burst_ended(self._clock())

    # Jobs.

    def begin_links(self, live: Mapping[int, tuple[int, str]]) -> None:
        """These nodes live when this one begins; their links may be open."""
        if self.linker is not None:
            self.linker.start(live, self.endpoint, self._clock())
        self.endpoint.progress.live(1 + len(live))

    def hear(self, news: list[News]) -> None:
        """Who came and who went, of the meeting place."""
        now, endpoint = self._clock(), self.endpoint
        for what, node, incarnation, text in news:
            self._recorder.write("event", what=what, peer=node, text=text or "only dials out")
            if self.linker is None:
                continue
            if what == "joined":
                self.linker.joined(node, incarnation, text, endpoint, now)
            elif what == "arriving":
                self.linker.visit(node, text)
            else:
                self.linker.gone(node, incarnation, now)
            endpoint.progress.live(1 + len(self.linker.live))

    def stranger(self, who: str, why: str) -> None:
        """Somebody was refused at this node's port. A flood of them does not fill the records."""
        self._strangers += 1
        if self._strangers & (self._strangers - 1) == 0:
            text = f"{who} who is no node of this swarm was refused: {why}"
            text += f" ({self._strangers} times so far)" if self._strangers > 1 else ""
            self._recorder.write("event", what="stranger", peer=None, text=text)
            _log.warning("node %d: %s", self.machine.rank, text)

    def _burst_ended(self) -> None:
        self._landing = True
        self._land()

    def _end(self) -> None:
        self.endpoint.say_goodbye()
        self._ended = True

    # What the endpoint asks for (`core.endpoint.Ports`).

    def send(self, peer: int, message: Bytes) -> int:
        """Queue a message; its size, or 0 if it cannot leave."""
        nbytes = len(message)
        try:
            self.transport.send(peer, message)
        except LinkClosed as error:
            self.do(partial(self.endpoint.lost, peer, str(error), self._clock()))
            return 0
        except LinkBackedUp:  # a hung peer; its initiator counts an unanswered exchange as lost
            self.transport.give(message)
            return 0
        return nbytes

    def release(self) -> None:
        """The training thread may end a burst again."""
        self.released.set()

    def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
        """Record an exchange."""
        if self._recorder.path is not None:
            self._recorder.write("exchange", **exchange.fields(mixed, self._clock()))

    def note(self, what: str, peer: int, text: str) -> None:
        """Record and log what a person should know."""
        self._recorder.write("event", what=what, peer=peer, text=text)
        level = logging.INFO if what == "left" else logging.WARNING
        _log.log(level, "node %d: peer %d %s: %s", self.machine.rank, peer, what, text)
