"""A swarm under a framework's training loop: `hugging_face` for `transformers.Trainer`,
`lightning` for its `Trainer`. Each is a callback over `swarmsgd.join`, and imports its framework
itself. Around `accelerate` `join` needs nothing of ours but `hide_place`.
"""

from __future__ import annotations

import os
import sys

from swarmsgd.errors import ConfigError
from swarmsgd.train.launch import variables


def hide_place() -> None:
    """Leave RANK, WORLD_SIZE, ... in this process's environment under our own names alone.

    A framework that finds the standard ones starts a process group and wraps the model in a DDP,
    and what the swarm averages was averaged already. `join` finds ours. Call it before anything of
    the framework looks (TrainingArguments, Accelerator, Trainer), whatever started the nodes:
    `swarmsgd launch`, torchrun, Slurm. Raises ConfigError if that has happened already.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        raise ConfigError(
            "hide_place() came too late: there is a process group already. Call it first thing, "
            "before the framework's arguments, accelerator or trainer are made"
        )
    alone = variables.own_alone(os.environ)
    for name in variables.OWN:
        os.environ.pop(name, None)
    os.environ.update(alone)
