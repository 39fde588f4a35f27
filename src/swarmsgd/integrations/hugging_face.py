"""A callback for `transformers.Trainer`: a node's own model in training, the mean at its end."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swarmsgd.errors import ConfigError
from swarmsgd.integrations import check_alone
from swarmsgd.train.node.join import join
from swarmsgd.train.node.recalibrate import Batches
from swarmsgd.train.node.swarm import Swarm


class SwarmCallback(TrainerCallback):
    """Joins when training begins, with `settings` as for `swarmsgd.join`. When it ends the model
    gets the mean of all nodes' models (`recalibrate` as for `Swarm.mean_model`), and the node
    leaves.

    Call `swarmsgd.integrations.hide_place()` before `TrainingArguments` are made. To the Trainer
    each node is alone: give each its own part of the data and an `output_dir` of its own. Raises
    ConfigError for a Trainer that works with other processes, or that would bring back weights of
    its own after training (`load_best_model_at_end`).
    """

    def __init__(self, *, recalibrate: Batches | None = None, **settings: Any) -> None:
        self.swarm: Swarm | None = None
        """From the beginning of training on; after its end with the last figures."""
        self._recalibrate = recalibrate
        self._settings = settings

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Join; the optimizer exists by now."""
        assert model is not None and optimizer is not None
        check_alone(args.world_size)
        if args.load_best_model_at_end:
            raise ConfigError(
                "load_best_model_at_end brings back one of this node's own checkpoints before the "
                "mean is taken: leave it out, and evaluate the mean, which is what the model holds "
                "after train()"
            )
        if self.swarm is not None:
            self.swarm.leave()  # of a training that was broken off
        self.swarm = join(model, optimizer, **self._settings)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """The model gets the mean; leave."""
        assert model is not None and self.swarm is not None
        mean = self.swarm.mean_model(self._recalibrate)
        self.swarm.leave()
        model.load_state_dict(mean)
