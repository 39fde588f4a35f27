"""Whether what is exchanged is what is trained, looked at after every step."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from swarmsgd.core.layout import Layout
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ModelError
from swarmsgd.train.node.fit import untraced

_log = logging.getLogger("swarmsgd")

AGAIN = "leave() and join() again, on all nodes, to go on with the model and optimizer as they are"

_trained = attrgetter("requires_grad")
_values = methodcaller("values")


class Watch:
    """Compares the model and its optimizer with what joined; `live` is where its parameters lie.

    A parameter that lies elsewhere is followed there. One that the swarm does not exchange but
    somebody trains, and one that is exchanged but no part of the model any more, is refused by name
    with a ModelError. A parameter that is frozen for a while is exchanged on.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, layout: Layout) -> None:
        self._model = model
        self._optimizer = weakref.ref(optimizer)
        self.layout = layout
        self.live = Segments("parameter", layout.slots, layout.parameters)
        self._exchanged = {*layout.parameters, *(tied for _, tied, _ in layout.tied)}
        self._told: set[torch.Tensor] = set()
        self._look_through()
        self._look_at_optimizer(optimizer)

    def look(self) -> None:
        """After each step: a pointer and an identity for each tensor, nothing else."""
        tied = self.layout.tied
        if self.live.moved() or (tied and any(t.data_ptr() != f.data_ptr() for _, t, f in tied)):
            self.locate()
        objects = chain.from_iterable(map(_values, self._tables))
        if (
            list(map(id, objects)) != self._ids
            or any(self._empty)
            or any(map(_trained, self._others))
        ):
            self._look_through()
        optimizer = self._optimizer()
        if optimizer is not None and _lists(optimizer) != self._lists:
            self._look_at_optimizer(optimizer)

    def locate(self) -> None:
        """Where the parameters are; shapes, dtypes and strides are looked at too."""
        self.live.locate()
        for name, tied, first in self.layout.tied:
            if tied.data_ptr() != first.data_ptr():
                raise ModelError(
                    f"parameter {name} shared its memory with another one when it joined, and has "
                    f"its own now: each node would train it alone. {AGAIN}"
                )

    def _look_through(self) -> None:
        """The whole tree of modules, whose tables of parameters and children are kept."""
        modules = list(self._model.modules())
        named = dict(self._model.named_parameters())
        self._others = [p for p in named.values() if p not in self._exchanged]
        for name, parameter in named.items():
            if parameter not in self._exchanged and parameter.requires_grad:
                raise ModelError(
                    f"parameter {name} is trained, but was not when this model joined (it is new "
                    f"or was frozen): each node would train it alone. {AGAIN}"
                )
        mine = set(named.values())
        for slot, parameter in zip(self.layout.slots, self.layout.parameters, strict=True):
            if parameter not in mine:
                raise ModelError(
                    f"parameter {slot.name} is no part of the model any more, which joined with it "
                    f"(it was replaced or removed): the swarm would average what nobody uses. "
                    f"{AGAIN}"
                )
        tables: list[dict[str, Any]] = []
        for module in modules:
            tables += [module._parameters, module._modules]
        self._tables = [table for table in tables if len(table)]
        self._empty = [table for table in tables if not len(table)]
        self._ids = [id(found) for table in self._tables for found in table.values()]
        self._kept = [found for table in self._tables for found in table.values()]

    def _look_at_optimizer(self, optimizer: Optimizer) -> None:
        """It may step what is not in the model, but that is said."""
        self._lists = _lists(optimizer)
        stepped = _parameters(optimizer)
        alone = set(stepped) - self._exchanged - set(self._others) - self._told
        if alone:
            self._told |= alone
            _log.warning(
                "the optimizer steps %d parameters (shapes %s) that are no part of the model that "
                "joined: each node trains them alone. To average them too, join a module that "
                "holds all, such as nn.ModuleList([model, criterion])",
                len(alone),
                ", ".join(str(list(p.shape)) for p in list(alone)[:3]),
            )


def _parameters(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    return chain.from_iterable(group["params"] for group in optimizer.param_groups)


def _lists(optimizer: Optimizer) -> list[tuple[int, int]]:
    """Changes when parameters are given to an optimizer, or a state is loaded into it."""
    return [(id(group["params"]), len(group["params"])) for group in optimizer.param_groups]


class Others:
    """Notices another optimizer that steps what a joined one holds, unless one's step is a part of
    the other's: then nobody would count the steps, or half of them.
    """

    def __init__(self, joined: Optimizer) -> None:
        self._joined = weakref.ref(joined)
        self._mine = set(map(id, _parameters(joined)))
        self._kept = list(_parameters(joined))  # or ids might become others'
        self._inside = False
        self._calls = 0
        """Of the joined one's step."""
        self._before: dict[int, int] = {}
        """How many these were when another one's step, by its id, began."""
        self._hooks = [
            register_optimizer_step_pre_hook(untraced(self._begins)),
            register_optimizer_step_post_hook(untraced(self._ended)),
        ]

    def close(self) -> None:
        """Look no more."""
        for hook in self._hooks:
            hook.remove()

    def _begins(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if optimizer is self._joined():
            self._inside = True
            self._calls += 1
        else:
            self._before[id(optimizer)] = self._calls

    def _ended(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        joined = self._joined()
        if optimizer is joined:
            self._inside = False
            return
        nested = self._inside or self._before.pop(id(optimizer), None) != self._calls
        if not nested and not self._mine.isdisjoint(map(id, _parameters(optimizer))):
            name = "one that is gone" if joined is None else type(joined).__name__
            raise ModelError(
                f"{type(optimizer).__name__} steps parameters that joined the swarm with another "
                f"optimizer ({name}): its steps are not counted and end no burst. Join with "
                f"the optimizer whose step() is called; or, for a new one, {AGAIN}"
            )
