"""The models of all nodes as rows of arrays, and the local steps that move them.

`x_ND` are the live models, `v_ND` the optimizers' momentum, which stays local (section 2). A local
step is torch's SGD, operation for operation, so that it ends with the bits a real node's ends with.
"""

from __future__ import annotations

import math
import time

import numpy as np

from swarmsgd.errors import ModelError
from swarmsgd.sim.config import SimConfig
from swarmsgd.sim.learners import Learner, Rule, Vector, descend, learner_of
from swarmsgd.tasks import Score, Task


class Fleet:
    """`config.nodes` models that begin equal. Times are real seconds, spent on this machine."""

    def __init__(self, task: Task, config: SimConfig) -> None:
        self.config = config
        self.num_nodes = config.nodes
        self.learner: Learner = learner_of(task, config.seed)
        self.dim = self.learner.dim
        self.total_steps = config.total_steps(task.samples_per_epoch, task.batch_size)
        """T, local steps a node makes in a run whose nodes are equally fast."""
        self.batch_size = task.batch_size
        self.samples_per_epoch = task.samples_per_epoch
        start, buffers = self.learner.start()
        self.x_ND = np.repeat(start[None], self.num_nodes, axis=0)
        self.v_ND = np.zeros_like(self.x_ND)
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
        return self._rule(node, 1).rates[0]

    def steps_of(self, node: int, count: int) -> None:
        """`count` local steps of `node`, in place. Raises ModelError as `gradient` does."""
        begin = time.perf_counter()
        rule = self._rule(node, count)
        x, v, buffers = self.x_ND[node], self.v_ND[node], self.buffers_NB[node]
        loss = self.learner.steps(node, x, v, buffers, rule)
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

    def descend(self, x: Vector, v: Vector, gradient: Vector, lr: float) -> None:
        """One optimizer step on vectors [D], in place; see `learners.descend`."""
        begin, optimizer = time.perf_counter(), self.config.optimizer
        descend(x, v, gradient, lr, Rule((lr,), optimizer.momentum, optimizer.weight_decay))
        self.gradient_s += time.perf_counter() - begin

    def _rule(self, node: int, count: int) -> Rule:
        rule, done, total = self.config.optimizer, int(self.steps_N[node]), self.total_steps
        if self.joint_schedule:
            done, total = self.steps, self.budget
        rates = [rule.rate(min(1.0, step / total)) for step in range(done, done + count)]
        return Rule(rates, rule.momentum, rule.weight_decay)

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
