"""Swarms of the simulator brought to their steady state, and what is measured there.

Nothing is replaced: these drive the engine (`swarmsgd.sim`) from entry to entry of its agenda and
look at it between exchanges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from theory_formulas import gamma_of

from swarmsgd import graphs
from swarmsgd.settings.swarm import lengths_of
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.engine.world import World
from swarmsgd.sim.swarm.nodes import SwarmEngine
from swarmsgd.tasks import SyntheticOptions, SyntheticTask

INSTANT = World(step_jitter=0.3, latency_ms=0.0, bandwidth_mbit_s=math.inf)
"""Exchanges take no time, so none overlap and the averages are exact; steps take unequal times."""
LOCKSTEP = World(latency_ms=0.0, bandwidth_mbit_s=math.inf)
"""The same with all nodes equally fast: rounds of the matching mode stay rounds."""


class PureNoise(SyntheticTask):
    """The synthetic task without curvature: a gradient is noise and nothing else."""

    def __init__(self, options: SyntheticOptions, num_nodes: int) -> None:
        super().__init__(options, num_nodes)
        self.curvature_D = torch.zeros_like(self.curvature_D)


def setting(
    nodes: int,
    *,
    dim: int = 256,
    noise: float = 1.0,
    heterogeneity: float = 0.0,
    condition: float = 1.0,
    graph: str = "complete",
    mode: str = "non-blocking",
    local_steps: int | str = 4,
    bits: int | None = None,
    lr: float = 0.01,
    seed: int = 0,
    world: World = INSTANT,
) -> SimConfig:
    """Plain SGD at a constant rate, with more steps than anyone will look at."""
    options = SyntheticOptions(
        dimension=dim, noise=noise, heterogeneity=heterogeneity, condition=condition
    )
    return SimConfig.of(
        task=options, nodes=nodes, exchanges_per_node=1e6, budget="together", graph=graph,
        mode=mode, local_steps=local_steps, bits=bits, lr=lr, schedule="constant", momentum=0.0,
        seed=seed, world=world,
    )  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, batches: np.ndarray) -> Mean:
        """Of means over batches [B] long enough to be independent."""
        error = batches.std(ddof=1) / math.sqrt(len(batches)) if len(batches) > 1 else math.nan
        return cls(float(batches.mean()), float(error))

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Steady:
    """Means over the steady state."""

    exchanges: int
    """That the means are over."""
    apart_sq: Mean
    """||Q_i - Q_j||^2 of the exchanges, as both of their ends recorded it."""
    noise_sq: Mean
    """The part that the code's errors are expected to make up of it."""
    gamma: Mean
    """Of the copies, between exchanges."""
    excess: Mean
    """Loss of the mean model above the best possible."""
    own_excess: Mean
    """The same of single nodes' models, mean over nodes."""


def synthetic(config: SimConfig) -> SyntheticTask:
    """The task of `config`, which must be the synthetic one."""
    assert isinstance(config.task, SyntheticOptions)
    return SyntheticTask(config.task, config.nodes)


def pure_noise(config: SimConfig) -> PureNoise:
    """The task of `config` without curvature."""
    assert isinstance(config.task, SyntheticOptions)
    return PureNoise(config.task, config.nodes)


class Run:
    """A swarm that is looked at while it runs.

    `settled`: every node begins at the best model, so that less has to settle.
    """

    def __init__(self, config: SimConfig, task: SyntheticTask, *, settled: bool = True) -> None:
        self.config = config
        self.task = task
        self.fleet = Fleet(task, config)
        if settled:
            self.fleet.x_ND[:] = task.optimum_D.numpy()
        self.ledger = Ledger(config.nodes, None)
        self.swarm = SwarmEngine(self.fleet, self.ledger)
        self.burst_s = (
            self.config.world.step_time_ms / 1000 * lengths_of(config.swarm.local_steps).mean
        )

    def looks(self, bursts: Iterable[float]) -> Iterator[float]:
        """Runs the swarm, stands still at these times, in bursts of a usual node, and yields them.

        Where exchanges take no time, there is none under way then.
        """
        due: list[float] = []
        left = 0
        for at in bursts:
            left += 1
            self.ledger.clock.at(at * self.burst_s, due.append, at)
        for _ in self.swarm.run():
            if due:
                yield due.pop()
                left -= 1
                if not left:
                    return

    def counters(self) -> tuple[float, float, float]:
        """Mixes at both ends so far, sums of ||Q_i - Q_j||^2 and of the code's errors over them."""
        traffic = [node.endpoint.traffic for node in self.swarm.nodes]
        return (
            sum(t.mixes for t in traffic),
            sum(t.distance_sq for t in traffic),
            sum(t.noise_sq for t in traffic),
        )

    def state(self) -> tuple[float, float, float]:
        """Gamma of the copies; excess loss of the mean model, and of the nodes' own on average."""
        models_ND = torch.from_numpy(self.swarm.models())
        return (
            gamma_of(self.swarm.copy_ND),
            float(self.task.excess_loss(models_ND.double().mean(0))),
            float(self.task.excess_loss(models_ND).mean()),
        )

    def apart_sq(self, pairs: tuple[graphs.Edge, ...]) -> float:
        """||c_i - c_j||^2, mean over these pairs."""
        i, j = np.array(pairs).T
        copies_ND = self.swarm.copy_ND.astype(np.float64)
        return float(np.square(copies_ND[i] - copies_ND[j]).sum(-1).mean())


def steady(
    config: SimConfig,
    task: SyntheticTask,
    bursts: int,
    *,
    warm: float = 0.3,
    batches: int = 20,
    samples: int = 5,
) -> Steady:
    """Means over `bursts` bursts but for a first share `warm`; errors from `batches` means."""
    run = Run(config, task)
    times = np.linspace(warm * bursts, bursts, batches * samples + 1)
    seen = np.array([(*run.counters(), *run.state()) for _ in run.looks(times)])
    mixes, apart, noise = np.diff(seen[::samples, :3], axis=0).T
    mixes = np.maximum(mixes, 1)  # a node alone mixes nothing
    gamma, excess, own = seen[1:, 3:].reshape(batches, samples, 3).mean(1).T
    return Steady(
        exchanges=int(mixes.sum()) // 2,
        apart_sq=Mean.of(apart / mixes),
        noise_sq=Mean.of(2 * noise / mixes),  # each end counts the error of what came in
        gamma=Mean.of(gamma),
        excess=Mean.of(excess),
        own_excess=Mean.of(own),
    )


def steps_to(config: SimConfig, task: SyntheticTask, bursts: int, target: float) -> float:
    """Local steps a node until the mean model's excess loss is at most `target`."""
    run = Run(config, task, settled=False)
    a_burst = lengths_of(config.swarm.local_steps).mean
    for _ in run.looks(np.arange(1, bursts * a_burst) / a_burst):
        if run.state()[1] <= target:
            return run.fleet.steps / config.nodes
    raise SystemExit(f"{config.nodes} nodes do not reach {target:g} in {bursts} bursts")


@dataclass(frozen=True)
class Rounds:
    """Mean squared distances of the pairs of a matching."""

    pairs: int
    before: Mean
    """Of the pairs that are about to make a burst each and then average."""
    averaged: Mean
    """Of the same pairs as their exchange sees them, both bursts landed."""


def rounds(
    config: SimConfig, task: SyntheticTask, count: int, *, warm: int, batches: int = 20
) -> Rounds:
    """`count` rounds of the matching mode in lock step, without the first `warm`."""
    run = Run(config, task)
    graph = config.swarm.graph_of(config.nodes)
    before: list[float] = []
    counters: list[tuple[float, ...]] = []
    for at in run.looks(np.arange(warm, count + 1) + 0.5):  # after as many rounds
        before.append(run.apart_sq(graphs.matching_schedule(graph, config.seed, int(at))))
        counters.append(run.counters())
    mixes, apart, _ = np.diff(np.array(counters), axis=0).T
    return Rounds(
        pairs=int(mixes.sum()) // 2,
        before=_of_batches(np.array(before[:-1]), batches),
        averaged=_of_batches(apart / mixes, batches),
    )


def _of_batches(values: np.ndarray, batches: int) -> Mean:
    used = len(values) // batches * batches
    return Mean.of(values[:used].reshape(batches, -1).mean(1))
