"""Real gradients of a task, and steps by torch's optimizer, for any node's parameters.

What a learner computes for node i is what `swarmsgd train` computes there: the same batches, the
same arithmetic, the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from swarmsgd.core.wire_code import Vector
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.sim.engine.module_learner import ModuleLearner
from swarmsgd.sim.engine.optimizer_states import OptimizerStates
from swarmsgd.sim.engine.quadratic_learner import QuadraticLearner
from swarmsgd.tasks import Score, SyntheticTask, Task


class Learner(Protocol):
    """Gradients, optimizer steps and scores of one task; vectors are float32 [D]."""

    dim: int
    """D."""
    num_buffers: int
    """Floating-point buffers of the model (batch norm's), which each node has for itself."""

    def start(self) -> tuple[Vector, Vector]:
        """Parameters [D] and floating buffers [B] that every node begins with."""
        ...

    def steps(
        self,
        node: int,
        x: Vector,
        states: OptimizerStates,
        buffers: Vector,
        rates: Sequence[float],
    ) -> float:
        """Local steps of `node`, one for each learning rate: x, a row of `states.rows`, the node's
        state and buffers change in place; the sum of the losses.
        """
        ...

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        """The gradient at `x` on the next batch of `node`, written to `out`; the batch's loss."""
        ...

    def step(
        self, node: int, x: Vector, states: OptimizerStates, gradient: Vector, rate: float
    ) -> None:
        """One step of the node's optimizer on `x`, in place, with a gradient that `gradient` gave
        or a mean of such. It is clipped in place, as it is.
        """
        ...

    def evaluate(self, x: Vector, buffers: Vector, *, mean: bool) -> Score:
        """The score on the test set; a `mean` of models gets its batch norm estimated anew."""
        ...

    def train_score(self, x: Vector, buffers: Vector) -> Score:
        """The score of a mean model on a sample of the training data."""
        ...

    def state(self, x: Vector, buffers: Vector) -> dict[str, torch.Tensor]:
        """The state dict of a mean model."""
        ...


def learner_of(
    task: Task, seed: int, settings: OptimizerSettings, precision: str = "float32"
) -> Learner:
    """The fastest learner for this task and optimizer."""
    if isinstance(task, SyntheticTask) and QuadraticLearner.fits(settings):
        return QuadraticLearner(task, seed, settings)
    return ModuleLearner(task, seed, settings, precision)
