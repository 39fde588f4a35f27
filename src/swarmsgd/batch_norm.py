"""Batch norm's running statistics, estimated anew for weights that no training step has seen, such
as a mean of models (as in stochastic weight averaging, `torch.optim.swa_utils.update_bn`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def running_norms(model: nn.Module) -> dict[str, _NormBase]:
    """The layers that keep running statistics, by the name of the module."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase)
        and module.track_running_stats
        and module.running_mean is not None
    }


@contextmanager
def estimating(model: nn.Module) -> Iterator[None]:
    """Within, each forward pass counts as one batch of new statistics, plain averages over all.

    Nothing else is in training mode, so that dropout changes neither the statistics nor a random
    generator. Afterwards every module is in the mode it was in.
    """
    norms = list(running_norms(model).values())
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches that follow
        norm.training = True
    try:
        with torch.no_grad():
            yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
