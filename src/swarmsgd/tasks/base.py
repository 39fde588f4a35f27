"""What a task is: a model, data for every node, a loss, a score.

Both drivers, the processes of a real run and the simulator, take a `Task` and nothing else, so
whatever trains in one trains in the other on the same batches.

No task draws from a global generator. Every sequence is a function of (seed, node) alone: asking
twice gives the same batches and the same initial weights, and torch's global state is untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from swarmsgd.errors import ConfigError
from swarmsgd.scores import Score

Batch = tuple[Tensor, ...]
"""What one local step trains on; only the task's own `loss` looks inside."""

Notify = Callable[[str], None]
"""Takes one line about something slow (a download, a decode). Tasks print nothing themselves."""


def silent(_line: str) -> None:
    """The `Notify` that says nothing."""


class Recipe(NamedTuple):
    """Options of a run and of its task that go together, where they differ from the defaults."""

    help: str
    options: Mapping[str, Any]


PLAIN = Recipe("every option as it is by itself", {})


class Task(Protocol):
    """Something to train on `num_nodes` nodes."""

    @property
    def name(self) -> str:
        """For records and legends, e.g. ``"fashion-mnist/cnn"``."""
        ...

    @property
    def num_nodes(self) -> int: ...

    @property
    def batch_size(self) -> int:
        """Samples in every batch; all batches are full."""
        ...

    @property
    def samples_per_epoch(self) -> int:
        """Training samples that all nodes together see in one epoch."""
        ...

    def make_model(self, seed: int) -> nn.Module:
        """A fresh model on the CPU, in training mode; equal seeds give equal weights."""
        ...

    def batches(self, node: int) -> Iterator[Batch]:
        """The endless batches of one node, on the CPU, from the start at every call."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch as a scalar that can be differentiated.

        The batch is moved to the device the model is on.
        """
        ...

    def evaluate(self, model: nn.Module) -> Score:
        """The score on the test set. Leaves every module in the mode it was in."""
        ...

    def train_score(self, model: nn.Module) -> Score:
        """The score on a fixed sample of all nodes' training data."""
        ...


def files_of(task: Task) -> Mapping[str, bytes]:
    """What the task's model cannot be used without, a vocabulary for instance, by name of a file: a
    task that has such has a method ``files() -> Mapping[str, bytes]``.
    """
    files: Callable[[], Mapping[str, bytes]] = getattr(task, "files", dict)
    return files()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and evaluation mode; afterwards each module is back in its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter."""
    return next(model.parameters()).device


def check_nodes(num_nodes: int) -> None:
    """Raise ConfigError unless there is at least one node."""
    if num_nodes < 1:
        raise ConfigError(f"a task needs at least 1 node, got {num_nodes}")


def check_node(node: int, num_nodes: int) -> None:
    """Raise ConfigError unless `node` is one of 0 .. num_nodes - 1."""
    if not 0 <= node < num_nodes:
        raise ConfigError(f"node {node} is not one of this task's nodes 0 .. {num_nodes - 1}")
