"""The models of all nodes as rows of arrays, and the local steps that move them.

`x_ND` are the live models, `states` what the optimizers remember, which stays on its node unless an
algorithm exchanges it. A local step gives the same bits as a real node's.
"""

from __future__ import annotations

import math
import time

import numpy as np

from swarmsgd.core.wire_code import Vector
from swarmsgd.errors import ModelError
from swarmsgd.optim import report_factor
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.learners import Learner, learner_of
from swarmsgd.sim.engine.optimizer_states import OptimizerStates, zero_rows
from swarmsgd.tasks import Score, Task


class Fleet:
    """`config.nodes` models that begin equal. Times are real seconds, spent on this machine."""

    def __init__(self, task: Task, config: SimConfig) -> None:
        self.config = config
        self.num_nodes = config.nodes
        self.learner: Learner = learner_of(task, config.seed, config.optimizer, config.precision)
        self.dim = self.learner.dim
        self.total_steps = config.total_steps(task.samples_per_epoch, task.batch_size)
        """T, local steps a node makes in a run whose nodes are equally fast."""
        self.batch_size = task.batch_size
        self.samples_per_epoch = task.samples_per_epoch
        start, buffers = self.learner.start()
        self.x_ND = zero_rows(self.num_nodes, self.dim)
        self.x_ND[:] = start
        self.states = OptimizerStates(self.num_nodes, self.dim)
        self.buffers_NB = np.repeat(buffers[None], self.num_nodes, axis=0)
        self.steps_N = np.zeros(self.num_nodes, np.int64)
        """Where each node is in its schedule; one that joined begins where its neighbours are."""
        self.made_N = np.zeros(self.num_nodes, np.int64)
        """Local steps that each node made."""
        self.steps = 0
        """Local steps of all nodes together."""
        self.joint_schedule = config.budget == "together"
        """Learning rates follow the steps of all nodes together, not each node's own."""
        self.gradient_s = 0.0
        """Spent in gradients and optimizer steps."""
        self.loss_sum = 0.0
        self.loss_count = 0
        self._gradient = np.zeros(self.dim, np.float32)

    @property
    def samples(self) -> int:
        """Training samples of all nodes together."""
        return self.steps * self.batch_size

    @property
    def budget(self) -> int:
        """Local steps of all nodes together that a whole run has."""
        return self.total_steps * self.num_nodes

    def lr(self, node: int) -> float:
        """The learning rate of the next step of `node`."""
        return self._rates(node, 1)[0]

    def state_ND(self, name: str) -> Vector:
        """[N, D] the state of all optimizers that torch calls `name`, such as "momentum_buffer" of
        SGD or "exp_avg" of AdamW; zeros where a node has none yet. May be changed between steps.
        """
        return self.states.rows(name)

    def steps_of(self, node: int, count: int) -> None:
        """`count` local steps of `node`, in place. Raises ModelError as `gradient` does."""
        begin = time.perf_counter()
        rates, x, buffers = self._rates(node, count), self.x_ND[node], self.buffers_NB[node]
        loss = self.learner.steps(node, x, self.states, buffers, rates)
        self.gradient_s += time.perf_counter() - begin
        self._count(node, count, loss)

    def gradient(self, node: int, x: Vector) -> Vector:
        """The gradient [D] at `x` on the next batch of `node`; counts as one of its steps.

        The array is used again by the next call. Raises ModelError for a loss that is no number.
        """
        begin = time.perf_counter()
        loss = self.learner.gradient(node, x, self.buffers_NB[node], self._gradient)
        self.gradient_s += time.perf_counter() - begin
        self._count(node, 1, loss)
        return self._gradient

    def descend(self, node: int, x: Vector, gradient: Vector, lr: float) -> None:
        """One step of the optimizer of `node` on `x` [D], in place. Whatever `gradient` is, of one
        node or a mean of many, it is clipped here, in place, where `clip_norm` is set.
        """
        begin = time.perf_counter()
        self.learner.step(node, x, self.states, gradient, lr)
        self.gradient_s += time.perf_counter() - begin

    def _rates(self, node: int, count: int) -> list[float]:
        rate, done, total = self.config.optimizer.rate, int(self.steps_N[node]), self.total_steps
        if self.joint_schedule:
            done, total = self.steps, self.budget
        return [rate(min(1.0, step / total)) for step in range(done, done + count)]

    def _count(self, node: int, count: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss of node {node} is {loss} at step {self.steps_N[node]}: training "
                f"diverged. Try an lr below {self.config.optimizer.lr:g}"
            )
        self.loss_sum += loss
        self.loss_count += count
        self.steps_N[node] += count
        self.made_N[node] += count
        self.steps += count

    def take_loss(self) -> float | None:
        """The mean training loss since the last call."""
        mean = self.loss_sum / self.loss_count if self.loss_count else None
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def reported(self, models_KD: Vector, nodes: list[int]) -> Vector:
        """[K, D] what the optimizers of these nodes report, whose models are given."""
        settings = self.config.optimizer
        if settings.reports is None:
            return models_KD
        factor = np.float32(report_factor(settings.beta1))
        offset_KD = self.state_ND(settings.reports)[nodes]
        return models_KD + np.multiply(factor, offset_KD, dtype=np.float32)

    def score_mean(self, mean: Vector, nodes: list[int]) -> Score:
        """The mean model on the test set."""
        return self.learner.evaluate(mean, self.mean_buffers(nodes), mean=True)

    def mean_buffers(self, nodes: list[int]) -> Vector:
        """[B] the mean of these nodes' floating buffers."""
        return self.buffers_NB[nodes].mean(0)


def mean_of(rows_KD: Vector) -> tuple[Vector, float]:
    """The mean of rows, added up in float64 one row after another, and sum_i ||x_i - mu||^2."""
    total = np.zeros(rows_KD.shape[1], np.float64)
    for row in rows_KD:
        total += row
    mean = (total / len(rows_KD)).astype(np.float32)
    gamma = 0.0
    for row in rows_KD:
        gamma += float(np.square(row.astype(np.float64) - mean).sum())
    return mean, gamma
