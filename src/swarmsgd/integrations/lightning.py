"""A callback for Lightning's Trainer: a node's own model in training, the mean at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from swarmsgd.integrations import check_alone
from swarmsgd.train.node.join import join
from swarmsgd.train.node.recalibrate import Batches
from swarmsgd.train.node.swarm import Swarm

if TYPE_CHECKING or "lightning" not in sys.modules:
    from pytorch_lightning import Callback, LightningModule, Trainer
else:  # the same under its other name, for a script that has imported that
    from lightning.pytorch import Callback, LightningModule, Trainer


class SwarmCallback(Callback):
    """Joins when training begins, with `settings` as for `swarmsgd.join`; when it ends the module
    gets the mean of all nodes' (`recalibrate` as for `Swarm.mean_model`), and the node leaves.

    Call `swarmsgd.integrations.hide_place()` first, and make the Trainer with `devices=1`. To it
    each node is alone: give each its own part of the data and a `default_root_dir` of its own. Of
    several optimizers the last one's steps are the local steps. Raises ConfigError for a Trainer
    that works with other processes.
    """

    def __init__(self, *, recalibrate: Batches | None = None, **settings: Any) -> None:
        super().__init__()
        self.swarm: Swarm | None = None
        """From the beginning of training on; after its end with the last figures."""
        self._recalibrate = recalibrate
        self._settings = settings

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join; the optimizers exist by now."""
        check_alone(trainer.world_size)
        self.swarm = join(pl_module, trainer.optimizers, **self._settings)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The module gets the mean; leave."""
        assert self.swarm is not None
        mean = self.swarm.mean_model(self._recalibrate)
        self.swarm.leave()
        pl_module.load_state_dict(mean)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The others go on without this node."""
        if self.swarm is not None:
            self.swarm.leave()
