"""Batch norm's statistics for a mean of models, from the data of a task."""

from __future__ import annotations

import itertools

from torch import nn

from swarmsgd.batch_norm import estimating, running_norms
from swarmsgd.tasks.base import Task

BATCHES = 64
"""Batches, over all nodes' shards, from which the statistics are estimated anew."""


def estimate_batch_norm(model: nn.Module, task: Task, batches: int = BATCHES) -> None:
    """Set batch norm's running statistics to the averages over training batches of all nodes.

    Leaves a model without such layers as it is.
    """
    if not running_norms(model):
        return
    each = -(-batches // task.num_nodes)
    with estimating(model):
        for node in range(min(task.num_nodes, batches)):
            for batch in itertools.islice(task.batches(node), each):
                task.loss(model, batch)
