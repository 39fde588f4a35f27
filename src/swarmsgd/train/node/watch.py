"""Whether what is exchanged is what is trained."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter, itemgetter, methodcaller
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from swarmsgd.core.layout import Layout
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ModelError
from swarmsgd.train.node.join_checks import untraced
from swarmsgd.train.node.unhooked_steps import Uncounted

_log = logging.getLogger("swarmsgd")

_AGAIN = "leave() and join() again, on all nodes, to go on with the model and optimizer as they are"

_trained = attrgetter("requires_grad")
_values = methodcaller("values")
_parameters_of = itemgetter("params")


PART = 8
"""Parameters that are looked at after a step that ends no burst, in turn."""


class Watch:
    """Compares the model and its optimizer with what joined; `live` is where its parameters lie.

    A parameter that lies elsewhere is followed there. One that the swarm does not exchange but
    somebody trains, and one that is exchanged but no part of the model any more, is refused by name
    with a ModelError. A parameter that is frozen for a while is exchanged on.

    `glance` is for every step, `look` for whenever something is to be published or averaged: so
    nothing wrong gets to others, and most is noticed at once, at a price that does not grow with
    the number of tensors. Before the first step it is also looked for parameters that change.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, layout: Layout) -> None:
        self._model = model
        self._optimizer = weakref.ref(optimizer)
        self.layout = layout
        self.live = Segments("parameter", layout.slots, layout.parameters)
        self._exchanged = {*layout.parameters, *(tied for _, tied, _ in layout.tied)}
        self._told: set[torch.Tensor] = set()
        self._next = 0
        self._registered = Registrations()
        self._uncounted: Uncounted | None = None
        self._look_through()
        self._look_at_optimizer(optimizer)

    def begin(self) -> None:
        """The model has what all begin with: from now on steps change it, and these count."""
        optimizer = self._optimizer()
        self._uncounted = Uncounted(self.live, type(optimizer).__name__)

    def first_step(self) -> bool:
        """To be asked after each step: whether it was the first."""
        if self._uncounted is None:
            return False
        self._uncounted.end()
        self._uncounted = None
        return True

    def settled(self) -> None:
        """The parameters have what exchanges brought, which is no step."""
        if self._uncounted is not None:
            self._uncounted.forget()

    def close(self) -> None:
        """Look for the last time."""
        self._registered.close()
        if self._uncounted is not None:
            if sys.exception() is None:  # an error on its way out says more
                self._uncounted.look()
            self._uncounted.end()

    def glance(self) -> None:
        """What was registered in a module or added to the optimizer since the last time, and in
        turn whether a few parameters lie where they were and are frozen as they were.
        """
        optimizer = self._optimizer()
        if self._registered.changed or (
            optimizer is not None
            and (
                optimizer.param_groups is not self._groups or len(self._groups) != len(self._lists)
            )
        ):
            return self.look()
        part = slice(self._next, self._next + PART)
        others = self._others[part]
        if self.live.moved(part) or self._apart() or (others and any(map(_trained, others))):
            return self.look()
        self._next = part.stop if part.stop < self._in_turn else 0
        return None

    def look(self) -> None:
        """All of it: where each tensor is and its form, and the identity of each."""
        self.locate()
        if self._uncounted is not None:
            self._uncounted.look()
        objects = chain.from_iterable(map(_values, self._tables))
        if (
            self._registered.changed
            or list(map(id, objects)) != self._ids
            or any(self._empty)
            or any(map(_trained, self._others))
        ):
            self._look_through()
        optimizer = self._optimizer()
        if optimizer is not None and (
            optimizer.param_groups is not self._groups or _lists(optimizer) != self._lists
        ):
            self._look_at_optimizer(optimizer)

    def follow(self) -> None:
        """Before anything is added to the parameters: see to it that `live` is where they lie."""
        if self.live.moved() or self._apart():
            self.locate()

    def _apart(self) -> bool:
        tied = self.layout.tied
        return bool(tied) and any(t.data_ptr() != f.data_ptr() for _, t, f in tied)

    def locate(self) -> None:
        """Where the parameters are; shapes, dtypes and strides are looked at too."""
        self.live.locate()
        for name, tied, first in self.layout.tied:
            if tied.data_ptr() != first.data_ptr():
                raise ModelError(
                    f"parameter {name} shared its memory with another one when it joined, and has "
                    f"its own now: each node would train it alone. {_AGAIN}"
                )

    def _look_through(self) -> None:
        """The whole tree of modules, whose tables of parameters and children are kept."""
        modules = list(self._model.modules())
        self._registered.watch(modules)
        named = dict(self._model.named_parameters())
        self._others = [p for p in named.values() if p not in self._exchanged]
        self._in_turn = max(len(self._others), len(self.live.tensors))
        for name, parameter in named.items():
            if parameter not in self._exchanged and parameter.requires_grad:
                raise ModelError(
                    f"parameter {name} is trained, but was not when this model joined (it is new "
                    f"or was frozen): each node would train it alone. {_AGAIN}"
                )
        mine = set(named.values())
        for slot, parameter in zip(self.layout.slots, self.layout.parameters, strict=True):
            if parameter not in mine:
                raise ModelError(
                    f"parameter {slot.name} is no part of the model any more, which joined with it "
                    f"(it was replaced or removed): the swarm would average what nobody uses. "
                    f"{_AGAIN}"
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
        self._groups = optimizer.param_groups
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
    return chain.from_iterable(map(_parameters_of, optimizer.param_groups))


def _lists(optimizer: Optimizer) -> list[tuple[int, int]]:
    """Changes when parameters are given to an optimizer, or a state is loaded into it."""
    return [(id(group["params"]), len(group["params"])) for group in optimizer.param_groups]


class Registrations:
    """`changed` if a parameter or a module was registered in one of the watched modules, as every
    assignment of one to an attribute does. Removals, and writes to a module's own tables, are not
    seen.
    """

    def __init__(self) -> None:
        self.changed = False
        self._watched: set[int] = set()
        mine = weakref.ref(self)

        def notice(module: nn.Module, _name: str, _given: object) -> None:
            me = mine()
            if me is not None and id(module) in me._watched:
                me.changed = True

        self._hooks = [
            register_module_parameter_registration_hook(notice),
            register_module_module_registration_hook(notice),
        ]
        weakref.finalize(self, _remove, self._hooks)

    def watch(self, modules: Sequence[nn.Module]) -> None:
        """From now on these, which must live as long."""
        self.changed = False
        self._watched = set(map(id, modules))

    def close(self) -> None:
        """Notice no more."""
        _remove(self._hooks)


def _remove(hooks: Sequence[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


class Others:
    """Notices another optimizer that steps what the joined ones hold, unless its step is a part of
    one of theirs or has one as a part: nobody would count its steps.
    """

    def __init__(self, joined: Sequence[Optimizer]) -> None:
        self._joined = weakref.WeakSet(joined)
        self._mine = {id(parameter) for each in joined for parameter in _parameters(each)}
        self._kept = [list(_parameters(each)) for each in joined]  # or ids might become others'
        self._inside = False
        self._calls = 0
        """Of the joined ones' steps."""
        self._before: dict[int, int] = {}
        """How many these were when another one's step, by its id, began."""
        self._hooks = [
            register_optimizer_step_pre_hook(untraced(self._begins)),
            register_optimizer_step_post_hook(untraced(self._ended)),
        ]

    def close(self) -> None:
        """Look no more."""
        _remove(self._hooks)

    def _begins(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if optimizer in self._joined:
            self._inside = True
            self._calls += 1
        else:
            self._before[id(optimizer)] = self._calls

    def _ended(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if optimizer in self._joined:
            self._inside = False
            return
        nested = self._inside or self._before.pop(id(optimizer), None) != self._calls
        if not nested and not self._mine.isdisjoint(map(id, _parameters(optimizer))):
            names = " and ".join(type(each).__name__ for each in self._joined)
            raise ModelError(
                f"{type(optimizer).__name__} steps parameters that joined the swarm with another "
                f"optimizer ({names or 'one that is gone'}): its steps are not counted and end no "
                "burst. Join with the optimizer whose step() is called; or, for a new one, "
                f"{_AGAIN}"
            )
