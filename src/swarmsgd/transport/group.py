"""Gloo groups for collectives, on a device that can be deaf."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    ProcessGroupGloo,
    Store,  # pyright: ignore[reportPrivateImportUsage]
)

from swarmsgd.errors import ConfigError
from swarmsgd.transport.sockets import hang_up, set_deaf, watch_listener

_SWEEP_S = 0.05


def open_group(
    name: str,
    store: Store,
    rank: int,
    size: int,
    *,
    address: str,
    timeout: timedelta,
    threads: int = 1,
) -> ProcessGroupGloo:
    """A Gloo group of its own, on its own device at `address`; blocks until all have come.

    `threads` run its collectives. Raises RuntimeError, as torch does.
    """
    port = Port(address)
    with port.listening():
        return make_group(name, store, rank, size, port.device, timeout, threads)


def _device(address: str) -> Any:
    make = ProcessGroupGloo.create_device
    try:
        try:
            return make(hostname=address, lazy_init=False)  # lazy groups would end their device
        except TypeError:  # torch 2.6
            return make(hostname=address)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {address}: {torch_said(error)}. Pass an address of this machine "
            "that the other nodes reach"
        ) from None


def make_group(
    name: str, store: Store, rank: int, size: int, device: Any, timeout: timedelta, threads: int
) -> ProcessGroupGloo:
    options = ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]
    options._devices = [device]
    options._timeout = timeout
    options._threads = threads
    return ProcessGroupGloo(PrefixStore(name, store), rank, size, options)


def torch_said(error: RuntimeError) -> str:
    """What torch says, without where in its source and without advice."""
    text = re.sub(r"\[[^\]]*\.(cc|h|cpp):\d+\]\s*", "", str(error).split("\n")[0])
    return text.split(". This is typically", 1)[0]


class Port:
    """The one Gloo device of a transport, and the socket it listens on. Deaf unless `listening`."""

    _making = threading.Lock()

    def __init__(self, address: str) -> None:
        with self._making:
            self.device, self._fd, self.endpoint = watch_listener(lambda: _device(address))
        self._set_deaf(True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Accept connections meanwhile."""
        self._set_deaf(False)
        try:
            yield
        finally:
            self._set_deaf(True)

    def _set_deaf(self, deaf: bool) -> None:
        if self._fd is not None:
            set_deaf(self._fd, deaf)

    def sweep(self) -> None:
        """Hang up on strangers, when no link is open any more and before the device goes.

        In torch 2.6 one that has said nothing yet keeps the loop of a device alive that is gone,
        and the process aborts when the stranger hangs up.
        """
        give_up = time.monotonic() + _SWEEP_S
        while hang_up(self.endpoint) and time.monotonic() < give_up:
            time.sleep(0.01)
