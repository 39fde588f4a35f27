"""Finding the meeting place of a run, or making it where that falls to node 0."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch.distributed import TCPStore

from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.launch import variables
from swarmsgd.train.meet.place import Place
from swarmsgd.train.meet.tracker import Tracker
from swarmsgd.transport.addresses import is_loopback
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import EVERYWHERE

_log = logging.getLogger("swarmsgd")

_CALL_S = 60.0
_SAY_AFTER_S = 3.0
"""A wait for the meeting place that is longer is said."""
LAUNCHED = "swarmsgd/tracker"
"""Under this key a launcher's store tells the tracker's address (empty: its own) and port."""

_T = TypeVar("_T")

_hosted: dict[tuple[str, int], Tracker] = {}


def hosted(host: str, port: int, make: Callable[[], Tracker]) -> Tracker:
    """The tracker that this process hosts for that place: swarms that it joins meanwhile meet there
    too. To be released when done.
    """
    for where in [where for where, tracker in _hosted.items() if tracker.closed]:
        del _hosted[where]
    kept = _hosted.get((host, port)) or _hosted.setdefault((host, port), make())
    kept.users += 1
    return kept


class Finder:
    """Where the tracker is: at the place itself, or where a store there says."""

    def __init__(self, place: Place, store: AgentStore | None = None) -> None:
        self._place = place
        self._store = store

    def now(self, timeout_s: float) -> tuple[str, int]:
        """Raises PeerError after `timeout_s`."""
        if self._store is None:
            # The store of an open swarm was there before, or is back soon.
            most_s = min(timeout_s, _CALL_S) if self._place.open else timeout_s
            await_listener(self._place, most_s)
            return self._place.host, self._place.port
        give_up = time.monotonic() + timeout_s
        while (found := self._store.find()) is None:
            if time.monotonic() > give_up:
                raise PeerError(
                    f"{_name(self._place)} waited {timeout_s:.0f} s for node 0, which tells where "
                    "all meet: start it"
                )
            time.sleep(0.02)
        return found

    def again(self) -> tuple[str, int] | None:
        """Where it is now, after it was lost; None if that cannot be told."""
        if self._store is None:
            return None
        try:
            return interruptible(self._store.find, 5.0)
        except (RuntimeError, TimeoutError):
            return None


def host_at(place: Place, key: SwarmKey | None) -> Tracker:
    """Node 0 hosts the meeting place at the address that all were told."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            place.host, place.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        here = str(address[0])
        return Tracker(here if is_loopback(here) else EVERYWHERE, place.port, key)
    except (OSError, ConfigError) as error:
        why = error if isinstance(error, ConfigError) else error.strerror or error
        raise ConfigError(
            f"node 0 cannot host the store at {place.host}:{place.port}: {why}. "
            "Choose a free MASTER_PORT, and an address of this machine as MASTER_ADDR"
        ) from None


class AgentStore:
    """The store of a launcher or of torchrun's agent, which tells where the tracker is."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place = place
        await_listener(place, timeout_s)
        try:
            self._store = interruptible(self._connect, timeout_s)
        except (TimeoutError, RuntimeError):  # torch's network and store errors are RuntimeErrors
            raise no_store(place, timeout_s) from None
        launched = variables.TRACKER in os.environ
        self._key = LAUNCHED if launched else f"{LAUNCHED}/{place.run_name}"
        self.tells = launched
        """Whether its host has a tracker too; else node 0 has one, and tells."""

    def _connect(self) -> TCPStore:
        return TCPStore(
            self._place.host,
            self._place.port,
            is_master=False,
            timeout=timedelta(seconds=_CALL_S),
            wait_for_workers=False,
        )

    def tell(self, address: str, port: int) -> None:
        """All shall meet there."""
        self._store.set(self._key, f"{address} {port}")

    def find(self) -> tuple[str, int] | None:
        """Where the tracker is, if that is told by now."""
        if not self._store.check([self._key]):
            return None
        address, _, port = self._store.get(self._key).decode().rpartition(" ")
        return address or self._place.host, int(port)


def await_listener(place: Place, timeout_s: float) -> None:
    """Wait until something listens at the place. Raises PeerError after `timeout_s`."""
    begin = time.monotonic()
    said = False
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=5.0).close()
            return
        except OSError as error:
            why = f"{place.host}:{place.port}: {error.strerror or error}"
        waited_s = time.monotonic() - begin
        if waited_s > timeout_s:
            raise PeerError(
                f"{_name(place)} cannot reach the store at {why}, within {timeout_s:.0f} s. "
                + _whose_store(place)
            )
        if waited_s > _SAY_AFTER_S and not said:
            said = True
            _log.warning(
                "%s waits for the store at %s; trying for %.0f s", _name(place), why, timeout_s
            )
        time.sleep(0.1)


def _name(place: Place) -> str:
    return "this node" if place.open else f"node {place.rank}"


def _whose_store(place: Place) -> str:
    if place.open:
        return "Is `swarmsgd store` up there, and the port open?"
    if place.hosted:
        return (
            "TORCHELASTIC_USE_AGENT_STORE says that a launcher hosts it: is that up, and the port "
            "open? Unset the variable if there is no launcher"
        )
    return "Is MASTER_ADDR the host of node 0, is that up, and the port open?"


def no_store(place: Place, timeout_s: float) -> PeerError:
    port = "that" if place.open else "MASTER_PORT"
    return PeerError(
        f"{_name(place)} reached {place.host}:{place.port}, but no store answers there within "
        f"{timeout_s:.0f} s. Is {port} another program's port?"
    )


def interruptible(call: Callable[[], _T], timeout_s: float) -> _T:
    """What `call` returns or raises. Torch's own calls to a store end at no signal, so it is made
    in another thread; TimeoutError, with that thread left behind, if it takes too long.
    """
    outcome: list[Callable[[], _T]] = []
    done = threading.Event()

    def run() -> None:
        try:
            value = call()
        except BaseException as error:
            outcome.append(lambda error=error: _raise(error))
        else:
            outcome.append(lambda: value)
        done.set()

    threading.Thread(target=run, name="swarmsgd-store", daemon=True).start()
    if not done.wait(timeout_s):
        raise TimeoutError
    return outcome[0]()


def _raise(error: BaseException) -> Any:
    raise error
