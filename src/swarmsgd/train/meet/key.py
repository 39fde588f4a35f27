"""Which key this node's swarm has: from an argument, else SWARMSGD_KEY, else none."""

from __future__ import annotations

import ipaddress
import logging
import os
from pathlib import Path

from swarmsgd.train.launch.variables import KEY
from swarmsgd.transport.keys import SwarmKey, make_key, read_key

__all__ = ["find_key", "make_key", "use_key", "warn_if_open"]


_log = logging.getLogger("swarmsgd")


def find_key(given: str | os.PathLike[str] | None) -> SwarmKey | None:
    """Read the key file. Raises ConfigError."""
    path = given or os.environ.get(KEY)
    return read_key(Path(path)) if path else None


def use_key(path: Path) -> SwarmKey:
    """Let all that this process starts have this key. Raises ConfigError if it is none."""
    key = read_key(path)
    os.environ[KEY] = str(path.resolve())
    return key


def warn_if_open(key: SwarmKey | None, address: str) -> None:
    """Say so if links that leave this machine are not encrypted."""
    if key is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        _log.warning(
            "links at %s are neither encrypted nor authenticated: keep this network to yourself, "
            "or give all nodes a key (`swarmsgd keygen`, SWARMSGD_KEY)",
            address,
        )
