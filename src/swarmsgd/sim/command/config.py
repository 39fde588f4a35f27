"""What `swarmsgd simulate` is asked to do: a run, and the world it happens in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarmsgd.checks import number, whole
from swarmsgd.settings.run import RunConfig
from swarmsgd.settings.swarm import lengths_of
from swarmsgd.sim.engine.world import World


@dataclass(frozen=True, kw_only=True)
class SimConfig(RunConfig):
    """One simulated run. What it shares with `swarmsgd train` means the same."""

    world: World = World()
    """The world it happens in."""

    exchanges_per_node: float | None = None
    """Instead of epochs: exchanges a node takes part in, on average, rounded up to whole bursts."""

    evals: int = 10
    """How often the mean model is scored on the way, at equal distances of samples."""

    score_nodes: int = 8
    """How many nodes' own models are scored at the end, evenly spaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("evals", self.evals, 1)
        whole("score_nodes", self.score_nodes, 0)
        self.world.check(self.nodes)
        if self.exchanges_per_node is not None:
            number("exchanges_per_node", self.exchanges_per_node, above=0)

    def total_steps(self, samples_per_epoch: int, batch_size: int) -> int:
        """Local steps of each node.

        A node takes part in two exchanges a burst on average, one it starts and one it answers;
        in matching mode in one.
        """
        if self.exchanges_per_node is None:
            return super().total_steps(samples_per_epoch, batch_size)
        mean = lengths_of(self.swarm.local_steps).mean
        each = 1 if self.swarm.mode == "matching" else 2
        return math.ceil(self.exchanges_per_node / each) * mean

    def title(self) -> str:
        """One line: what is simulated in which world."""
        return f"{super().title()}, {self.world.title()}"
