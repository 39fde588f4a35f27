"""A task of one's own in one file: which half of a ring a noisy point lies on.

swarmsgd train examples/own_task.py:Moons --nodes 4 --noise 0.2
swarmsgd simulate examples/own_task.py:Moons --nodes 16 --graph ring
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

from swarmsgd.tasks import Batch, Notify, OwnOptions, Score, node_generator

SAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class MoonsOptions(OwnOptions):
    """Each field is an option of the command, its docstring the help."""

    noise: float = 0.15
    """Standard deviation of the points about their arc."""


class Moons:
    """Two interleaved half circles; a small MLP tells them apart."""

    Options = MoonsOptions
    run: ClassVar = {"lr": 0.2, "epochs": 8.0}  # defaults of a run of this task

    name = "moons"
    batch_size = 32

    def __init__(self, options: MoonsOptions, num_nodes: int, notify: Notify) -> None:
        self.options, self.num_nodes = options, num_nodes
        points, labels = make_moons(SAMPLES, noise=options.noise, random_state=options.seed)
        self.points, self.labels = torch.tensor(points).float(), torch.tensor(labels)
        self.train, self.test = slice(0, SAMPLES // 2), slice(SAMPLES // 2, None)

    @property
    def samples_per_epoch(self) -> int:
        return SAMPLES // 2

    def make_model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def batches(self, node: int) -> Iterator[Batch]:
        """Node i owns every n-th point from the i-th on."""
        mine = torch.arange(node, SAMPLES // 2, self.num_nodes)
        rng = node_generator(self.options.seed, node)
        while True:
            chosen = mine[torch.from_numpy(rng.integers(len(mine), size=self.batch_size))]
            yield self.points[chosen], self.labels[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        points, labels = (part.to(next(model.parameters()).device) for part in batch)
        return nn.functional.cross_entropy(model(points), labels)

    def evaluate(self, model: nn.Module) -> Score:
        return self._score(model, self.test)

    def train_score(self, model: nn.Module) -> Score:
        return self._score(model, self.train)

    def _score(self, model: nn.Module, part: slice) -> Score:
        with torch.no_grad():
            logits, labels = model(self.points[part]), self.labels[part]
            right = (logits.argmax(1) == labels).float()
        found = [float(right[labels == side].mean()) for side in (0, 1)]
        return Score(
            loss=float(nn.functional.cross_entropy(logits, labels)),
            samples=len(labels),
            extra={"worse_side": min(found)},  # what this task is judged by, everywhere
            higher=["worse_side"],
        )
