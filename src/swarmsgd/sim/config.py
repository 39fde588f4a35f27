"""What `swarmsgd simulate` is asked to do: a run, and the world it happens in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from swarmsgd.config import LocalSteps
from swarmsgd.errors import ConfigError
from swarmsgd.recipe import RunConfig, one_of, whole
from swarmsgd.sim.world import World

BUDGETS: Mapping[str, str] = {
    "each": "every node makes its share of the steps, as in a real run",
    "together": "the run ends when all nodes together have seen the samples: the fast make more",
}
"""How a run of equal samples is counted, and a line of help."""


@dataclass(frozen=True, kw_only=True)
class SimConfig(RunConfig):
    """One simulated run. What it shares with `swarmsgd train` means the same."""

    PARTS: ClassVar[Mapping[str, type]] = {**RunConfig.PARTS, "world": World}

    world: World
    """The world it happens in."""

    exchanges_per_node: float | None = None
    """Instead of epochs: exchanges a node takes part in, on average, rounded up to whole bursts."""

    budget: str = "each"
    """each: every node makes its share of steps; together: the fast ones make more."""

    evals: int = 10
    """How often the mean model is scored on the way, at equal distances of samples."""

    score_nodes: int = 8
    """How many nodes' own models are scored at the end, evenly spaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("budget", self.budget, BUDGETS)
        whole("evals", self.evals, 1)
        whole("score_nodes", self.score_nodes, 0)
        self.world.check(self.nodes)
        per_node = self.exchanges_per_node
        if per_node is not None and not 0 < per_node < math.inf:
            raise ConfigError(f"exchanges_per_node is {per_node!r}, wanted a number above 0")

    def total_steps(self, samples_per_epoch: int, batch_size: int) -> int:
        """Local steps of each node.

        A node takes part in two exchanges a burst on average, one it starts and one it answers;
        in matching mode in one.
        """
        if self.exchanges_per_node is None:
            return super().total_steps(samples_per_epoch, batch_size)
        mean = LocalSteps.parse(self.local_steps).mean
        return math.ceil(self.exchanges_per_node / (1 if self.mode == "matching" else 2)) * mean
