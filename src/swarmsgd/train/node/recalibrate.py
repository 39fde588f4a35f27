"""Batch norm of a mean model: its statistics from batches of all nodes that give some.

Each node runs its own batches through the mean weights. The nodes then average what they found,
weighted by the number of batches, so that all have the same, and data that differ from node to node
count like those of one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from swarmsgd.batch_norm import estimating, running_norms
from swarmsgd.errors import ConfigError

Batches = Iterable[Any] | Callable[[nn.Module], Any]
"""Tensors; tuples or lists whose first item is the input; or mappings of keyword arguments. Or a
function that runs the model on as many batches as it likes.
"""


def statistics(
    model: nn.Module,
    parameters: Mapping[int, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    batches: Batches | None,
) -> torch.Tensor:
    """Sums over batches of batch norm's statistics, [K] float64, for other values of the model's
    parameters (by `id`) and buffers (by name); zeros without batches. A mean over nodes keeps its
    meaning (`as_buffers`).

    The model is as it was afterwards. Raises ConfigError if no batch went through it.
    """
    norms = running_norms(model)
    if batches is None:
        sizes = [2 * norm.num_features + 1 for norm in norms.values()]
        return torch.zeros(sum(sizes), dtype=torch.float64)
    with _holding(model, parameters, buffers):
        estimate(model, batches)
        counts = [float(_tensor(norm.num_batches_tracked)) for norm in norms.values()]
        sums = [
            count * _tensor(value).double().cpu()
            for count, norm in zip(counts, norms.values(), strict=True)
            for value in (norm.running_mean, norm.running_var, torch.ones(1))
        ]
    return torch.cat(sums)


def as_buffers(model: nn.Module, sums: torch.Tensor, nodes: int) -> dict[str, torch.Tensor]:
    """The buffers of batch norm, by name, from the mean over `nodes` of their `statistics`; of
    layers that saw no batch, none.
    """
    found: dict[str, torch.Tensor] = {}
    rest = sums
    for name, norm in running_norms(model).items():
        size = norm.num_features
        mean, var, count, rest = rest.split([size, size, 1, len(rest) - 2 * size - 1])
        if count:
            prefix = f"{name}." if name else ""
            found[f"{prefix}running_mean"] = mean / count
            found[f"{prefix}running_var"] = var / count
            found[f"{prefix}num_batches_tracked"] = (count * nodes).round().long()[0]
    return found


def estimate(model: nn.Module, batches: Batches) -> None:
    """Set batch norm's statistics to those over these batches. Leaves a model without batch norm as
    it is; raises ConfigError if no batch went through it.
    """
    norms = running_norms(model).values()
    if not norms:
        return
    with estimating(model):
        _run(model, batches)
    if not any(bool(_tensor(norm.num_batches_tracked)) for norm in norms):
        raise ConfigError(
            "recalibrate ran no batch through the model's batch norm, wanted at least one: a "
            "generator that is used up gives none"
        )


def _run(model: nn.Module, batches: Batches) -> None:
    if callable(batches):
        batches(model)
        return
    device = next(model.parameters()).device
    for batch in batches:
        if isinstance(batch, Mapping):
            model(**{name: _moved(value, device) for name, value in batch.items()})
            continue
        first = batch[0] if isinstance(batch, list | tuple) and batch else batch
        if not isinstance(first, torch.Tensor):
            raise ConfigError(
                f"recalibrate gave a batch that is a {type(batch).__name__}, wanted a tensor, a "
                "tuple or list whose first item is one, or a mapping of keyword arguments. For "
                "others pass a function: recalibrate=lambda model: ..."
            )
        model(_moved(first, device))


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _tensor(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None  # `running_norms` are those that have it
    return value


@contextmanager
def _holding(
    model: nn.Module, parameters: Mapping[int, torch.Tensor], buffers: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Within, the model's own tensors have these values, so that compiled, recurrent and all other
    modules find them; afterwards each buffer is where it was, and all have their own values.
    """
    tables = [(module, dict(module._buffers)) for module in model.modules()]
    new = {p: parameters[id(p)] for p in model.parameters() if id(p) in parameters}
    new |= {b: buffers[name] for name, b in model.named_buffers() if name in buffers}
    kept = {tensor: tensor.detach().clone() for tensor in (*new, *model.buffers())}
    try:
        _copy(new)
        yield
    finally:
        for module, table in tables:
            module._buffers.update(table)
        _copy(kept)


@torch.no_grad()
def _copy(values: Mapping[torch.Tensor, torch.Tensor]) -> None:
    for tensor, value in values.items():
        tensor.copy_(value)
