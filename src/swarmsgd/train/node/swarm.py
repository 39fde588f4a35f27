"""One node's part in a swarm, as its user sees it: a hook after each step, and a few calls at the
end.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.optim import Optimizer

from swarmsgd.codec import vectors
from swarmsgd.core.node import Burst
from swarmsgd.core.progress import Total
from swarmsgd.errors import ModelError, SwarmError
from swarmsgd.graphs import Graph, LiveGraph, gamma_of
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.reporters import Reporter
from swarmsgd.observe.sinks import Sink
from swarmsgd.settings.swarm import SwarmSettings, lengths_of
from swarmsgd.train.checkpoint.resumed import PlaceInSwarm, Resumed, SwarmStreams
from swarmsgd.train.checkpoint.save import Standing, Stateful, save
from swarmsgd.train.meet.mean import Alone, Mean
from swarmsgd.train.node.connection import Connection, figures_of
from swarmsgd.train.node.diverged import restore
from swarmsgd.train.node.join_checks import check_averaged_once, untraced
from swarmsgd.train.node.progress_lines import ProgressLines
from swarmsgd.train.node.recalibrate import Batches
from swarmsgd.train.node.result import mean_state
from swarmsgd.train.node.state import OptimizerState, warn_of_states
from swarmsgd.train.node.step_times import StepTimes
from swarmsgd.train.node.until import AnyBatch, Goal, set_epoch
from swarmsgd.train.node.watch import Others, Watch

_log = logging.getLogger("swarmsgd")

JOINED: weakref.WeakSet[Optimizer] = weakref.WeakSet()
"""Optimizers that are part of a swarm now."""


class Swarm:
    """One node's part in a swarm. Made by `join`; a context manager that leaves at its end."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        config: SwarmSettings,
        graph: Graph | LiveGraph,
        rank: int,
        watch: Watch,
        states: list[OptimizerState],
        connection: Connection | None,
        recorder: Recorder,
        streams: SwarmStreams,
        resumed: Resumed | None,
    ) -> None:
        self.config = config
        self.graph = graph
        self.rank = rank
        self.recorder = recorder
        self.gamma: float | None = None
        """Gamma = sum_i ||x_i - mu||^2 over the nodes of the last `mean_model`, else None."""
        self.mean_of: list[int] = []
        """The nodes that took part in the last `mean_model`."""
        self._model = model
        self._watch = watch
        self._states = states
        self._connection = connection
        self._resumed = resumed
        self._burst = Burst(lengths_of(config.local_steps), streams.lengths)
        self._place = PlaceInSwarm(config, self._burst, streams, watch.layout)
        self._timing = StepTimes()
        self.lines = ProgressLines(recorder)
        self.steps = 0
        """Local steps made, those before a checkpoint included."""
        if resumed is not None:
            self.steps = resumed.steps
            resumed.put_back(self._burst, streams, config)
        watch.begin()
        self._missed = 0
        self._goal = Goal(None if connection is None else connection.worker.endpoint.progress)
        self._mean = Alone(rank) if connection is None else Mean(connection.rendezvous)
        self._left = False
        self._reporter: Reporter | None = None
        self._process = os.getpid()
        self._hook = optimizers[-1].register_step_post_hook(untraced(self._after_step))
        self._others = Others(optimizers)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        JOINED.update(optimizers)
        atexit.register(_leave, weakref.ref(self))

    @property
    def num_nodes(self) -> int:
        """How many nodes the run has; in an open swarm those that live, this one included."""
        return self.graph.num_nodes

    @property
    def progress(self) -> Total:
        """Local steps that all nodes together have made, and samples that `until` has counted.

        It is behind by what was made in the last few bursts, never falls, and asks nobody.
        """
        return self._goal.progress.total()

    @property
    def share(self) -> float:
        """How far the swarm is on its way to `until`'s total, from 0 (also before that) to 1: for
        schedules, `LambdaLR(optimizer, lambda _: 1 - swarm.share)`.
        """
        return self._goal.share

    def until(
        self, loader: Iterable[AnyBatch], *, samples: int | None = None, steps: int | None = None
    ) -> Iterator[AnyBatch]:
        """The batches of `loader`, again and again, until all nodes together have trained on so
        many samples, or made so many local steps: all stop together, and fast nodes make more of
        it. A sampler's `set_epoch` is called before each pass. Raises ConfigError.
        """
        self._goal.aim(samples, steps)
        return self._goal.batches(loader, set_epoch(loader))

    # The training thread, once a step. Everything in here is counted as this package's time.

    def _after_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        begin = time.perf_counter()
        found_inf = getattr(optimizer, "found_inf", None)  # set by a GradScaler around fused steps
        if found_inf is not None and found_inf.device.type == "cpu" and float(found_inf):
            return  # on a device the step counts: asking would wait for it
        self.steps += 1
        self._burst.made += 1
        if self._watch.first_step():
            for state in self._states:
                state.check_found()
            check_averaged_once(self._model)  # a framework may have wrapped it since
            warn_of_states(self._live_optimizers(), {state.name for state in self._states})
            if self._connection is not None:
                self._connection.others.stepped()
        self._watch.glance()
        self._goal.progress.made(1, 0)
        waited_s = self._step_boundary(self._connection) if self._connection is not None else 0.0
        if begin >= self.lines.due:
            self.lines.add(begin, self._so_far())
        self._timing.add(begin, time.perf_counter() - begin - waited_s, waited_s)

    def _step_boundary(self, connection: Connection) -> float:
        """x += p; and c = x if the burst is over. Returns the seconds it waited for an exchange,
        which are 0 in non-blocking mode.
        """
        replica, worker = connection.replica, connection.worker
        self._check(connection)
        if connection.others.wanted:
            connection.others.lay_out(worker.do, worker.endpoint.others_ready)
        ends = self._burst.due and worker.ready()
        if not ends and not replica.has_pending:
            return 0.0
        for state in self._states:
            state.adopt()
        if not ends:
            self._watch.follow()
            self._missed += not replica.try_apply()
            return 0.0
        self._watch.look()
        try:
            published = replica.try_publish()
        except ModelError as error:
            self._diverged(connection, error)
            return 0.0
        if not published:
            self._missed += 1
            return 0.0
        self._burst.next()
        worker.burst_ended()
        return 0.0 if self.config.mode == "non-blocking" else self._wait(connection)

    def _wait(self, connection: Connection) -> float:
        """Blocking modes: until the exchange is mixed or given up; then x gets what it brought."""
        begin = time.perf_counter()
        connection.worker.wait_released()
        waited_s = time.perf_counter() - begin
        self._check(connection)
        connection.replica.settle()
        return waited_s

    def _diverged(self, connection: Connection, error: ModelError) -> None:
        """Raise it, or begin again from the copy, if so set."""
        if self.config.on_divergence == "raise":
            raise error
        lives = [self._watch.live, *(state.live for state in self._states)]
        restore(connection.replica, lives, self._model, self._live_optimizers())
        connection.worker.note("diverged", self.rank, f"{error}. It begins again from its copy")

    def _check(self, connection: Connection) -> None:
        """Raise what ended the exchange side, or kept a model from being published."""
        if connection.worker.error is not None:
            connection.raise_error(connection.worker.error)
        if connection.replica.error is not None:
            self._diverged(connection, connection.replica.error)

    # What a user asks for.

    def mean_model(
        self, recalibrate: Batches | Literal[False] | None = None
    ) -> dict[str, torch.Tensor]:
        """The state dict of the exact mean of all live nodes' models, each tensor on the device of
        this node's own: a collective, all must call it.

        Stops this node's exchanges, waits until every node has called it or is dead (it answers
        others meanwhile), then averages the parameters. Frozen ones, buffers and all else that the
        state dict holds are this node's own; with the setting ``buffers="average"`` floating-point
        buffers are averaged as well, but for those of a parametrization, such as spectral norm's,
        which are the first node's, and those that have other shapes elsewhere. Every node gets the
        same averages, and its own model stays as it is. Training may go on afterwards.

        `recalibrate` estimates batch norm's statistics anew: batches of this node's training data,
        which go through the mean model (tensors; tuples or lists whose first item is the input;
        mappings of keyword arguments), or a function that is given the model and runs it. All of
        them are used. What the nodes find is averaged, also for nodes that give none. Without it
        the statistics are those of a buffer, with a warning; False says that you see to them.

        Raises PeerError if this node had been silent for so long that the others went on without
        it, or if the store is gone; ModelError if what is trained is not what is exchanged;
        ConfigError if `recalibrate` gives no batch; SwarmError if this node has left.
        """
        if self._left:
            raise SwarmError(
                "mean_model() after this node left the swarm: call it before leave(), inside the "
                "with block. The model itself is intact"
            )
        self._watch.look()
        self._locate()
        if (connection := self._connection) is not None:
            self._check(connection)
            connection.worker.pause()
        self.recorder.write("mean", of=None)
        try:
            state, means = mean_state(
                self._model,
                self._watch.layout,
                lambda buffers: self._mean.of(self._settled, buffers),
                lambda vector: self._mean.of(lambda: vector, again=True),
                averaged=self.config.buffers == "average",
                recalibrate=recalibrate,
            )
        finally:
            if connection is not None:
                connection.worker.resume()
        self.recorder.write("mean", of=means.nodes)
        self.gamma, self.mean_of = means.gamma, means.nodes
        return state

    def _settled(self) -> torch.Tensor:
        """x + p, [D]."""
        if self._connection is not None:
            self._check(self._connection)
            return torch.from_numpy(self._connection.replica.read())
        own = vectors.empty(self._watch.layout.dim)
        self._watch.live.read(own)
        return torch.from_numpy(own)

    def settle(self) -> None:
        """Add what exchanges have brought so far to the model now, not at the next step.

        Before the parameters are exchanged for others for a while: what comes in meanwhile is added
        to those. After `mean_model()` nothing comes in any more until the next step.
        """
        if self._connection is not None and not self._left:
            self._locate()
            self._connection.replica.settle()
            self._watch.settled()

    def _locate(self) -> None:
        """Where everything is, before all of it is read or written."""
        self._watch.locate()
        for state in self._states:
            state.adopt()

    def _live_optimizers(self) -> list[Optimizer]:
        return [found for found in (each() for each in self._optimizers) if found is not None]

    def save(self, path: str | os.PathLike[str], **parts: Stateful | None) -> None:
        """Write this node's checkpoint into the folder `path` (or a URL that fsspec opens), between
        two steps; no other node stops for it.

        It has the model with what exchanges have brought, the optimizer, this node's place in the
        swarm, the global random states of torch, numpy and Python, and `parts`: what else the loop
        has to go on with, by name (scheduler=, sampler=, scaler=, ...), anything that has
        state_dict() and load_state_dict(). An exchange that this node waits for is finished first;
        one that a peer begins meanwhile is left out. It replaces the former checkpoint once it is
        whole. `swarmsgd.load` is the way back.

        Raises ConfigError for a state that can be kept neither as tensors nor as JSON, or a folder
        with checkpoints of another run; DataError if it cannot be written. The former checkpoint is
        then as it was.
        """
        if self._left:
            raise SwarmError("save() after this node left the swarm: save before leave()")
        optimizers = self._live_optimizers()
        if len(optimizers) < len(self._optimizers):
            raise SwarmError("save() after the optimizer that joined is gone: keep it")
        self._watch.look()
        if self._connection is None:
            state = self._place.state()
        else:
            self._check(self._connection)
            worker = self._connection.worker
            worker.wait_released()
            self.settle()
            state = worker.ask(lambda: self._place.state(worker.replica, worker.machine))
        standing = Standing(
            self._model, optimizers, self.config, self.rank, self.num_nodes, self.steps, state
        )
        self._resumed = save(path, standing, self._resumed, parts)

    def stats(self) -> dict[str, Any]:
        """What this node did so far; counts, bytes, and seconds of the training thread.

        `hook_s_*` is the time per step inside this package, waiting excluded; `blocked_s` the time
        spent waiting for exchanges, 0 in non-blocking mode; `step_s_*` the time from one step to
        the next. `lost` exchanges are those that may have shifted the sum of models.
        `gamma_estimate` is Gamma as this node's exchanges show it.
        """
        return self._so_far() | {"lock_missed": self._missed} | self._timing.figures()

    def _so_far(self) -> dict[str, Any]:
        """What of it costs next to nothing."""
        figures: dict[str, Any] = {"rank": self.rank, "steps": self.steps}
        figures |= figures_of(self._connection and self._connection.worker)
        figures["gamma_estimate"] = gamma_of(self.graph, figures["recent_sq"], figures["mixes"])
        return figures | self._timing.so_far()

    def note_loss(self, loss: float) -> None:
        """A training loss of this node, for its records and what shows them; nobody else hears."""
        self.lines.note(loss)

    def report_to(self, sinks: Sequence[Sink]) -> None:
        """Send `stats()` to these sinks every few seconds, until this node leaves."""
        settings = self.config.in_effect() | {"graph": self.graph.name, "nodes": self.num_nodes}
        self._reporter = Reporter(self.stats, sinks, f"node-{self.rank}", settings)

    def leave(self) -> None:
        """Finish or give up exchanges in flight, apply what is pending, detach. May be called
        twice.

        What the model holds afterwards is part of the conserved sum. The others go on without this
        node. In a forked child, which is not the node, it does nothing.
        """
        if self._left or os.getpid() != self._process:
            return
        self._left = True
        self._hook.remove()
        JOINED.difference_update(self._live_optimizers())
        self._others.close()
        self._watch.close()
        try:
            if self._connection is not None:
                self._connection.close(self._settle)
        finally:
            if self._reporter is not None:
                self._reporter.close()
            self.recorder.write("end", **self.stats())
            self.recorder.close()

    def _settle(self) -> None:
        assert self._connection is not None
        try:
            self._locate()
        except SwarmError as error:
            _log.warning("node %d left without what was pending for it: %s", self.rank, error)
        else:
            self._connection.replica.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def __repr__(self) -> str:
        where = f"node {self.rank} of {self.num_nodes}, {self.graph.name}"
        return f"<Swarm {where}, {self.config.mode}, step {self.steps}>"


def _leave(reference: weakref.ref[Swarm]) -> None:
    swarm = reference()
    if swarm is not None:
        swarm.leave()
