"""Where the nodes of a run meet: the store, and the check that all run the same thing.

The store is a tracker, not a server: nodes that have their links train on without it.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from torch.distributed import DistError, TCPStore

from swarmsgd.core.messages import explain_difference
from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.launch.hosts import DIED
from swarmsgd.train.meet.place import Place
from swarmsgd.transport.addresses import route_address
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.zmq import ZmqTransport

_log = logging.getLogger("swarmsgd")

_STORE_CALL_S = 60.0
_SAY_AFTER_S = 3.0
"""A wait for the store that is longer is said."""

T = TypeVar("T")

_HOSTED: WeakValueDictionary[tuple[str, int], TCPStore] = WeakValueDictionary()
"""Stores that this process hosts now, by address: swarms that it joins meanwhile meet there too."""


class Rendezvous:
    """The store of one run, seen from one node. Keys live under the run's own prefix.

    Raises ConfigError if node 0 cannot host the store (a taken port), PeerError if it cannot be
    reached.
    """

    def __init__(self, place: Place, timeout_s: float, key: SwarmKey | None = None) -> None:
        self.place = place
        self.swarm_key = key
        self._timeout_s = timeout_s
        self._host: TCPStore | None = None
        if place.rank == 0 and not place.hosted:
            at = (place.host, place.port)
            self._host = _HOSTED.get(at) or self._open(host=True)
            _HOSTED[at] = self._host
        self.store = self.connect()
        self._timeout_s = min(timeout_s, _STORE_CALL_S)  # who was there once answers soon, or never
        self.address = route_address(place.host, place.port)
        self.prefix = f"swarmsgd/{place.run_name}/{self._next_join()}"

    def connect(self) -> TCPStore:
        """A client of the store of its own: one client serialises its callers, so one for each
        thread.
        """
        return self._open(host=False)

    def listen(self, max_message_bytes: int) -> ZmqTransport:
        """A transport of this node, without links, on a port of its own."""
        return ZmqTransport(
            self.place.rank,
            address=self.address,
            key=self.swarm_key,
            max_message_bytes=max_message_bytes,
        )

    def _open(self, *, host: bool) -> TCPStore:
        place = self.place
        if host:
            _check_free(place.host, place.port)
        else:
            _await_listener(place, self._timeout_s)
        where = f"{place.host}:{place.port}"

        def make() -> TCPStore:
            return TCPStore(
                place.host,
                place.port,
                is_master=host,
                timeout=timedelta(seconds=_STORE_CALL_S),
                wait_for_workers=False,
            )

        try:
            return _interruptible(make, self._timeout_s)
        except TimeoutError:
            raise _no_store(place, self._timeout_s) from None
        except RuntimeError as error:  # torch's network and store errors are RuntimeErrors
            if host:
                raise ConfigError(f"node 0 cannot host the store at {where}: {error}") from None
            raise _no_store(place, _STORE_CALL_S) from None

    def _next_join(self) -> int:
        """How many times this node joined under this store: all nodes join equally often."""
        return self.store.add(f"swarmsgd/{self.place.run_name}/joins/{self.place.rank}", 1)

    def key(self, *parts: object) -> str:
        """A key of this join."""
        return "/".join([self.prefix, *map(str, parts)])

    def leave(self) -> None:
        """Say that this node takes no part any more."""
        self.store.set(self.key("left", self.place.rank), "1")

    def gone(self, rank: int) -> bool:
        """Whether this node has left, or the launcher saw its process end."""
        return any(self.store.check([key]) for key in (self.key("left", rank), f"{DIED}/{rank}"))

    def get_all(self, name: str, mine: str, timeout_s: float) -> list[str]:
        """Say `mine` under `name`, wait for what all others say. Raises PeerError naming who is
        missing, or if the store is gone.
        """
        try:
            return self._get_all(name, mine, timeout_s)
        except DistError as error:
            raise PeerError(
                f"the store at {self.place.host}:{self.place.port} cannot be reached any more: "
                f"{error}. Its host has ended; start all again"
            ) from None

    def _get_all(self, name: str, mine: str, timeout_s: float) -> list[str]:
        count = self.place.num_nodes
        keys = [self.key(name, rank) for rank in range(count)]
        self.store.set(keys[self.place.rank], mine)
        give_up = time.monotonic() + timeout_s
        pause_s = 0.005
        while not self.store.check(keys):
            missing = [r for r in range(count) if not self.store.check([keys[r]])]
            # Looked for again: it may have come, and even left, between the two looks.
            gone = [r for r in missing if self.gone(r) and not self.store.check([keys[r]])]
            if gone:
                raise PeerError(
                    f"node {', '.join(map(str, gone))} ended before it had joined: what it printed "
                    "may say why. Mend that and start all again"
                )
            if missing and time.monotonic() > give_up:
                raise PeerError(
                    f"{len(missing)} of {count} nodes did not appear within {timeout_s:.0f} s: "
                    f"node {', '.join(map(str, missing[:10]))}. Start them, or join with fewer "
                    "nodes"
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.2)
        return [self.store.get(key).decode() for key in keys]

    def agree(self, settings: Mapping[str, Any], timeout_s: float) -> None:
        """Make sure all nodes have equal `settings`. Raises PeerError naming who differs, and in
        what.
        """
        everyone = self.get_all("hello", json.dumps(settings), timeout_s)
        mine = json.loads(json.dumps(settings))
        differing: dict[str, list[int]] = {}
        for rank, text in enumerate(everyone):
            difference = explain_difference(mine, json.loads(text))
            if difference:
                differing.setdefault(difference, []).append(rank)
        if differing:
            what = " | ".join(
                f"node {', '.join(map(str, ranks))} has other settings than node "
                f"{self.place.rank}: {text}"
                for text, ranks in differing.items()
            )
            raise PeerError(f"{what}. All nodes of a run must use the same")

    @property
    def hosts(self) -> bool:
        """Whether the store lives in this process, so that it must outlive the others' last
        call.
        """
        return self._host is not None

    def close(self) -> None:
        """Let go of the store."""
        self._host = None


def _check_free(host: str, port: int) -> None:
    """Raise ConfigError if a store cannot listen there; torch itself would print a native trace."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"node 0 cannot host the store at {host}:{port}: {error.strerror or error}. "
            "Choose a free MASTER_PORT, and an address of this machine as MASTER_ADDR"
        ) from None


def _await_listener(place: Place, timeout_s: float) -> None:
    """Wait until something listens at the store's address. Raises PeerError after `timeout_s`."""
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
                f"node {place.rank} cannot reach the store at {why}, within {timeout_s:.0f} s. "
                + _whose_store(place)
            )
        if waited_s > _SAY_AFTER_S and not said:
            said = True
            _log.warning(
                "node %d waits for the store at %s; trying for %.0f s", place.rank, why, timeout_s
            )
        time.sleep(0.1)


def _whose_store(place: Place) -> str:
    if place.hosted:
        return (
            "TORCHELASTIC_USE_AGENT_STORE says that a launcher hosts it: is that up, and the port "
            "open? Unset the variable if there is no launcher"
        )
    return "Is MASTER_ADDR the host of node 0, is that up, and the port open?"


def _no_store(place: Place, timeout_s: float) -> PeerError:
    return PeerError(
        f"node {place.rank} reached {place.host}:{place.port}, but no store answers there within "
        f"{timeout_s:.0f} s. Is MASTER_PORT another program's port?"
    )


def _interruptible(call: Callable[[], T], timeout_s: float) -> T:
    """What `call` returns or raises. Torch's own calls to a store end at no signal, so it is made
    in another thread; TimeoutError, with that thread left behind, if it takes too long.
    """
    outcome: list[Callable[[], T]] = []
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
