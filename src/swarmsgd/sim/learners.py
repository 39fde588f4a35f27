"""Real gradients of a task for any node's parameters: one module serves all nodes in turn.

What a learner computes for node i is what `swarmsgd train` computes there: the same batches, the
same arithmetic, the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from swarmsgd.core.arena import Arena
from swarmsgd.sim import quadratic
from swarmsgd.tasks import (
    Batch,
    Score,
    SyntheticTask,
    Task,
    estimate_batch_norm,
    node_generator,
)

Vector = npt.NDArray[np.float32]


class Rule(NamedTuple):
    """Local steps by torch's SGD."""

    rates: Sequence[float]
    momentum: float
    weight_decay: float


def descend(x: Vector, v: Vector, gradient: Vector, lr: float, rule: Rule) -> None:
    """torch.optim.SGD on vectors [D], operation for operation: x -= lr v, with v its momentum.

    In place; `gradient` is changed too if there is weight decay.
    """
    x_, v_, g_ = torch.from_numpy(x), torch.from_numpy(v), torch.from_numpy(gradient)
    if rule.weight_decay:
        g_.add_(x_, alpha=rule.weight_decay)
    if rule.momentum:
        v_.mul_(rule.momentum).add_(g_)
        g_ = v_
    x_.add_(g_, alpha=-lr)


class Learner(Protocol):
    """Gradients and scores of one task; vectors are float32 [D]."""

    dim: int
    """D."""
    num_buffers: int
    """Floating-point buffers of the model (batch norm's), which each node has for itself."""

    def start(self) -> tuple[Vector, Vector]:
        """Parameters [D] and floating buffers [B] that every node begins with."""
        ...

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        """The gradient at `x` on the next batch of `node`, written to `out`; the batch's loss."""
        ...

    def steps(self, node: int, x: Vector, v: Vector, buffers: Vector, rule: Rule) -> float:
        """Local steps of `node`, one for each rate of the rule: x and v change in place; the sum
        of the losses.
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


def learner_of(task: Task, seed: int) -> Learner:
    """The fastest learner for this task."""
    return QuadraticLearner(task, seed) if isinstance(task, SyntheticTask) else Module(task, seed)


class Module:
    """Any task, by autograd."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._model = task.make_model(seed)
        self._arena = Arena(self._model)
        self._floats = [b for b in self._model.buffers() if b.is_floating_point()]
        self._gradient = torch.zeros(self._arena.dim)
        for parameter, part in zip(
            (p for p in self._model.parameters() if p.requires_grad),
            self._arena.by_identity(self._gradient).values(),
            strict=True,
        ):
            parameter.grad = part
        self._batches: dict[int, Iterator[Batch]] = {}
        self._scratch = np.zeros(self._arena.dim, np.float32)
        self.dim = self._arena.dim
        self.num_buffers = sum(b.numel() for b in self._floats)

    def start(self) -> tuple[Vector, Vector]:
        return self._arena.live.numpy().copy(), self._read_buffers()

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        batches = self._batches.get(node)
        if batches is None:
            batches = self._batches[node] = self._task.batches(node)
        self._load(x, buffers)
        self._gradient.zero_()
        loss = self._task.loss(self._model, next(batches))
        loss.backward()
        out[:] = self._gradient.numpy()
        if self._floats:
            buffers[:] = self._read_buffers()
        return loss.item()

    def steps(self, node: int, x: Vector, v: Vector, buffers: Vector, rule: Rule) -> float:
        loss = 0.0
        for lr in rule.rates:
            loss += self.gradient(node, x, buffers, self._scratch)
            descend(x, v, self._scratch, lr, rule)
        return loss

    def evaluate(self, x: Vector, buffers: Vector, *, mean: bool) -> Score:
        self._load(x, buffers)
        if mean:
            estimate_batch_norm(self._model, self._task)
        return self._task.evaluate(self._model)

    def train_score(self, x: Vector, buffers: Vector) -> Score:
        self._load(x, buffers)
        estimate_batch_norm(self._model, self._task)
        return self._task.train_score(self._model)

    def state(self, x: Vector, buffers: Vector) -> dict[str, torch.Tensor]:
        self._load(x, buffers)
        estimate_batch_norm(self._model, self._task)
        return {name: value.clone() for name, value in self._model.state_dict().items()}

    def _load(self, x: Vector, buffers: Vector) -> None:
        self._arena.live.copy_(torch.from_numpy(x))
        at = 0
        for buffer in self._floats:
            part = buffers[at : at + buffer.numel()]
            buffer.copy_(torch.from_numpy(part).view_as(buffer))
            at += buffer.numel()

    def _read_buffers(self) -> Vector:
        if not self._floats:
            return np.zeros(0, np.float32)
        return torch.cat([b.detach().flatten() for b in self._floats]).numpy()


class QuadraticLearner:
    """The synthetic task without autograd: microseconds a step, for many nodes.

    Its batches are the task's to the bit, its steps torch's to float rounding.
    """

    num_buffers = 0

    def __init__(self, task: SyntheticTask, seed: int) -> None:
        self._task = task
        self._seed = seed
        self._curvature = task.curvature_D.numpy()
        self._centers = task.centers_ND.numpy()
        self._scale = np.float32(task.options.noise)
        self._rngs: dict[int, np.random.Generator] = {}
        self.dim = task.options.dimension

    def start(self) -> tuple[Vector, Vector]:
        return self._task.make_model(self._seed).x.detach().numpy().copy(), np.zeros(0, np.float32)

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        noise = self._noise(node, 1)[0]
        return quadratic.gradient(x, self._centers[node], self._curvature, noise, out)

    def steps(self, node: int, x: Vector, v: Vector, buffers: Vector, rule: Rule) -> float:
        rates = np.array(rule.rates)
        noise = self._noise(node, rates.size)
        center, curvature = self._centers[node], self._curvature
        return quadratic.steps(
            x, v, center, curvature, noise, rates, rule.momentum, rule.weight_decay
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
