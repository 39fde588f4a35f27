"""What the launchers of one run tell each other when it spans several hosts: who is here, who is
done.

Host 0's launcher hosts the store and must not end before the others' nodes have made their last
call to it. Each other launcher beats in the store, says when its nodes are done, and is given up
once its beat has stood still: nobody has to guess how long a run takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from swarmsgd.errors import ConfigError
from swarmsgd.transport.addresses import VARIABLE, loopback, own_address, reached_at

if TYPE_CHECKING:
    from torch.distributed import Store

LAUNCHER_BEAT_S = 1.0
LAUNCHER_SILENT_S = 30.0
"""A launcher counts as gone once its beat has stood still this long."""
STORE_CALL_S = 60.0
_PREFIX = "swarmsgd/launchers"


def use_address(given: str | None) -> str:
    """Let the nodes that this process starts tell others this address, or this interface's; the
    address, or the loopback's if none is given. Raises ConfigError if it is none of this machine.
    """
    if given is None:
        return loopback()
    address = own_address(given, "--address")
    os.environ[VARIABLE] = address
    return address


def where(hosts: int, host_index: int, master_addr: str, master_port: int) -> str:
    """One line: which host this is, where all meet, where its nodes are reached and why there."""
    line = f"host {host_index} of {hosts}, all meet at {master_addr} port {master_port}"
    try:
        address, why = reached_at(master_addr, master_port)
    except ConfigError as error:  # a name may come to mean something once that host is up
        return f"{line}; so far {error}"
    return f"{line}; nodes here are reached at {address} ({why}; --address names another)"


class LauncherBeat:
    """On every host but the first: announces this launcher, beats, and says when it is done.

    `shape` is what all launchers must agree on, in words. All of it happens in one thread, since
    any call to a store may hang when its host is gone.
    """

    def __init__(self, address: tuple[str, int], shape: str, host_index: int) -> None:
        self.problem: str | None = None
        """Why this launcher cannot be part of the run, once that is known."""
        self._address = address
        self._shape = shape
        self._index = host_index
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swarmsgd-hosts", daemon=True)

    def start(self) -> None:
        """Begin; host 0 may come later."""
        self._thread.start()

    def finish(self, patience_s: float = 5.0) -> None:
        """Say that this host's nodes are done; returns after `patience_s` even if nobody hears."""
        self._finished.set()
        if self._thread.ident is not None:  # else it could not be started
            self._thread.join(patience_s)

    def _run(self) -> None:
        # If the store cannot be used the nodes themselves say so, and why that matters.
        with contextlib.suppress(RuntimeError):
            store = self._connect()
            if store is None:
                return
            self.problem = introduce(store, self._index, self._shape)
            if self.problem is not None:
                return
            while not self._finished.wait(LAUNCHER_BEAT_S):
                store.add(f"{_PREFIX}/beat/{self._index}", 1)
            store.set(f"{_PREFIX}/done/{self._index}", "1")

    def _connect(self) -> Store | None:
        while not self._finished.is_set():
            try:
                socket.create_connection(self._address, timeout=5.0).close()
                break
            except OSError:
                self._finished.wait(0.2)
        else:
            return None
        from torch.distributed import TCPStore

        timeout = timedelta(seconds=STORE_CALL_S)
        return TCPStore(*self._address, is_master=False, timeout=timeout)


def introduce(store: Store, host_index: int, shape: str) -> str | None:
    """Enter a launcher into the run; what is wrong with that, if anything is."""
    me = f"{socket.gethostname()} ({time.time_ns()})"
    agreed = store.compare_set(f"{_PREFIX}/shape", "", shape).decode()
    if agreed != shape:
        return (
            f"this launcher was given {shape}, the run has {agreed}: "
            "give -n and --hosts the same values on every host"
        )
    first = store.compare_set(f"{_PREFIX}/here/{host_index}", "", me).decode()
    if first != me:
        return (
            f"there is a launcher with --host-index {host_index} in this run already, on "
            f"{first.split()[0]}: give each host its own, from 0 on"
        )
    return None


class LauncherRegister:
    """On host 0: who of the others is done, and who has fallen silent."""

    def __init__(
        self,
        store: Store,
        shape: str,
        hosts: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        introduce(store, 0, shape)
        self._store = store
        self._clock = clock
        self._left = set(range(1, hosts))
        self._seen: dict[int, tuple[int, float]] = {}

    def look(self) -> tuple[set[int], set[int]]:
        """(hosts still at work, hosts given up just now). Call it again and again."""
        now = self._clock()
        given_up: set[int] = set()
        for host in sorted(self._left):
            if self._store.check([f"{_PREFIX}/done/{host}"]):
                self._left.discard(host)
                continue
            beat = self._store.add(f"{_PREFIX}/beat/{host}", 0)
            last, since = self._seen.get(host, (-1, now))
            if beat != last:
                self._seen[host] = (beat, now)
            elif now - since > LAUNCHER_SILENT_S:
                self._left.discard(host)
                given_up.add(host)
        return set(self._left), given_up
