"""One swarm node in virtual time: the real node's endpoint, code and arithmetic, driven by events.

Its local steps are made late: an answer touches copy and pending only, so the live model need not
move until something is about to be added to pending, or the burst ends. `advance(now)` makes the
steps whose time has come, each followed by its step boundary (section 2). In long bursts it is
called every `pace` steps, so that what a run has done so far is never far behind its time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

from swarmsgd.codec import kernels
from swarmsgd.core.code import Allocate, Bytes, Code, Mixed, Vector
from swarmsgd.core.endpoint import Endpoint
from swarmsgd.core.lattice import blocks_of
from swarmsgd.core.node import Node
from swarmsgd.core.traffic import Exchange
from swarmsgd.errors import ModelError
from swarmsgd.graphs import Pick
from swarmsgd.observe.records import Recorder
from swarmsgd.settings.swarm import LocalSteps
from swarmsgd.sim.agenda import Agenda
from swarmsgd.sim.fleet import Fleet
from swarmsgd.sim.network import Network
from swarmsgd.sim.speeds import Speeds


class Vectors:
    """Live, copy and pending of one node (section 2), float32 [D] each, and its code."""

    __slots__ = ("burst_max", "code", "copy", "has_pending", "live", "offered", "pending")

    def __init__(self, live: Vector, copy: Vector, pending: Vector, code: Code) -> None:
        self.live = live
        self.copy = copy
        self.pending = pending
        self.code = code
        self.offered: Vector | None = None
        self.has_pending = False
        self.burst_max = np.zeros(blocks_of(live.size), np.float32)

    def apply(self) -> None:
        """x += p; p = 0."""
        if self.has_pending:
            kernels.apply_pending(self.live, self.pending)
            self.has_pending = False

    def publish(self) -> bool:
        """x += p; p = 0; c = x; False, with c as it was, if x is not finite."""
        self._keep_offered()
        self.has_pending = False
        return kernels.apply_and_publish(self.live, self.pending, self.copy, self.burst_max)

    def offer(self, seed: int, allocate: Allocate) -> Bytes:
        self.code.published(self.burst_max)
        self.offered = self.copy
        return self.code.offer(self.copy, seed, allocate)

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> tuple[Bytes, Mixed]:
        self._keep_offered()
        self.has_pending = True
        return self.code.answer(offer, self.copy, self.pending, seed, allocate)

    def mix(self, reply: Bytes) -> Mixed:
        offered, self.offered = self.offered, None
        assert offered is not None
        self.has_pending = True
        return self.code.mix(reply, offered, self.copy, self.pending)

    def _keep_offered(self) -> None:
        if self.offered is self.copy:
            self.offered = self.copy.copy()


class VirtualNode:
    """Drives one endpoint; the `Ports` of it. `stopped` is called when it has made its steps."""

    __slots__ = (
        "_agenda", "_blocking", "_budget", "_burst", "_ends", "_fleet", "_in_burst",
        "_last_end", "_lengths", "_network", "_pace", "_pick", "_plan", "_recorder", "_released",
        "_rng", "_rounds", "_speeds", "_stopped", "_waiting", "_watched", "alive", "blocked_s",
        "bursts", "compute_s", "done",
        "endpoint", "exchanges", "initiated", "rank", "vectors",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        vectors: Vectors,
        *,
        mode: str,
        run: int,
        bits: int | None,
        lengths: LocalSteps,
        seed: int,
        pick: Pick,
        budget: int,
        pace: int,
        fleet: Fleet,
        speeds: Speeds,
        agenda: Agenda,
        network: Network,
        recorder: Recorder,
        stopped: Callable[[VirtualNode], None],
    ) -> None:
        self.rank = node.rank
        self.vectors = vectors
        self.endpoint = Endpoint(node, vectors, self, run=run, bits=bits)
        self.alive = False
        self.done = False
        self.blocked_s = 0.0
        self.compute_s = 0.0
        self.exchanges = 0
        self.initiated = 0
        self._lengths = lengths
        self._pick = pick
        self._budget = budget
        self._pace = pace
        self._fleet = fleet
        self._speeds = speeds
        self._agenda = agenda
        self._network = network
        self._recorder = recorder
        self._stopped = stopped
        self._blocking = mode != "non-blocking"
        self._rounds = mode == "matching"
        self._rng = lengths.generator(seed, node.rank, rounds=self._rounds)
        self._ends: deque[float] = deque()
        self._last_end = 0.0
        self._burst = 0
        self._in_burst = 0
        self.bursts = 0
        """Bursts that have ended; the number of the round in matching mode."""
        self._waiting = False
        """A burst ended but an exchange is still waited for."""
        self._released = True
        """No exchange of this node is waited for."""
        self._plan = 0
        self._watched = math.inf
        """When the next look at the endpoint's deadline is due."""

    # Computing.

    @property
    def finished(self) -> bool:
        """Whether it has made all its steps."""
        return self.finished_after(0)

    def finished_after(self, steps: int) -> bool:
        """Whether it has made all its steps once it makes these."""
        return int(self._fleet.steps_N[self.rank]) + steps >= self._budget

    def begin(self) -> None:
        """Start to compute now."""
        self.alive = True
        for _ in range(self.bursts if self._rounds else 0):
            self._lengths.draw(self._rng)  # a round is equally long for all: these are over
        self._last_end = self._agenda.now
        self._burst = self._lengths.draw(self._rng)
        self._next()

    def stop(self) -> None:
        """Compute no more: at death, or when the run is over."""
        if self._blocking and not self.done and not self._released:
            self.blocked_s += self._agenda.now - self._last_end
        self._plan += 1
        self._ends.clear()
        self.done = True

    def advance(self, now: float) -> None:
        """Make the local steps that are over by `now`."""
        due = 0
        while not self.done:
            if not self._ends:
                if not self._waiting or self.finished_after(due):
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
        self._in_burst += steps
        if self.vectors.has_pending:
            self._fleet.steps_of(self.rank, 1)
            self.vectors.apply()
            steps -= 1
        if steps:
            self._fleet.steps_of(self.rank, steps)

    def _foresee(self) -> None:
        last = self._ends[-1] if self._ends else self._last_end
        self._ends.append(last + self._speeds.step_s(self.rank, last))

    def _schedule(self, steps: int) -> None:
        """Plan the end of the `steps`-th step from now, no further than the budget goes."""
        steps = min(steps, self._budget - int(self._fleet.steps_N[self.rank]))
        while len(self._ends) < steps:
            self._foresee()
        self._plan += 1
        self._agenda.at(self._ends[steps - 1], self._boundary, self._plan)
        self._keep_pace()

    def _keep_pace(self) -> None:
        if len(self._ends) > self._pace:  # else the boundary comes first
            self._agenda.at(self._ends[self._pace - 1], self._on_pace, self._plan)

    def _on_pace(self, plan: int) -> None:
        if plan == self._plan and not self.done:
            self.advance(self._agenda.now)
            if self._waiting:
                self._go_on_waiting()
            else:
                self._keep_pace()

    def _go_on_waiting(self) -> None:
        """The exchange is not over: the burst goes on."""
        if self.finished:
            self._finish()
            return
        left = self._budget - int(self._fleet.steps_N[self.rank])
        while len(self._ends) < min(self._pace, left):
            self._foresee()
        self._agenda.at(self._ends[-1], self._on_pace, self._plan)

    def _boundary(self, plan: int) -> None:
        """The step boundary at which a burst ends, or the run does."""
        if plan != self._plan or self.done:
            return
        now = self._agenda.now
        self.advance(now)
        if self._in_burst < self._burst:  # the budget ended in the middle of a burst
            self._finish()
        elif self._released:
            self._end_burst(now)
            if not self._blocking:
                self._next()
        elif self.finished:
            self._finish()
        else:
            self._waiting = True
            self._go_on_waiting()

    def _end_burst(self, now: float) -> None:
        if not self.vectors.publish():
            raise ModelError(
                f"the model of node {self.rank} is no longer finite at step "
                f"{self._fleet.steps_N[self.rank]}: training diverged. Try a lower --lr"
            )
        self._in_burst = 0
        self._burst = self._lengths.draw(self._rng)
        number, self.bursts = self.bursts, self.bursts + 1
        peer = self._pick(number, self.endpoint.node.membership.candidates(now))
        self._released = False
        if peer is None:
            self.endpoint.node.counts.skipped += 1
            self.release()
            return
        self.endpoint.start(peer, now, number if self._rounds else None)
        self._watch()

    def _next(self) -> None:
        """On to the next burst, if there is one."""
        if self.finished:
            self._finish()
        else:
            self._schedule(self._burst)

    def _finish(self) -> None:
        self.done = True
        self._ends.clear()
        if self._rounds:  # elsewhere nobody waits for this node, and n nodes would tell n others
            self.endpoint.announce_done(self._agenda.now)
        self._stopped(self)

    # What comes from outside.

    def received(self, peer: int, message: Bytes) -> None:
        """A message arrived."""
        if self.alive:
            self.advance(self._agenda.now)
            self.endpoint.received(peer, message, self._agenda.now)
            self._watch()

    def lost(self, peer: int) -> None:
        """The link to `peer` broke."""
        if self.alive:
            self.advance(self._agenda.now)
            self.endpoint.lost(peer, "its process ended", self._agenda.now)

    def _watch(self) -> None:
        """Come back when patience may have run out: one entry a node, put off when it comes."""
        deadline = self.endpoint.deadline
        if self.alive and deadline is not None and deadline < self._watched:
            self._watched = deadline
            self._agenda.at(deadline, self._look, deadline)

    def _look(self, watched: float) -> None:
        if watched != self._watched:
            return  # an earlier look was asked for since
        self._watched = math.inf
        deadline = self.endpoint.deadline
        if self.alive and deadline is not None and deadline <= self._agenda.now:
            self.advance(self._agenda.now)
            self.endpoint.tick(self._agenda.now)
        self._watch()

    # `core.endpoint.Ports`.

    def take(self, nbytes: int) -> Bytes:
        return np.empty(nbytes, np.uint8)

    def give(self, buffer: Bytes) -> None:
        pass

    def send(self, peer: int, message: Bytes) -> int:
        self._network.send(self.rank, peer, message)
        return len(message)

    def drop(self, peer: int) -> None:
        pass

    def release(self) -> None:
        if self._released:
            return
        now = self._agenda.now
        self._released = True
        if self._blocking:
            if not self.done:
                self.blocked_s += now - self._last_end
            self._agenda.at(now, self._go_on, None)
        elif self._waiting and not self.done:
            self._waiting = False
            if self.finished:
                self._finish()
            else:
                self._schedule(1)

    def _go_on(self, _: object) -> None:
        """Blocking modes: what the exchange brought is in x before the next step."""
        self.vectors.apply()
        if self.alive and not self.done:
            self._last_end = self._agenda.now
            self._next()

    def note(self, what: str, peer: int, text: str) -> None:
        self._recorder.write("event", what=what, peer=peer, text=text)

    def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
        self.exchanges += 1
        self.initiated += exchange.role == "initiator"
        if self._recorder.path is not None:  # large runs write nothing of single exchanges
            self._recorder.write("exchange", **exchange.fields(mixed, self._agenda.now))
