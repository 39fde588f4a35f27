"""Which device a node of a run trains on."""

from __future__ import annotations

import torch

from swarmsgd.errors import ConfigError


def device_of_node(name: str, node: int) -> torch.device:
    """The device `name` if it has a number (``cuda:1``), else number `node` modulo how many this
    machine has, so that nodes share them evenly.

    Raises ConfigError for a device that torch does not know, or does not find here.
    """
    try:
        device = torch.device(name)
        count = 1 if device.type == "cpu" else torch.get_device_module(device).device_count()
    except (RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"device is {name!r}, which torch does not know ({str(error).splitlines()[0]}): "
            "wanted cpu, cuda, cuda:1, ..."
        ) from None
    if device.type == "cpu":
        return torch.device("cpu")
    if (device.index or 0) >= count:
        raise ConfigError(
            f"device is {name!r}, but torch {torch.__version__} finds {count} devices of that kind "
            "on this machine"
        )
    return device if device.index is not None else torch.device(device.type, node % count)
