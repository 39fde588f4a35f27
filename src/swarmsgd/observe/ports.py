"""Ports of pages, looked at before anything is started."""

from __future__ import annotations

import errno
import socket

from swarmsgd.errors import ConfigError

LOOPBACK = "127.0.0.1"
PORT = 8417


def check_port(port: int) -> None:
    """Raise ConfigError if no page can be shown at this port of the loopback address."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        raise cannot_listen(LOOPBACK, port, error) from None


def cannot_listen(host: str, port: int, error: Exception) -> ConfigError:
    """What to say of a port that could not be had."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return ConfigError(f"port {port} of {host} is taken: choose another, or 0 for a free one")
    why = getattr(error, "strerror", None) or error
    return ConfigError(f"cannot listen on {host}, port {port}: {why}; choose another")
