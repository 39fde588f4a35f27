"""Batch norm's statistics for a mean of models."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from swarmsgd.tasks.base import Task

BATCHES = 64
"""Batches, over all nodes' shards, from which the statistics are estimated anew."""


def estimate_batch_norm(model: nn.Module, task: Task, batches: int = BATCHES) -> None:
    """Set batch norm's running statistics to the averages over training batches of all nodes.

    A mean of models has no use for a mean of their statistics (as in stochastic weight averaging,
    `torch.optim.swa_utils.update_bn`). Leaves a model without such layers as it is.
    """
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches that follow
    model.train()
    each = -(-batches // task.num_nodes)
    with torch.no_grad():
        for node in range(min(task.num_nodes, batches)):
            for batch in itertools.islice(task.batches(node), each):
                task.loss(model, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
