"""One swarm node in virtual time: the real node's endpoint, replica and burst, driven by an agenda.

Its local steps are made late: an answer touches copy and pending only, so the live model need not
move until something is about to be added to pending, or the burst ends. `advance(now)` makes the
steps whose time has come, each followed by its step boundary. In long bursts it is called every
`pace` steps, so that what a run has done so far is never far behind its time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swarmsgd.core.endpoint import Endpoint
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Burst, Lengths
from swarmsgd.core.replica import Replica
from swarmsgd.core.traffic import Exchange
from swarmsgd.core.wire_code import Bytes, Mixed
from swarmsgd.errors import ModelError
from swarmsgd.observe.records import Recorder
from swarmsgd.settings.swarm import lengths_stream
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.network import Network
from swarmsgd.sim.engine.speeds import Speeds
from swarmsgd.sim.swarm.arrival import InSchedule, others_of


@dataclass(slots=True)
class Census:
    """What all nodes know of who lives."""

    live: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What all nodes of a run share."""

    fleet: Fleet
    speeds: Speeds
    agenda: Agenda
    network: Network
    run: int
    """The fingerprint that messages carry."""
    blocking: bool
    """Whether a node waits for its exchange before the next step."""
    lengths: Lengths
    seed: int
    budget: int
    """Local steps of each node."""
    pace: int
    census: Census
    stopped: Callable[[], None]
    """Called when a node has made its steps."""


class VirtualNode:
    """Drives one endpoint; the `Ports` of it."""

    __slots__ = (
        "_burst",
        "_ends",
        "_last_end",
        "_live",
        "_plan",
        "_recorder",
        "_released",
        "_stage",
        "_waiting",
        "_watched",
        "alive",
        "blocked_s",
        "compute_s",
        "done",
        "endpoint",
        "exchanges",
        "initiated",
        "rank",
        "replica",
    )

    def __init__(
        self, machine: Machine, replica: Replica, stage: Stage, recorder: Recorder
    ) -> None:
        self.rank = machine.rank
        self.replica = replica
        self.endpoint = Endpoint(machine, replica, self, run=stage.run)
        self.alive = False
        self.done = False
        self.blocked_s = 0.0
        self.compute_s = 0.0
        self.exchanges = 0
        self.initiated = 0
        self._stage = stage
        self._recorder = recorder
        self._ends: deque[float] = deque()
        """When the steps end that are planned."""
        self._last_end = 0.0
        self._live = 0
        """How many nodes live, as its progress was last told."""
        self._waiting = False
        """A burst is over but an exchange is still waited for."""
        self._released = True
        """No exchange of this node is waited for."""
        self._plan = 0
        """Number of the current plan; entries of the agenda for an earlier one do nothing."""
        self._watched = math.inf
        """When the next look at the endpoint's deadline is due."""

    # Computing.

    @property
    def left(self) -> int:
        """Local steps that it has still to make."""
        return self._stage.budget - int(self._stage.fleet.steps_N[self.rank])

    @property
    def finished(self) -> bool:
        """Whether it has made all its steps."""
        return self._stage.fleet.steps_N[self.rank] >= self._stage.budget

    @property
    def place(self) -> InSchedule:
        """Where it is in its schedule."""
        machine = self.endpoint.machine
        round = machine.next_round if isinstance(machine, Matching) else 0
        return InSchedule(int(self._stage.fleet.steps_N[self.rank]), round)

    def begin(self) -> None:
        """Start to compute now."""
        stage, machine = self._stage, self.endpoint.machine
        rounds = isinstance(machine, Matching)
        rng = lengths_stream(stage.seed, self.rank, rounds=rounds)
        self.alive = True
        self._last_end = stage.agenda.now
        self._burst = Burst(stage.lengths, rng)
        for _ in range(machine.next_round if isinstance(machine, Matching) else 0):
            self._burst.next()  # a round is equally long for all: these are over
        self._next()

    def stop(self) -> None:
        """Compute no more: at death, or when the run is over."""
        if self._stage.blocking and not self.done and not self._released:
            self.blocked_s += self._stage.agenda.now - self._last_end
        self._plan += 1
        self._ends.clear()
        self.done = True

    def advance(self, now: float) -> None:
        """Make the local steps that are over by `now`."""
        due = 0
        while not self.done:
            if not self._ends:
                if not self._waiting or self.left <= due:
                    break
                self._foresee()  # the burst goes on until the exchange is over
            end = self._ends[0]
            if end > now:
                break
            self._ends.popleft()
            self.compute_s += end - self._last_end
            self._last_end = end
            due += 1
        if due:
            self._make(due)

    def _make(self, steps: int) -> None:
        """Local steps, each followed by x += p: only the first can find something pending."""
        self._burst.made += steps
        self._tell_progress(steps)
        if self.replica.has_pending:
            self._stage.fleet.steps_of(self.rank, 1)
            self.replica.try_apply()
            steps -= 1
        if steps:
            self._stage.fleet.steps_of(self.rank, steps)

    def _tell_progress(self, steps: int) -> None:
        progress, live = self.endpoint.progress, self._stage.census.live
        if live != self._live:
            self._live = live
            progress.live(live)
        progress.made(steps, steps * self._stage.fleet.batch_size)

    def _foresee(self) -> None:
        last = self._ends[-1] if self._ends else self._last_end
        self._ends.append(last + self._stage.speeds.step_s(self.rank, last))

    def _schedule(self, steps: int) -> None:
        """Plan the end of the `steps`-th step from now, no further than the budget goes."""
        steps = min(steps, self.left)
        while len(self._ends) < steps:
            self._foresee()
        self._plan += 1
        self._stage.agenda.at(self._ends[steps - 1], self._boundary, self._plan)
        self._keep_pace()

    def _keep_pace(self) -> None:
        if len(self._ends) > self._stage.pace:  # else the boundary comes first
            self._stage.agenda.at(self._ends[self._stage.pace - 1], self._on_pace, self._plan)

    def _on_pace(self, plan: int) -> None:
        if plan == self._plan and not self.done:
            self.advance(self._stage.agenda.now)
            if self._waiting:
                self._go_on_waiting()
            else:
                self._keep_pace()

    def _go_on_waiting(self) -> None:
        """The exchange is not over: the burst goes on."""
        if self.finished:
            self._finish()
            return
        while len(self._ends) < min(self._stage.pace, self.left):
            self._foresee()
        self._stage.agenda.at(self._ends[-1], self._on_pace, self._plan)

    def _boundary(self, plan: int) -> None:
        """The step boundary at which a burst ends, or the run does."""
        if plan != self._plan or self.done:
            return
        now = self._stage.agenda.now
        self.advance(now)
        if not self._burst.due:  # the budget ended in the middle of a burst
            self._finish()
        elif self._released:
            self._end_burst(now)
        elif self.finished:
            self._finish()
        else:
            self._waiting = True
            self._go_on_waiting()

    def _end_burst(self, now: float) -> None:
        try:
            self.replica.try_publish()
        except ModelError as error:
            step = self._stage.fleet.steps_N[self.rank]
            raise ModelError(f"node {self.rank}, step {step}: {error}") from None
        self._burst.next()
        self._released = False
        self.endpoint.burst_ended(now)
        self._watch()
        if not self._stage.blocking:
            self._next()

    def _next(self) -> None:
        """On to the next burst, if there is one."""
        if self.finished:
            self._finish()
        else:
            self._schedule(self._burst.length)

    def _finish(self) -> None:
        self.done = True
        self._ends.clear()
        self.endpoint.stop(self._stage.agenda.now)
        self._stage.stopped()

    # What comes from outside.

    def received(self, peer: int, message: Bytes) -> None:
        """A message arrived."""
        if self.alive:
            self.advance(self._stage.agenda.now)
            self.endpoint.received(peer, message, self._stage.agenda.now)
            self._watch()

    def lost(self, peer: int) -> None:
        """The link to `peer` broke."""
        if self.alive:
            self.advance(self._stage.agenda.now)
            self.endpoint.lost(peer, "its process ended", self._stage.agenda.now)

    def _watch(self) -> None:
        """Come back when patience may have run out: one entry a node, put off when it comes."""
        deadline = self.endpoint.deadline
        if self.alive and deadline is not None and deadline < self._watched:
            self._watched = deadline
            self._stage.agenda.at(deadline, self._look, deadline)

    def _look(self, watched: float) -> None:
        if watched != self._watched:
            return  # an earlier look was asked for since
        now, deadline = self._stage.agenda.now, self.endpoint.deadline
        self._watched = math.inf
        if self.alive and deadline is not None and deadline <= now:
            self.advance(now)
            self.endpoint.tick(now)
        self._watch()

    # `core.endpoint.Ports`.

    def take(self, nbytes: int) -> Bytes:
        return np.empty(nbytes, np.uint8)

    def give(self, buffer: Bytes) -> None:
        pass

    def send(self, peer: int, message: Bytes) -> int:
        self._stage.network.send(self.rank, peer, message)
        return len(message)

    def drop(self, peer: int) -> None:
        pass

    def release(self) -> None:
        if self._released:
            return
        now = self._stage.agenda.now
        self._released = True
        if self._stage.blocking:
            if not self.done:
                self.blocked_s += now - self._last_end
            self._stage.agenda.at(now, self._go_on, None)
        elif self._waiting and not self.done:
            self._waiting = False
            if self.finished:
                self._finish()
            else:
                self._schedule(1)

    def _go_on(self, _: object) -> None:
        """Blocking modes: what the exchange brought is in x before the next step."""
        self.replica.settle()
        if self.alive and not self.done:
            self._last_end = self._stage.agenda.now
            self._next()

    def note(self, what: str, peer: int, text: str) -> None:
        self._recorder.write("event", what=what, peer=peer, text=text)

    def others(self) -> Bytes | None:
        return others_of(self._stage.fleet.buffers_NB[self.rank], self.place)

    def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
        self.exchanges += 1
        self.initiated += exchange.role == "initiator"
        if self._recorder.path is not None:  # large runs write nothing of single exchanges
            self._recorder.write("exchange", **exchange.fields(mixed, self._stage.agenda.now))
