"""Any task by autograd and torch's own optimizer: one module and one optimizer serve all nodes.

Where another node's turn begins, the parameters and the optimizer's state are placed on its rows;
no vector is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from swarmsgd.codec import vectors
from swarmsgd.core.layout import Layout
from swarmsgd.core.wire_code import Vector
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.settings.precision import computing_in
from swarmsgd.sim.engine.optimizer_states import OptimizerStates
from swarmsgd.tasks import Batch, Score, Task, estimate_batch_norm


class ModuleLearner:
    """See `learners.Learner`. Its steps are those of `train.command.trainee`, bit for bit."""

    def __init__(
        self, task: Task, seed: int, settings: OptimizerSettings, precision: str = "float32"
    ) -> None:
        self._task = task
        self._precision = precision
        self._settings = settings
        self._model = task.make_model(seed)
        self._layout = Layout(self._model)
        self._parameters = self._layout.parameters
        self._own = torch.from_numpy(vectors.empty(self._layout.dim))
        self._parts_of_own = list(self._layout.parts(self._own))
        for parameter, part in self._parts_of_own:
            part.copy_(parameter.detach())
        self._optimizer = settings.make(self._model.parameters())
        self._fresh = self._optimizer.state
        self._floats = [b for b in self._model.buffers() if b.is_floating_point()]
        self._batches: dict[int, Iterator[Batch]] = {}
        self._unreached: set[nn.Parameter] | None = None
        self.dim = self._layout.dim
        self.num_buffers = sum(b.numel() for b in self._floats)

    def start(self) -> tuple[Vector, Vector]:
        return self._own.numpy().copy(), self._read_buffers()

    # Training.

    def steps(
        self,
        node: int,
        x: Vector,
        states: OptimizerStates,
        buffers: Vector,
        rates: Sequence[float],
    ) -> float:
        self._place(torch.from_numpy(x))
        self._load_buffers(buffers)
        self._optimizer.state = states.of(node, self._fresh)
        total = 0.0
        for rate in rates:
            loss = self._backward(node)
            self._step(rate)
            total += loss.item()
        states.gather(node, self._layout)
        if self._floats:
            buffers[:] = self._read_buffers()
        return total

    def gradient(self, node: int, x: Vector, buffers: Vector, out: Vector) -> float:
        self._load(x, buffers)
        loss = self._backward(node)
        self._read_gradient(torch.from_numpy(out))
        if self._floats:
            buffers[:] = self._read_buffers()
        return loss.item()

    def step(
        self, node: int, x: Vector, states: OptimizerStates, gradient: Vector, rate: float
    ) -> None:
        self._place(torch.from_numpy(x))
        for parameter, part in self._layout.parts(torch.from_numpy(gradient)):
            parameter.grad = None if parameter in (self._unreached or ()) else part
        self._optimizer.state = states.of(node, self._fresh)
        self._step(rate)
        states.gather(node, self._layout)

    def _backward(self, node: int) -> Tensor:
        batches = self._batches.get(node)
        if batches is None:
            batches = self._batches[node] = self._task.batches(node)
        for parameter in self._parameters:
            parameter.grad = None
        batch = next(batches)
        with computing_in(self._precision, torch.device("cpu")):
            loss = self._task.loss(self._model, batch)
        loss.backward()
        return loss

    def _step(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._settings.clip(self._parameters)
        self._optimizer.step()

    def _read_gradient(self, out: Tensor) -> None:
        """Zeros stand for the gradient of a parameter that this loss does not reach; what no loss
        has reached yet is noted, since torch's optimizers pass over such a parameter.
        """
        missed: set[nn.Parameter] = set()
        for parameter, part in self._layout.parts(out):
            if parameter.grad is None:
                part.zero_()
                missed.add(parameter)
            else:
                part.copy_(parameter.grad)
        self._unreached = missed if self._unreached is None else self._unreached & missed

    # Scoring.

    def evaluate(self, x: Vector, buffers: Vector, *, mean: bool) -> Score:
        self._load(x, buffers)
        if mean:
            estimate_batch_norm(self._model, self._task)
        return self._task.evaluate(self._model)

    def train_score(self, x: Vector, buffers: Vector) -> Score:
        self._load(x, buffers)
        estimate_batch_norm(self._model, self._task)
        return self._task.train_score(self._model)

    def state(self, x: Vector, buffers: Vector) -> dict[str, Tensor]:
        self._load(x, buffers)
        estimate_batch_norm(self._model, self._task)
        return {name: value.clone() for name, value in self._model.state_dict().items()}

    # Where the module's numbers lie.

    def _place(self, vector: Tensor) -> None:
        """Let the parameters be parts of `vector` [D]."""
        for parameter, part in self._layout.parts(vector):
            parameter.data = part

    def _load(self, x: Vector, buffers: Vector) -> None:
        """Take copies: `x` need not be aligned as a row of a fleet is."""
        self._own.copy_(torch.from_numpy(x))
        for parameter, part in self._parts_of_own:
            parameter.data = part
        self._load_buffers(buffers)

    def _load_buffers(self, buffers: Vector) -> None:
        at = 0
        for buffer in self._floats:
            part = buffers[at : at + buffer.numel()]
            buffer.copy_(torch.from_numpy(part).view_as(buffer))
            at += buffer.numel()

    def _read_buffers(self) -> Vector:
        if not self._floats:
            return np.zeros(0, np.float32)
        return torch.cat([b.detach().flatten() for b in self._floats]).numpy()
