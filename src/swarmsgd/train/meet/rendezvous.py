"""Where the nodes of a run meet: the place of this node, the store, and the check that all run the
same thing.

The store is a tracker, not a server: nodes that have their links train on without it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore

from swarmsgd.core.messages import explain_difference
from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.launch.hosts import DIED
from swarmsgd.transport.addresses import route_address

STANDARD_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_STORE_CALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Which node this is, and where the store is."""

    rank: int
    num_nodes: int
    host: str
    port: int
    hosted: bool
    """Whether somebody else (a launcher, torchrun's agent) hosts the store; else node 0 does."""
    run_name: str = "run"
    """Keeps runs apart that share one store."""

    @classmethod
    def find(
        cls,
        environment: Mapping[str, str],
        *,
        rank: int | None = None,
        num_nodes: int | None = None,
        master_addr: str | None = None,
        master_port: int | None = None,
    ) -> Place | None:
        """From the arguments, else the standard variables; None if neither say anything: one node.

        Raises ConfigError for a part that is missing or makes no sense.
        """
        given = (rank, num_nodes, master_addr, master_port)
        values: dict[str, str] = {}
        for name, value in zip(STANDARD_VARIABLES, given, strict=True):
            text = environment.get(name) if value is None else str(value)
            if text is not None:
                values[name] = text
        if "RANK" not in values and "WORLD_SIZE" not in values:
            return None
        if values.get("WORLD_SIZE") == "1" and "MASTER_ADDR" not in values:
            return None
        missing = [name for name in STANDARD_VARIABLES if name not in values]
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} not set, but {', '.join(values)} is: pass rank, num_nodes, "
                "master_addr and master_port to join(), or start with `swarmsgd launch -n 4 "
                "script.py`"
            )
        rank_, num_nodes_ = (_whole(name, values[name]) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank_ < num_nodes_:
            raise ConfigError(f"rank is {rank_}, wanted 0 to {num_nodes_ - 1} (num_nodes - 1)")
        agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        return cls(
            rank_,
            num_nodes_,
            values["MASTER_ADDR"],
            _whole("MASTER_PORT", values["MASTER_PORT"]),
            hosted=agent and master_addr is None,
            run_name="/".join(environment.get(name, "0") for name in names),
        )


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, wanted a whole number") from None


class Rendezvous:
    """The store of one run, seen from one node. Keys live under the run's own prefix.

    Raises ConfigError if node 0 cannot host the store (a taken port), PeerError if it cannot be
    reached.
    """

    def __init__(self, place: Place, timeout_s: float) -> None:
        self.place = place
        self._timeout_s = timeout_s
        self._host: TCPStore | None = None
        if place.rank == 0 and not place.hosted:
            self._host = self._open(host=True)
        self.store = self.connect()
        self._timeout_s = min(timeout_s, _STORE_CALL_S)  # who was there once answers soon, or never
        self.address = route_address(place.host, place.port)
        self.prefix = f"swarmsgd/{place.run_name}/{self._next_join()}"

    def connect(self) -> TCPStore:
        """A client of the store of its own: one client serialises its callers, so one for each
        thread.
        """
        return self._open(host=False)

    def _open(self, *, host: bool) -> TCPStore:
        place = self.place
        if host:
            _check_free(place.host, place.port)
        else:
            _await_listener(place, self._timeout_s)
        where = f"{place.host}:{place.port}"
        try:
            return TCPStore(
                place.host,
                place.port,
                is_master=host,
                timeout=timedelta(seconds=_STORE_CALL_S),
                wait_for_workers=False,
            )
        except RuntimeError as error:  # torch's network and store errors are RuntimeErrors
            if host:
                raise ConfigError(f"node 0 cannot host the store at {where}: {error}") from None
            raise PeerError(
                f"node {place.rank} reached {where}, but no store answers there within "
                f"{_STORE_CALL_S:.0f} s. Is MASTER_PORT another program's port?"
            ) from None

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
    give_up = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((place.host, place.port), timeout=5.0).close()
            return
        except OSError as error:
            if time.monotonic() > give_up:
                raise PeerError(
                    f"node {place.rank} cannot reach the store at {place.host}:{place.port} within "
                    f"{timeout_s:.0f} s: {error.strerror or error}. "
                    "Is node 0 (or the launcher) up, and the port open?"
                ) from None
            time.sleep(0.1)
