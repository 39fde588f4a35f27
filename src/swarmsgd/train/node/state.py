"""A named state of the user's optimizer, such as momentum, as one vector that can be exchanged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from swarmsgd.core.layout import Layout
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ConfigError
from swarmsgd.optim import OFFSET
from swarmsgd.settings.swarm import doubt_of_averaging

_log = logging.getLogger("swarmsgd")

ITERATES = ("z", OFFSET, "slow_buffer", "slow_param", "slow_weights", "cached_params", "ax")
"""State that holds weights of an optimizer's own, by name: of schedule-free ones, of Lookahead in
several implementations, of averaged SGD."""


class OptimizerState:
    """State `name` of all parameters in `layout`, float32 [D], where `live` says; each parameter's
    is that of the first of `optimizers` that has some.

    An optimizer makes its state in its first step, parameter by parameter, and may be given another
    one (`load_state_dict`). `adopt` notices both. Until then `live` has zeros of ours and what
    exchanges brought, and a new state is added to that.
    """

    def __init__(self, name: str, layout: Layout, optimizers: Sequence[Optimizer]) -> None:
        self.name = name
        self._layout = layout
        self._optimizers = optimizers
        brought = torch.zeros(layout.dim, dtype=torch.float32, device=layout.parameters[0].device)
        self.live = Segments(f"{name} of", layout.slots, [s.of(brought) for s in layout.slots])
        self._made = [False] * len(layout.slots)
        self.adopt()

    def adopt(self) -> None:
        """See to it that `live` has what the optimizer works on. Costs a look at each parameter.

        Raises ConfigError if its state is no tensor of the parameter's shape in float32.
        """
        live, new = self.live, False
        for at, parameter in enumerate(self._layout.parameters):
            found = self._of(parameter)
            if found is None or found is live.tensors[at]:
                continue
            self._check(found, parameter)
            if not self._made[at]:
                with torch.no_grad():
                    found.add_(live.tensors[at])
            live.tensors[at] = found
            self._made[at] = new = True
        if new or live.moved():
            live.locate()

    def _of(self, parameter: torch.Tensor) -> Any:
        for optimizer in self._optimizers:
            state = optimizer.state.get(parameter)
            if state and self.name in state:
                return state[self.name]
        return None

    def check_found(self) -> None:
        """Adopt; raise ConfigError if no optimizer, after a step, has such state."""
        self.adopt()
        if not any(self._made):
            names = state_names(self._optimizers)
            raise ConfigError(
                f"exchange_state names {self.name!r}, but after a step this "
                f"{_kinds(self._optimizers)} has "
                + (f"only {', '.join(names)}" if names else "no state at all")
                + (": its momentum is 0, perhaps" if self.name == "momentum_buffer" else "")
            )

    def _check(self, found: object, parameter: torch.Tensor) -> None:
        if not isinstance(found, torch.Tensor) or found.shape != parameter.shape:
            got = f"of shape {list(found.shape)}" if isinstance(found, torch.Tensor) else found
            raise ConfigError(
                f"exchange_state names {self.name!r}, which is {got} for a parameter of shape "
                f"{list(parameter.shape)}: only state of the parameters' own shapes can be averaged"
            )
        if found.dtype != torch.float32:
            raise ConfigError(
                f"exchange_state names {self.name!r}, which is {found.dtype}, wanted torch.float32"
            )


def state_names(optimizers: Iterable[Optimizer]) -> list[str]:
    """Names of what optimizers remember of their parameters."""
    return sorted({str(name) for o in optimizers for state in o.state.values() for name in state})


def warn_of_states(optimizers: Sequence[Optimizer], exchanged: set[str]) -> None:
    """Log a warning of what is averaged and should not be, or should be and is not, of optimizers
    that have made a step.
    """
    for optimizer in optimizers:
        eps = min((group.get("eps") or 0.0 for group in optimizer.param_groups), default=0.0)
        if doubt := doubt_of_averaging(exchanged, state_names([optimizer]), eps):
            _log.warning("%s: %s", type(optimizer).__name__, doubt)
    _warn_of_iterates(optimizers, exchanged)


def _warn_of_iterates(optimizers: Iterable[Optimizer], exchanged: set[str]) -> None:
    """Log a warning if optimizers, which have made a step, keep weights of their own that are not
    among the `exchanged` state: on each node these would go their own way. Not so if they forget
    what was long ago (`swarmsgd.optim`).
    """
    optimizers = [o for o in optimizers if not any(g.get("least_share") for g in o.param_groups)]
    alone = [n for n in state_names(optimizers) if n in ITERATES and n not in exchanged]
    if alone:
        names = ", ".join(repr(name) for name in [*sorted(exchanged), *alone])
        _log.warning(
            "%s keeps weights of its own in its state (%s), which are not averaged: they drift "
            "apart from node to node, and with them what it evaluates. Join with "
            "exchange_state=(%s,) to average them with the model",
            _kinds(optimizers),
            ", ".join(alone),
            names,
        )


def _kinds(optimizers: Iterable[Optimizer]) -> str:
    return " and ".join(sorted(type(optimizer).__name__ for optimizer in optimizers))
