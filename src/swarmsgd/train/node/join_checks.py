"""What `join` is given, looked at before anything starts: which optimizer's steps can be followed,
and whether torch averages the model already.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from swarmsgd.errors import ConfigError, ModelError

_log = logging.getLogger("swarmsgd")

H = TypeVar("H", bound=Callable[..., Any])


def untraced(hook: H) -> H:
    """The same hook, which stays out of the trace if a step is compiled: it counts, so that a trace
    through it would be made anew at every step.
    """
    return cast(H, torch.compiler.disable(hook))


def optimizers_of(given: Any) -> list[Optimizer]:
    """The torch optimizers whose `step()` does the work: of one, of a wrapper around one, or of a
    list of these. Raises ConfigError for anything else.
    """
    each = list(given) if isinstance(given, Sequence) else [given]
    found = [_under_wrappers(one) for one in each]
    if not found or len(set(map(id, found))) < len(found):
        raise ConfigError(
            f"the optimizers are {len(found)}, with some of them twice: join with each one once, "
            "in the order of their steps"
            if found
            else "the list of optimizers is empty: join with those that step on this model"
        )
    return found


def _under_wrappers(given: Any) -> Optimizer:
    """A wrapper keeps the one that it steps as `optimizer`; one that is an optimizer itself, with
    hooks of its own (Lookahead, SAM), is followed as it is.
    """
    seen = given
    for _ in range(8):  # some wrap a wrapper
        hooks = _hooks(seen)
        inner = getattr(seen, "optimizer", None)
        if hooks is not None and (inner is None or _hooks(inner) is not hooks):
            return cast(Optimizer, seen)
        seen = inner
    raise ConfigError(
        f"the optimizer is a {type(given).__name__}, whose steps cannot be followed, and has no "
        "torch.optim.Optimizer as its attribute `optimizer`. Join with the torch optimizer whose "
        "step() it calls in the end"
    )


def _hooks(optimizer: Any) -> Any:
    """What torch calls after a step; None for a class that is an optimizer by name alone."""
    own = isinstance(optimizer, Optimizer)
    return getattr(optimizer, "_optimizer_step_post_hooks", None) if own else None


def check_steps_on(model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """The optimizers must step on this model, or the swarm would average what nobody trains."""
    stepped = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    alone = [name for name, p in trained.items() if id(p) not in stepped]
    if not stepped & {id(p) for p in model.parameters()}:
        raise ModelError(
            "the optimizer holds none of the model's parameters: nothing it does would be "
            "exchanged. Make the optimizer from this model's parameters, then join"
        )
    if alone:
        _log.warning(
            "%d of %d trainable parameters are exchanged though no optimizer that joined steps "
            "them (%s): if none does, requires_grad_(False) before join() spares their bytes; if "
            "another one does, join(model, [one, another])",
            len(alone),
            len(trained),
            ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else ""),
        )


def check_averaged_once(model: nn.Module) -> None:
    """Raise ConfigError if torch averages this model over processes already.

    A wrapper need not be what joins: a framework wraps the model and hands on what is inside. So
    where a process group exists, all wrappers of this process are looked through.
    """
    if not dist.is_available() or not dist.is_initialized():
        return
    fsdp = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    sharded = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    wrappers = (DistributedDataParallel, *((fsdp,) if fsdp else ()))
    mine = set(map(id, model.parameters()))
    for found in gc.get_objects():
        if issubclass(type(found), wrappers) and not mine.isdisjoint(map(id, found.parameters())):
            _refuse(type(found).__name__, dist.get_world_size(found.process_group))
    if sharded and any(isinstance(p, sharded) for p in model.parameters()):
        _refuse("fully_shard", dist.get_world_size())


def _refuse(wrapper: str, processes: int) -> None:
    if processes > 1:
        raise ConfigError(
            f"this model is in a {wrapper} over {processes} processes, which averages its "
            "gradients at every step: the swarm would average a second time. Join the bare model "
            "and train that; if a framework wrapped it, see to it that it finds no RANK and "
            "WORLD_SIZE: `swarmsgd launch --no-standard-env`, or swarmsgd.integrations.hide_place()"
        )
