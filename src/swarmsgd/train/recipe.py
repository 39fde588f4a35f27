"""What `swarmsgd train` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from swarmsgd.recipe import RunConfig, one_of
from swarmsgd.train.algorithms import ALGORITHMS
from swarmsgd.train.devices import device_of_node


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One run of `swarmsgd train`: each node is a process of its own on this machine."""

    device: str = "cpu"
    """Where nodes train: cpu, cuda, ...; node i takes device i modulo their number, or cuda:1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("algorithm", self.algorithm, ALGORITHMS)
        device_of_node(self.device, 0)
