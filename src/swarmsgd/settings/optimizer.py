"""The optimizer of every node as a value: which of torch's, its settings, its rate over the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import nn

from swarmsgd.checks import number, one_of
from swarmsgd.errors import ConfigError
from swarmsgd.optim import OFFSET, ScheduleFreeAdamW
from swarmsgd.settings.options import setting


class _Kind(NamedTuple):
    make: Callable[..., torch.optim.Optimizer]
    takes: tuple[str, ...]
    """Torch's names of the settings it has, besides `lr`."""
    state: tuple[str, ...]
    """Torch's names of what it remembers in the parameters' shapes."""
    help: str
    lr: float | None = None
    """The rate of a run that names it, and no rate; None: that of `OptimizerSettings`."""
    reports: str | None = None
    """State that tells what it reports from what it steps on, see `swarmsgd.optim`."""


_OF_ADAM = 0.003

OPTIMIZERS: Mapping[str, _Kind] = {
    "sgd": _Kind(
        torch.optim.SGD,
        ("momentum", "nesterov", "weight_decay"),
        ("momentum_buffer",),
        "torch's SGD, with momentum",
    ),
    "adam": _Kind(
        torch.optim.Adam,
        ("betas", "eps", "weight_decay"),
        ("exp_avg", "exp_avg_sq"),
        "torch's Adam (Kingma, Ba 2015)",
        lr=_OF_ADAM,
    ),
    "adamw": _Kind(
        torch.optim.AdamW,
        ("betas", "eps", "weight_decay"),
        ("exp_avg", "exp_avg_sq"),
        "torch's AdamW (Loshchilov 2019)",
        lr=_OF_ADAM,
    ),
    "schedulefree-adamw": _Kind(
        ScheduleFreeAdamW,
        ("betas", "eps", "weight_decay", "least_share"),
        (OFFSET, "exp_avg_sq"),
        "AdamW that reports an average of its iterates (Defazio 2024)",
        lr=_OF_ADAM,
        reports=OFFSET,
    ),
}
"""Name -> what makes it, the settings it takes, its state, a line of help. One line adds
another of torch.optim, if its step needs no closure.
"""

_TAKES_ALL = frozenset({"optimizer", "lr", "schedule", "warmup", "clip_norm"})
"""Settings that every optimizer has."""


class _Schedule(NamedTuple):
    factor: Callable[[float, float], float]
    """Of the share (0 to 1) of what follows the warm-up that is over, and the warm-up's share of
    the run.
    """
    help: str


_LARGE_FOR_ADAM = 0.1

DECAY = 0.2
"""Share of what follows the warm-up over which wsd goes to 0."""

SCHEDULES: Mapping[str, _Schedule] = {
    "cosine": _Schedule(
        lambda x, _: 0.5 * (1 + math.cos(math.pi * x)), "from lr to 0 along half a cosine"
    ),
    "linear": _Schedule(lambda x, _: 1 - x, "from lr to 0 along a line"),
    "step": _Schedule(
        lambda x, _: 0.1 ** ((x >= 0.5) + (x >= 0.75)),
        "lr, a tenth of it after half, a hundredth after three quarters (He 2016)",
    ),
    "wsd": _Schedule(
        lambda x, _: min(1.0, (1 - x) / DECAY),
        "lr held, then to 0 along a line over the last fifth (Hu 2024)",
    ),
    "inverse-sqrt": _Schedule(
        lambda x, warm: math.sqrt(warm / (warm + x * (1 - warm))),
        "lr falls as 1 / sqrt(step) after the warm-up (Vaswani 2017)",
    ),
    "constant": _Schedule(lambda x, _: 1.0, "lr all the time"),
}
"""Name -> how the rate goes after the warm-up, and a line of help."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Checked when made: raises ConfigError, also for a setting that the optimizer has not."""

    optimizer: str = setting("sgd", table=OPTIMIZERS)
    """What every node steps with: sgd, adam, adamw or schedulefree-adamw."""

    lr: float = 0.1
    """Learning rate of every node; tune it for each algorithm."""

    schedule: str = setting("cosine", table=SCHEDULES)
    """How the learning rate goes over the run: cosine, linear, step, wsd, inverse-sqrt or
    constant."""

    warmup: float = 0.0
    """Share of the run over which the rate rises from 0 to lr along a line; then the schedule."""

    momentum: float = 0.9
    """Momentum (sgd); it stays on the node unless exchanged."""

    nesterov: bool = False
    """Nesterov's momentum (sgd)."""

    weight_decay: float = 0.0
    """Weight decay."""

    beta1: float = 0.9
    """Decay of the running mean of gradients (adam, adamw); where between the newest iterate and
    the average gradients are taken (schedulefree-adamw)."""

    beta2: float = 0.999
    """Decay of the running mean of their squares (not sgd)."""

    eps: float = 1e-8
    """Added to the root of the running mean of squares (not sgd)."""

    least_share: float = 0.0
    """Least weight of the newest iterate in the average that is reported (schedulefree-adamw); 0:
    all iterates count alike. Above 0 the nodes exchange the model alone."""

    clip_norm: float | None = None
    """Scale a gradient down to this 2-norm before the step where it is longer; none: never."""

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        number("lr", self.lr, above=0)
        number("warmup", self.warmup, least=0, below=1)
        if self.schedule == "inverse-sqrt" and not self.warmup:
            raise ConfigError(
                "schedule is inverse-sqrt, which falls from the end of the warm-up on, but warmup "
                "is 0: give a share of the run, for instance 0.1"
            )
        for name in ("momentum", "beta1", "beta2", "least_share"):
            number(name, getattr(self, name), least=0, below=1)
        number("weight_decay", self.weight_decay, least=0)
        number("eps", self.eps, above=0)
        if self.clip_norm is not None:
            number("clip_norm", self.clip_norm, above=0)
        self._refuse_others_settings()
        if self.reports is not None:
            self._check_reports()
        if self.nesterov and not self.momentum:
            raise ConfigError(
                "nesterov is True but momentum is 0: there is nothing to look ahead along; "
                "give a momentum, or leave nesterov out"
            )

    def _check_reports(self) -> None:
        if self.schedule not in ("constant", "wsd"):
            raise ConfigError(
                f"schedule is {self.schedule}, but {self.optimizer} averages its iterates instead: "
                "take schedule constant, and a warmup of 0.05 perhaps"
            )
        number("beta1", self.beta1, above=0, below=1)

    def _refuse_others_settings(self) -> None:
        """A setting that would change nothing is a mistake, unless it has its default."""
        has = _settings_of(self.optimizer) | _TAKES_ALL
        for field in fields(self):
            got = getattr(self, field.name)
            if field.name not in has and got != field.default:
                whose = [name for name in OPTIMIZERS if field.name in _settings_of(name)]
                raise ConfigError(
                    f"{field.name} is {got!r}, but {self.optimizer} has no {field.name}: leave it "
                    f"out, or take optimizer {' or '.join(whose)}"
                )

    def doubt(self) -> str | None:
        """What is allowed, and hardly meant."""
        if self.optimizer == "sgd" or self.lr < _LARGE_FOR_ADAM:
            return None
        return (
            f"warning: lr is {self.lr:g}, a rate as for SGD, but the optimizer is "
            f"{self.optimizer}, whose steps are about as long as lr itself: 0.001 to 0.03 are "
            "usual. For SGD give --optimizer sgd, or --recipe sgd if the task has it"
        )

    def in_effect(self) -> dict[str, Any]:
        """Every setting as summaries hold it; None for those that the optimizer has not."""
        has = _settings_of(self.optimizer) | _TAKES_ALL
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value if name in has else None for name, value in values.items()}

    @property
    def states(self) -> tuple[str, ...]:
        """Names of what it remembers from step to step in the parameters' shapes."""
        state = OPTIMIZERS[self.optimizer].state
        return state if self.momentum or self.optimizer != "sgd" else ()

    @property
    def reports(self) -> str | None:
        """Name of the state that it reports its model by, see `swarmsgd.optim`; None: it reports
        what it steps on.
        """
        return OPTIMIZERS[self.optimizer].reports

    @property
    def betas(self) -> tuple[float, float]:
        """As torch takes them."""
        return self.beta1, self.beta2

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimizer over `parameters`; its rate is set before each step."""
        kind = OPTIMIZERS[self.optimizer]
        options = {name: getattr(self, name) for name in kind.takes}
        return kind.make(parameters, lr=self.lr, **options)

    def rate(self, done: float) -> float:
        """The learning rate when a share `done` (0 to 1) of the run is over."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        over = (done - self.warmup) / (1 - self.warmup)
        return self.lr * SCHEDULES[self.schedule].factor(over, self.warmup)

    def clip(self, parameters: Iterable[nn.Parameter]) -> None:
        """Clip the gradients in place, as one vector, if `clip_norm` is set."""
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.clip_norm)


def strange_to(optimizer: str, names: Iterable[str]) -> list[str]:
    """Those of the names that are settings of optimizers, but not of this one."""
    others = {field.name for field in fields(OptimizerSettings)}
    return sorted(others.intersection(names) - _settings_of(optimizer) - _TAKES_ALL)


def _settings_of(optimizer: str) -> frozenset[str]:
    """Names of fields that `optimizer` takes and not every other."""
    takes = OPTIMIZERS[optimizer].takes
    return frozenset(takes) | {name for name in ("beta1", "beta2") if "betas" in takes}
