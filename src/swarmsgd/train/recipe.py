"""What `swarmsgd train` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from swarmsgd.recipe import RunConfig, one_of
from swarmsgd.train.algorithms import ALGORITHMS


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One run of `swarmsgd train`: each node is a process of its own on this machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("algorithm", self.algorithm, ALGORITHMS)
