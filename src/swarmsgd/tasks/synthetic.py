"""Quadratics whose best model is known, for the simulator and for tests.

Node i has ``f_i(x) = 1/2 (x - b_i)^T A (x - b_i)`` with one diagonal A for all, whose entries go
geometrically from 1/condition to 1, so every f_i is 1-smooth and 1/condition-strongly convex. The
b_i are spread around a centre, so the nodes disagree about the best model as much as
`heterogeneity` says. Since A is shared, the mean of all f_i is smallest at the mean of all b_i::

    f(x) = 1/2 (x - x*)^T A (x - x*) + f*,   x* = mean b_i,   f* = mean f_i(x*)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from swarmsgd.checks import number, whole
from swarmsgd.seeds import stream
from swarmsgd.tasks.base import Batch, Notify, Score, check_node, check_nodes, device_of, silent
from swarmsgd.tasks.stream import node_generator


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Settings of the synthetic task."""

    dimension: int = 64
    """Parameters of the model."""

    condition: float = 10.0
    """Condition number of the quadratics: largest over smallest curvature."""

    heterogeneity: float = 1.0
    """Standard deviation, a coordinate, of the nodes' own optima around their common centre."""

    noise: float = 0.1
    """Standard deviation, a coordinate, of the noise in one gradient."""

    samples_per_node: int = 1000
    """Gradients a node draws in one epoch."""

    seed: int = 0
    """Seed of the nodes' optima and of the noise."""

    def __post_init__(self) -> None:
        for name, least in (("dimension", 1), ("samples_per_node", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        for name, least in (("condition", 1), ("heterogeneity", 0), ("noise", 0)):
            number(name, getattr(self, name), least=least)

    @property
    def name(self) -> str:
        """The task's name in titles."""
        return "synthetic"


class VectorModel(nn.Module):
    """A model that is one vector; calling it returns the vector."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(values)

    def forward(self) -> Tensor:
        return self.x


class SyntheticTask:
    """Noisy quadratics with a known optimum; a `Task`.

    `curvature_D` is the diagonal of A, `centers_ND` holds the b_i, `optimum_D` is x* and
    `optimal_loss` f*; all in float32 on the CPU.
    """

    batch_size = 1

    def __init__(self, options: SyntheticOptions, num_nodes: int, notify: Notify = silent) -> None:
        check_nodes(num_nodes)
        self.options = options
        self.num_nodes = num_nodes
        dim = options.dimension
        rng = stream("data", options.seed)
        curvature = np.geomspace(1 / options.condition, 1, dim)
        common = rng.standard_normal(dim)
        centers = rng.standard_normal((num_nodes, dim), dtype=np.float32)
        centers *= options.heterogeneity
        centers += common.astype(np.float32)
        optimum = centers.mean(axis=0, dtype=np.float64)
        spread = centers.var(axis=0, dtype=np.float64)
        self.optimal_loss = float(0.5 * curvature @ spread)
        self.curvature_D = torch.from_numpy(curvature.astype(np.float32))
        self.centers_ND = torch.from_numpy(centers)
        self.optimum_D = torch.from_numpy(optimum.astype(np.float32))

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def samples_per_epoch(self) -> int:
        return self.num_nodes * self.options.samples_per_node

    def make_model(self, seed: int) -> VectorModel:
        """A standard normal starting point."""
        generator = torch.Generator().manual_seed(seed)
        return VectorModel(torch.randn(self.options.dimension, generator=generator))

    def batches(self, node: int) -> Iterator[Batch]:
        """Pairs (b_i, noise of one gradient), both ``[D]``."""
        check_node(node, self.num_nodes)
        return self._batches(node)

    def _batches(self, node: int) -> Iterator[Batch]:
        rng = node_generator(self.options.seed, node)
        center = self.centers_ND[node]
        while True:
            yield center, self.options.noise * standard_normal(center.shape, rng)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """f_i plus <noise, x>, so that its gradient is f_i's plus the noise."""
        x = model()
        center, noise = (part.to(x.device) for part in batch)
        return 0.5 * (self.curvature_D.to(x.device) * (x - center).square()).sum() + noise @ x

    def gradient(
        self, x: Tensor, nodes: Tensor, rng: np.random.Generator | torch.Generator | None
    ) -> Tensor:
        """Noisy gradients of many nodes at once, without autograd.

        `x` is ``[..., D]`` and `nodes` holds the node of each vector, ``[...]``. Without a
        generator the gradients are exact. CPU tensors.
        """
        result = (x - self.centers_ND[nodes]).mul_(self.curvature_D)
        if rng is not None and self.options.noise > 0:
            result.add_(standard_normal(result.shape, rng), alpha=self.options.noise)
        return result

    def excess_loss(self, x: Tensor) -> Tensor:
        """f(x) - f* of each vector of ``[..., D]``; never negative."""
        curvature, optimum = self.curvature_D.to(x.device), self.optimum_D.to(x.device)
        return 0.5 * (curvature * (x - optimum).square()).sum(dim=-1)

    def evaluate(self, model: nn.Module) -> Score:
        """f(x), with ``excess`` f(x) - f* and the ``distance`` ||x - x*||."""
        with torch.no_grad():
            x = model()
            excess = float(self.excess_loss(x))
            distance = float((x - self.optimum_D.to(device_of(model))).norm())
        return Score(
            loss=excess + self.optimal_loss,
            samples=self.num_nodes,
            extra={"excess": excess, "distance": distance},
        )

    def train_score(self, model: nn.Module) -> Score:
        """The same as `evaluate`: there is nothing to generalise to."""
        return self.evaluate(model)


def standard_normal(
    shape: torch.Size | tuple[int, ...], rng: np.random.Generator | torch.Generator
) -> Tensor:
    """float32 standard normal numbers from either kind of generator."""
    if isinstance(rng, torch.Generator):
        return torch.randn(shape, generator=rng)
    return torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
