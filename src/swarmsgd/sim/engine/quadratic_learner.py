"""The synthetic task without autograd: microseconds a step, for many nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.optim.sgd import sgd

from swarmsgd.core.wire_code import Vector
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.sim.engine import quadratic
from swarmsgd.sim.engine.optimizer_states import OptimizerStates
from swarmsgd.tasks import Score, SyntheticTask, node_generator

MOMENTUM = "momentum_buffer"
"""Torch's name of it."""


class QuadraticLearner:
    """See `learners.Learner`. For SGD that has momentum and weight decay at most: see `fits`.

    Its batches are the task's to the bit, its steps torch's to float rounding.
    """

    num_buffers = 0

    def __init__(self, task: SyntheticTask, seed: int, settings: OptimizerSettings) -> None:
        self._task = task
        self._seed = seed
        self._momentum = settings.momentum
        self._weight_decay = settings.weight_decay
        self._curvature = task.curvature_D.numpy()
        self._centers = task.centers_ND.numpy()
        self._scale = np.float32(task.options.noise)
        self._rngs: dict[int, np.random.Generator] = {}
        self.dim = task.options.dimension
        self._no_momentum = np.zeros(self.dim, np.float32)

    @staticmethod
    def fits(settings: OptimizerSettings) -> bool:
        """Whether steps by `settings` are those of the kernel."""
        return settings.optimizer == "sgd" and not settings.nesterov and settings.clip_norm is None

    def start(self) -> tuple[Vector, Vector]:
        return self._task.make_model(self._seed).x.detach().numpy().copy(), np.zeros(0, np.float32)

    def steps(
        self,
        node: int,
        x: Vector,
        states: OptimizerStates,
        buffers: Vector,
        rates: Sequence[float],
    ) -> float:
        v = states.rows(MOMENTUM)[node] if self._momentum else self._no_momentum
        noise = self._noise(node, len(rates))
        center, curvature = self._centers[node], self._curvature
        return quadratic.steps(
            x, v, center, curvature, noise, np.array(rates), self._momentum, self._weight_decay
        )

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        noise = self._noise(node, 1)[0]
        return quadratic.gradient(x, self._centers[node], self._curvature, noise, out)

    def step(
        self, node: int, x: Vector, states: OptimizerStates, gradient: Vector, rate: float
    ) -> None:
        v = torch.from_numpy(states.rows(MOMENTUM)[node]) if self._momentum else None
        sgd(
            [torch.from_numpy(x)],
            [torch.from_numpy(gradient)],
            [v],
            foreach=False,
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _noise(self, node: int, count: int) -> Vector:
        """[count, D] as `count` batches of the task hold it."""
        rng = self._rngs.get(node)
        if rng is None:
            rng = self._rngs[node] = node_generator(self._task.options.seed, node)
        drawn = rng.standard_normal((count, self.dim), dtype=np.float32)
        drawn *= self._scale
        return drawn

    def evaluate(self, x: Vector, buffers: Vector, *, mean: bool) -> Score:
        return self._task.evaluate(self._model(x))

    def train_score(self, x: Vector, buffers: Vector) -> Score:
        return self._task.train_score(self._model(x))

    def state(self, x: Vector, buffers: Vector) -> dict[str, torch.Tensor]:
        return {"x": torch.from_numpy(x.copy())}

    def _model(self, x: Vector) -> torch.nn.Module:
        model = self._task.make_model(self._seed)
        with torch.no_grad():
            model.x.copy_(torch.from_numpy(x))
        return model
