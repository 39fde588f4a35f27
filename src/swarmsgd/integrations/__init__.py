"""A swarm under a framework's training loop: `hugging_face` for `transformers.Trainer`,
`lightning` for that of Lightning. Each is a callback over `swarmsgd.join` that imports its
framework. A loop around Accelerate needs `hide_place` alone.
"""

from __future__ import annotations

import os
import sys

from swarmsgd.errors import ConfigError
from swarmsgd.train.launch import variables
from swarmsgd.train.meet.place import Place

CLUSTER_SIZES = (
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
)
"""Variables of other starters in which frameworks see that there are several processes."""


def hide_place() -> tuple[int, int]:
    """Leave RANK, WORLD_SIZE, ... in this process's environment under our own names alone; returns
    which node this is, of how many.

    A framework that finds the standard ones starts a process group and wraps the model in a DDP,
    and what the swarm averages was averaged already. `join` finds ours. Call it before anything of
    the framework looks (TrainingArguments, Accelerator, Trainer), whatever started the nodes:
    `swarmsgd launch`, torchrun, Slurm, mpirun. Raises ConfigError if that has happened already, or
    if the variables make no sense.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        raise ConfigError(
            "hide_place() came too late: there is a process group already. Call it first thing, "
            "before the framework's arguments, accelerator or trainer are made"
        )
    alone = variables.own_alone(os.environ)
    place = Place.find(alone)
    for name in (*variables.OWN, *CLUSTER_SIZES):
        os.environ.pop(name, None)
    if place is None:
        return 0, 1
    values = (place.rank, place.num_nodes, place.host, place.port)
    for name, value in zip(variables.PLACE, values, strict=True):
        alone[variables.OWN[name]] = str(value)
    os.environ.update({name: alone[name] for name in variables.OWN.values() if name in alone})
    return place.rank, place.num_nodes


def check_alone(processes: int) -> None:
    """Raise ConfigError if a framework's trainer works with other processes."""
    if processes > 1:
        raise ConfigError(
            f"the trainer works with {processes} processes and averages their gradients, and the "
            "swarm would average a second time. Call swarmsgd.integrations.hide_place() before it "
            "is made, or start with `swarmsgd launch --no-standard-env`, and give it one device"
        )
