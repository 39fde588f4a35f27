"""How two ends find each other in the store, and make sure that each can reach the other.

Gloo does not survive a connection that fails late, and says little about why. So both ends leave a
card in the store, connect once to the address on the other's card, and say how that went; only two
ends that both said "ok" go on.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from torch.distributed import (
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.transport.link import LINK_VERSION

_REACH_S = 30.0
_OK = "ok"
_ADVICE = "Check the addresses (MASTER_ADDR decides which is used) and the firewall between the two"

OpenStore = Callable[[], Store]


def store_opener(store: Store | OpenStore) -> OpenStore:
    """A function that opens a client of `store` for one thread: a client serialises its callers."""
    if not isinstance(store, Store):
        return store
    try:
        return store.clone  # pyright: ignore[reportAttributeAccessIssue]
    except AttributeError:  # torch 2.6
        pass
    if isinstance(store, PrefixStore):
        raise ConfigError(
            "a PrefixStore cannot be cloned by this torch; pass a function that opens a new client"
        )
    if isinstance(store, TCPStore):
        host, port, timeout = store.host, store.port, store.timeout  # pyright: ignore[reportAttributeAccessIssue]
        return lambda: TCPStore(
            host, port, is_master=False, timeout=timeout, wait_for_workers=False
        )
    return lambda: store  # in-process or a file: no connection to share


@dataclass(frozen=True, slots=True)
class Card:
    """What one end tells the other before they connect."""

    address: str
    port: int
    """Where its device listens; 0 if that is not known."""
    probe_port: int
    """Where to connect to, once, to see whether its machine can be reached."""
    version: int = LINK_VERSION


@dataclass(frozen=True, slots=True)
class Meeting:
    """The store, the key space and the card of a peer that is there and reachable, both ways."""

    peer: int
    store: Store
    key: str
    card: Card


class NotMet(Exception):
    """The text says why."""


@dataclass(frozen=True, slots=True)
class MeetingPlace:
    """Where node `rank`, reached at `address`, meets its neighbours: keys of the store under
    `prefix`, told apart by `tag`. `port` is for its card. `stop` ends a meeting early.
    """

    rank: int
    open_store: OpenStore
    address: str
    port: int
    prefix: str
    tag: str
    stop: threading.Event

    def meet(
        self, peers: Iterable[int], then: Callable[[Meeting], None], timeout_s: float
    ) -> dict[int, str]:
        """Meet all `peers` at once and do `then` for each as soon as it was met.

        Returns who was not met, and why. `then` runs on a thread for each peer and may raise
        NotMet. Raises PeerError if the store cannot be reached.
        """
        failed: dict[int, str] = {}
        give_up = time.monotonic() + timeout_s

        def meet_one(peer: int, store: Store, card: Card) -> None:
            try:
                then(self._meet(peer, store, card, give_up))
            except NotMet as error:
                failed[peer] = str(error)
            except Exception as error:  # above all torch's RuntimeErrors, if the store goes away
                failed[peer] = f"could not be met: {error!r}"

        with _probe(self.address) as probe:
            card = Card(self.address, self.port, probe.getsockname()[1])
            threads = [
                threading.Thread(
                    target=meet_one,
                    args=(peer, self._client(), card),
                    name=f"swarmsgd-meet-{peer}",
                    daemon=True,
                )
                for peer in peers
            ]
            try:
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            except BaseException:
                self.stop.set()
                raise
        return failed

    def _client(self) -> Store:
        try:
            return self.open_store()
        except RuntimeError as error:
            raise PeerError(
                f"node {self.rank} cannot reach the store: {error}. Is its host up?"
            ) from None

    def _meet(self, peer: int, store: Store, card: Card, give_up: float) -> Meeting:
        edge = f"{min(self.rank, peer)}-{max(self.rank, peer)}"
        key = "/".join(part for part in (self.prefix, "link", edge, self.tag) if part)
        store.set(f"{key}/card/{self.rank}", json.dumps(asdict(card)))
        theirs = _read_card(self._wait_for(store, f"{key}/card/{peer}", give_up))
        went = _reach(theirs, give_up - time.monotonic())
        store.set(f"{key}/reached/{self.rank}", went)
        if went != _OK:
            raise NotMet(
                f"cannot be reached at {theirs.address} from {card.address}: {went}. {_ADVICE}"
            )
        went = self._wait_for(store, f"{key}/reached/{peer}", give_up)
        if went != _OK:
            raise NotMet(
                f"cannot reach this node at {card.address} from {theirs.address}: {went}. {_ADVICE}"
            )
        return Meeting(peer, store, key, theirs)

    def _wait_for(self, store: Store, key: str, give_up: float) -> str:
        begin, pause_s = time.monotonic(), 0.002
        while not store.check([key]):
            if time.monotonic() > give_up:
                waited_s = time.monotonic() - begin
                raise NotMet(
                    f"did not appear within {waited_s:.1f} s. Start it, or go on without it"
                )
            if self.stop.wait(pause_s):
                raise NotMet("did not appear before this node was closed")
            pause_s = min(1.5 * pause_s, 0.25)
        return store.get(key).decode()


def _probe(address: str) -> socket.socket:
    """A socket that others can connect to; nobody needs to accept."""
    try:
        family = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address, 0), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {address}: {error.strerror or error}. Pass an address of this "
            "machine that the other nodes reach"
        ) from None


def _read_card(text: str) -> Card:
    fields = json.loads(text)
    if fields.get("version") != LINK_VERSION:
        raise NotMet(
            f"speaks link version {fields.get('version')}, this node {LINK_VERSION}. Run the same "
            "version of swarmsgd on all nodes"
        )
    return Card(**fields)


def _reach(card: Card, timeout_s: float) -> str:
    try:
        at = (card.address, card.probe_port)
        socket.create_connection(at, timeout=min(max(timeout_s, 1.0), _REACH_S)).close()
    except OSError as error:
        return error.strerror or str(error)
    return _OK
