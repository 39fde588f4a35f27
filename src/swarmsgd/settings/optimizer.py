"""The optimizer of every node as a value: which of torch's, its settings, its rate over the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from swarmsgd.checks import number, one_of
from swarmsgd.settings.options import setting


class _Kind(NamedTuple):
    make: Callable[..., torch.optim.Optimizer]
    takes: tuple[str, ...]
    """The settings it has, besides `lr`."""
    help: str


OPTIMIZERS: Mapping[str, _Kind] = {
    "sgd": _Kind(
        torch.optim.SGD, ("momentum", "nesterov", "weight_decay"), "torch's SGD, with momentum"
    ),
    "adamw": _Kind(
        torch.optim.AdamW, ("betas", "eps", "weight_decay"), "torch's AdamW (Loshchilov 2019)"
    ),
}
"""Name -> how torch makes it, the settings it takes, a line of help. Any of torch.optim whose state
is tensors of the parameters' shapes and numbers fits: one line adds it.
"""


class _Schedule(NamedTuple):
    factor: Callable[[float], float]
    help: str


SCHEDULES: Mapping[str, _Schedule] = {
    "cosine": _Schedule(
        lambda done: 0.5 * (1 + math.cos(math.pi * done)), "from lr to 0 along half a cosine"
    ),
    "constant": _Schedule(lambda done: 1.0, "lr all the time"),
}
"""Name -> share of the run done -> factor of the learning rate, and a line of help."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Checked when made: raises ConfigError."""

    optimizer: str = setting("sgd", table=OPTIMIZERS)
    """What every node steps with: sgd or adamw, torch's own."""

    lr: float = 0.1
    """Learning rate of every node; tune it for each algorithm."""

    schedule: str = setting("cosine", table=SCHEDULES)
    """How the learning rate goes over the run: cosine or constant."""

    momentum: float = 0.9
    """Momentum (sgd); it stays on the node unless exchanged."""

    nesterov: bool = False
    """Nesterov's momentum (sgd)."""

    weight_decay: float = 0.0
    """Weight decay."""

    beta1: float = 0.9
    """Decay of the running mean of gradients (adamw)."""

    beta2: float = 0.999
    """Decay of the running mean of their squares (adamw)."""

    eps: float = 1e-8
    """Added to the root of it (adamw)."""

    clip_norm: float | None = None
    """Scale each node's gradient down to this 2-norm where it is longer; none: never."""

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        number("lr", self.lr, above=0)
        for name in ("momentum", "beta1", "beta2"):
            number(name, getattr(self, name), least=0, below=1)
        number("weight_decay", self.weight_decay, least=0)
        number("eps", self.eps, above=0)
        if self.clip_norm is not None:
            number("clip_norm", self.clip_norm, above=0)

    @property
    def betas(self) -> tuple[float, float]:
        """As torch takes them."""
        return self.beta1, self.beta2

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimizer over `parameters`."""
        kind = OPTIMIZERS[self.optimizer]
        options: dict[str, Any] = {name: getattr(self, name) for name in kind.takes}
        return kind.make(parameters, lr=self.lr, **options)

    def rate(self, done: float) -> float:
        """The learning rate when a share `done` (0 to 1) of the run is over."""
        return self.lr * SCHEDULES[self.schedule].factor(done)

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients in place, as one vector, if `clip_norm` is set."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)
