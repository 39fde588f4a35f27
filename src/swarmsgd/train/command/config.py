"""What `swarmsgd train` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError
from swarmsgd.settings.algorithms import REAL_ALGORITHMS
from swarmsgd.settings.options import setting
from swarmsgd.settings.run import RunConfig
from swarmsgd.train.command.devices import device_of_node


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One run of `swarmsgd train`: each node is a process of its own on this machine."""

    algorithm: str = setting("swarm", table=REAL_ALGORITHMS)
    """How the nodes keep their models together: swarm, or what it is compared with."""

    device: str = "cpu"
    """Where nodes train: cpu, cuda, ...; node i takes device i modulo their number, or cuda:1."""

    checkpoint_every: int = 0
    """Local steps between two checkpoints of a node, from which `swarmsgd train --resume FOLDER`
    goes on; 0: none."""

    dashboard: bool = False
    """Show the run on a page of this machine while it goes on; its address is told first."""

    dashboard_port: int = 0
    """Port of that page; 0: a free one."""

    log_to: tuple[str, ...] = ()
    """Where else figures go while it runs: tensorboard, wandb, trackio, mlflow, prometheus:PORT, or
    MODULE:CLASS of your own."""

    address: str | None = None
    """Address or interface of this machine at which the nodes meet; none: the loopback's."""

    key: Path | None = None
    """Key file of the swarm (`swarmsgd keygen`), as SWARMSGD_KEY; none: links are not encrypted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("checkpoint_every", self.checkpoint_every, 0)
        if self.checkpoint_every and self.algorithm != "swarm":
            raise ConfigError(
                f"checkpoint_every is {self.checkpoint_every}, but {self.algorithm} keeps no "
                "checkpoints: only the algorithm swarm does"
            )
        if self.checkpoint_every and self.budget == "together":
            raise ConfigError(
                "checkpoint_every with budget together: what all nodes have made together is in no "
                "checkpoint; take budget each, or leave checkpoint_every out"
            )
        if self.key is not None and self.algorithm != "swarm":
            raise ConfigError(
                f"key is {str(self.key)!r}, but {self.algorithm} encrypts nothing: only the "
                "algorithm swarm does"
            )
        device_of_node(self.device, 0)

    def title(self) -> str:
        """One line: what is trained by whom in which way, and where."""
        return super().title() if self.device == "cpu" else f"{super().title()}, {self.device}"
