"""A model that has diverged (NaN, or beyond `lattice.PUBLISHED`) begins again from its copy, which
averages of healthy models have gone into.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from swarmsgd.core.lattice import PUBLISHED
from swarmsgd.core.replica import Replica
from swarmsgd.core.segments import Segments


def restore(
    replica: Replica, lives: Sequence[Segments], model: nn.Module, optimizers: Iterable[Optimizer]
) -> None:
    """x = c, p = 0; what has diverged in the optimizers' state becomes 0; batch norm's statistics
    are estimated anew, other buffers lose what has diverged.

    The sum of copies does not change: c was never published with such values.
    """
    with replica.lock:
        for vector, live in zip(replica.vectors, lives, strict=True):
            vector.way.settle(vector)
            live.write(vector.copy)
    replica.error = None
    with torch.no_grad():
        for optimizer in optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    _mend(value)
        for module in model.modules():
            reset = getattr(module, "reset_running_stats", None)
            broken = [b for b in module.buffers(recurse=False) if not _healthy(b)]
            if broken and callable(reset):
                reset()
            for buffer in broken:
                _mend(buffer)


def _healthy(value: object) -> bool:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return True
    return bool((value.abs() <= PUBLISHED).all())


def _mend(value: object) -> None:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        value.masked_fill_(~(value.abs() <= PUBLISHED), 0.0)
