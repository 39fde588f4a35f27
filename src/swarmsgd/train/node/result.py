"""The state dict of a mean model, as the node's own model would give it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from swarmsgd.batch_norm import running_norms
from swarmsgd.core.layout import Layout
from swarmsgd.train.meet.mean import Float, Means
from swarmsgd.train.node.recalibrate import Batches, as_buffers, statistics

_log = logging.getLogger("swarmsgd")


def mean_state(
    model: nn.Module,
    layout: Layout,
    mean: Callable[[Mapping[str, Float]], Means],
    mean_of: Callable[[torch.Tensor], Means],
    *,
    averaged: bool,
    recalibrate: Batches | Literal[False] | None,
) -> tuple[dict[str, Any], Means]:
    """The state dict of the mean model, and the mean; see `Swarm.mean_model`.

    `mean` takes the mean of all nodes' parameters and of those buffers, `mean_of` that of a vector.
    Floating-point buffers are the nodes' averages if these are `averaged`, else this node's.
    """
    means = mean(float_buffers(model) if averaged else {})
    values = layout.by_identity(means.model)
    tell_of_buffers(model, means.buffers, means.nodes[0])
    if running_norms(model):  # on all nodes: their buffers are alike
        found = mean_of(statistics(model, values, means.buffers, recalibrate or None))
        norms = as_buffers(model, found.model, len(found.nodes))
        means.buffers.update(norms)
        if not norms and recalibrate is None:
            _log.warning(
                "batch norm in the mean model has %s statistics, which belong to other weights: "
                "mean_model(recalibrate=batches) estimates them anew, False is for those who do "
                "that themselves",
                "averaged" if averaged else "this node's own",
            )
    return state_with(model, values, means.buffers), means


def float_buffers(model: nn.Module) -> dict[str, Float]:
    """The floating-point buffers of a model, by name, to be averaged. Those that belong to a
    parametrization, as the vectors of spectral norm do, mean nothing when they are averaged.
    """
    apart = {id(buffer) for module in model.modules() for buffer in _of_parametrization(module)}
    return {
        name: Float(buffer, averaged=id(buffer) not in apart)
        for name, buffer in model.named_buffers()
        if buffer.is_floating_point()
    }


def tell_of_buffers(model: nn.Module, averaged: Mapping[str, torch.Tensor], first: int) -> None:
    """Log what the floating-point buffers of a mean model are that are not `averaged`, or are in
    name alone: node `first`'s.
    """
    buffers = float_buffers(model)
    alone = [name for name in buffers if name not in averaged]
    if alone and averaged:
        _log.warning("not alike on all nodes, so this node's own in the mean: %s", _few(alone))
    elif alone:
        _log.info("in the mean model these buffers are this node's own: %s", _few(alone))
    kept = [name for name in averaged if name in buffers and not buffers[name].averaged]
    if kept:
        _log.info("buffers of a parametrization, in the mean node %d's: %s", first, _few(kept))


def _few(names: Sequence[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


def _of_parametrization(module: nn.Module) -> Iterator[torch.Tensor]:
    if isinstance(module, ParametrizationList):
        yield from module.buffers()
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):  # of torch.nn.utils.spectral_norm, the older one
            yield from (getattr(module, f"{hook.name}_{letter}") for letter in "uv")


def state_with(
    model: nn.Module, parameters: Mapping[int, torch.Tensor], buffers: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """`model.state_dict()` with other values of its parameters, by their `id`, and of its buffers,
    by name. Each tensor has memory of its own, on the device of the model's.

    The module's hooks see these values, whatever they make of them; the model's own tensors are not
    touched.
    """
    values = dict(parameters)
    for name, buffer in model.named_buffers():
        if name in buffers:
            values[id(buffer)] = buffers[name]
    with _replaced(model, values):
        state = model.state_dict()
        return {
            name: value.detach().clone() if isinstance(value, torch.Tensor) else value
            for name, value in state.items()
        }


@contextmanager
def _replaced(model: nn.Module, values: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Within, the modules' tables have new tensors in place of those whose `id` is in `values`."""
    tables: list[dict[str, Any]] = []
    for module in model.modules():
        tables += [module._parameters, module._buffers]
    found = [
        (table, name, tensor)
        for table in tables
        for name, tensor in table.items()
        if tensor is not None and id(tensor) in values
    ]
    new: dict[int, torch.Tensor] = {}
    try:
        for table, name, tensor in found:
            if id(tensor) not in new:
                new[id(tensor)] = _like(tensor, values[id(tensor)])
            table[name] = new[id(tensor)]
        yield
    finally:
        for table, name, tensor in found:
            table[name] = tensor


def _like(tensor: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """These values on the tensor's device, in its memory format and kind."""
    made = torch.empty_like(tensor).copy_(values)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
