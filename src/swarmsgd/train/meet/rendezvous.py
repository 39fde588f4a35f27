"""Where the nodes of a run meet, seen from one of them, and the check that all run the same thing.

The meeting place is a tracker (`tracker`). `swarmsgd store` or the launcher hosts it, else node 0
does. Where a launcher or torchrun's agent has a store at MASTER_ADDR and MASTER_PORT, that tells
where the tracker is, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from swarmsgd.core.messages import explain_difference
from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.launch import variables
from swarmsgd.train.meet.finding import AgentStore, Finder, host_at, hosted, no_store
from swarmsgd.train.meet.line import HUNG_UP, Line
from swarmsgd.train.meet.news import LineLost
from swarmsgd.train.meet.place import Place
from swarmsgd.train.meet.session import Said
from swarmsgd.train.meet.tracker import Tracker
from swarmsgd.transport.addresses import is_loopback, route_address
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.link import QUEUED_BYTES
from swarmsgd.transport.port import EVERYWHERE
from swarmsgd.transport.zmq import ZmqTransport

_log = logging.getLogger("swarmsgd")

_CALL_S = 60.0
_MISSED_S = 10.0
"""Who has not come by then, of those that all begin with, is named."""
_SAY_AFTER_S = 3.0
"""A wait for the meeting place that is longer is said."""
UNSEEN_S = 5.0
"""How long the host of a tracker that nobody hears any more stays for those who are there."""

FIRST = "hello"
"""The room where all compare their settings."""
_ENDING_S = 5.0

_joins: dict[tuple[str, int, int], int] = {}
"""How many swarms each node of this process joined, by place: all join them in the same order."""


class Rendezvous:
    """One run's meeting place. Raises ConfigError if node 0 cannot host it (a taken port),
    PeerError if it cannot be reached or refuses this node. A node that does not listen is hidden:
    its transports only dial.
    """

    def __init__(
        self, place: Place, timeout_s: float, key: SwarmKey | None = None, *, listens: bool = True
    ) -> None:
        self.place = place
        self.swarm_key = key
        self.listens = listens
        self._timeout_s = timeout_s
        self._host: Tracker | None = None
        self.address = route_address(place.host, place.port)
        try:
            find = self._find(key)
            host, port = find.now(timeout_s)
            self.session = self._session()
            hello = {
                "session": self.session,
                "size": None if place.open else place.num_nodes,
                "id": place.rank,
                "listens": listens,
                "again": variables.AGAIN in os.environ,
            }
            self.line = Line(host, port, hello, key, find.again)
            try:
                self.welcome = self._meet()
            except BaseException:
                self.line.close()
                raise
        except BaseException:
            self._release()
            raise

    def _session(self) -> str:
        """The name of the run: a process may be in several at one place."""
        place = self.place
        if place.open:
            return place.run_name
        me = (place.host, place.port, place.rank)
        number = _joins[me] = _joins.get(me, -1) + 1
        return f"{place.run_name}/{number}"

    def _find(self, key: SwarmKey | None) -> Finder:
        """Host the tracker if that falls to this node; how it is found."""
        place, first = self.place, self.place.rank == 0
        if not place.hosted:
            if first and not place.open:
                self._check_can_host()
                self._host = hosted(place.host, place.port, lambda: host_at(place, key))
            return Finder(place)
        store = AgentStore(place, self._timeout_s)
        if first and not store.tells:
            self._check_can_host()
            here = self.address if is_loopback(self.address) else EVERYWHERE
            self._host = hosted("", place.port, lambda: Tracker(here, 0, key))
            store.tell(self.address, self._host.port)
        return Finder(place, store)

    def _check_can_host(self) -> None:
        if not self.listens:
            raise ConfigError(
                "node 0 keeps the meeting place of this run, so it has to listen, but has "
                "listen=False: give rank 0 to a node that others can dial, or let `swarmsgd launch "
                "--hosts` or `swarmsgd store` keep it"
            )

    def _meet(self) -> Said:
        begin, said = time.monotonic(), ""
        timeout_s = min(self._timeout_s, _CALL_S)
        while True:
            try:
                return self.line.meet(0.5)
            except TimeoutError:
                waited_s = time.monotonic() - begin
            waits = self.line.waits
            if self.line.hung_up >= HUNG_UP:
                mine = "no key" if self.swarm_key is None else f"key {self.swarm_key.fingerprint}"
                raise PeerError(
                    f"the store at {self.line.at} hangs up on this node, which has {mine}: the "
                    "swarm has another, or another program listens there. Give all nodes one key "
                    "file (SWARMSGD_KEY), or none"
                )
            if waits is None and waited_s > timeout_s:
                raise no_store(self.place, timeout_s)
            if waits is not None and waited_s > self._timeout_s:
                raise PeerError(
                    f"the swarm at {self.line.at} has not begun within {self._timeout_s:.0f} s: "
                    f"{waits}. Look at its other nodes"
                )
            if waits is not None and waits != said and waited_s > _SAY_AFTER_S:
                said = waits
                _log.warning("%s, at %s", waits, self.line.at)

    # Who this is.

    @property
    def node(self) -> int:
        """This node's number."""
        return self.welcome["welcome"]

    @property
    def incarnation(self) -> int:
        """How many times this node was started before."""
        return self.welcome["incarnation"]

    @property
    def begun(self) -> bool:
        """Whether the run goes on already."""
        return self.welcome["begun"]

    @property
    def token(self) -> str:
        """What all links of the run have alike."""
        return self.welcome["token"]

    def come_late(self) -> None:
        """While this node waited for the start, it was found that the run goes on already."""
        assert self.line.welcome is not None
        self.welcome = self.line.welcome

    def listen(self, max_message_bytes: int) -> ZmqTransport:
        """A transport of this node, without links, on a port of its own if it listens."""
        return ZmqTransport(
            self.node,
            address=self.address if self.listens else None,
            key=self.swarm_key,
            max_message_bytes=max_message_bytes,
            max_queued_bytes=max(QUEUED_BYTES, 4 * max_message_bytes),  # a reply behind an offer
        )

    def gone(self, rank: int) -> bool:
        """Whether this node has left or is dead."""
        return rank in self.line.gone

    # The start.

    def get_all(self, name: str, mine: Any, timeout_s: float) -> list[Any]:
        """Say `mine` under `name`, wait for what all others say. Raises PeerError naming who is
        missing, or if the meeting place is gone; RunHasBegun.
        """
        return list(self._all(name, mine, timeout_s).values())

    def begin(self, endpoint: str, facts: Any, timeout_s: float) -> None:
        """The start is over for this node; returns when it is for all."""
        mine = {"endpoint": endpoint, "facts": facts, "incarnation": self.incarnation}
        for node, value in self._all("joined", mine, timeout_s, begins=True).items():
            if int(node) != self.node and int(node) not in self.line.gone:
                self.line.members[int(node)] = (value["incarnation"], value["endpoint"])
        self.line.stand(endpoint=endpoint, facts=facts)

    def go_live(self, endpoint: str, facts: Any) -> None:
        """This node has a model and can be reached: all hear of it."""
        answer = self.line.ask("live", _CALL_S, endpoint=endpoint, facts=facts)
        for node, incarnation, where in answer["members"]:
            if node != self.node and node not in self.line.gone:
                self.line.members[node] = (incarnation, where)
        self.line.stand(endpoint=endpoint, facts=facts)

    def _all(
        self, name: str, mine: Any, timeout_s: float, *, begins: bool = False
    ) -> dict[str, Any]:
        try:
            answer = self._gather_all(name, mine, begins, timeout_s)
        except LineLost as error:
            raise PeerError(f"{error}. Its host has ended; start all again") from None
        except TimeoutError:
            raise PeerError(self._too_late(name, timeout_s)) from None
        if "ended" in answer:
            raise PeerError(
                f"node {', '.join(map(str, answer['ended']))} ended before it had joined: what it "
                "printed may say why. Mend that and start all again"
            )
        return answer["values"]

    def _too_late(self, name: str, timeout_s: float) -> str:
        count = self.place.num_nodes
        try:
            absent = self.line.absent(name)
        except (LineLost, TimeoutError) as error:  # its host gave up at the same moment, or hangs
            why = str(error) or f"the store of this run, at {self.line.at}, does not answer"
            return (
                f"not all {count} nodes appeared within {timeout_s:.0f} s, and {why}: what its "
                "host printed may say who is missing. Start all again"
            )
        return (
            f"{len(absent)} of {count} nodes did not appear within {timeout_s:.0f} s: "
            f"node {', '.join(map(str, absent[:10]))}. Start them, or join with fewer nodes"
        )

    def _gather_all(self, name: str, mine: Any, begins: bool, timeout_s: float) -> Said:
        """Where all begin to meet, a meeting place of the run before may just have ended."""

        def gather() -> Said:
            return self.line.gather(
                name,
                mine,
                "all",
                begins=begins,
                timeout_s=timeout_s,
                tell_s=_MISSED_S if name == FIRST else None,
                tell=lambda absent: self._tell(absent, timeout_s),
            )

        try:
            return gather()
        except LineLost:
            if name != FIRST or not self.line.met_again(_ENDING_S):
                raise
        assert self.line.welcome is not None
        self.welcome = self.line.welcome
        return gather()

    def _tell(self, absent: list[int], timeout_s: float) -> None:
        """The first node that is there says who is not."""
        nodes = self.place.num_nodes
        if absent and self.place.rank == min(set(range(nodes)) - set(absent), default=0):
            _log.warning(
                "waiting for node %s of %d, up to %.0f s in all: start %s, with the same address, "
                "port and key",
                ", ".join(map(str, absent[:10])) + ", ..." * (len(absent) > 10),
                nodes,
                timeout_s,
                "it" if len(absent) == 1 else "them",
            )

    def agree(self, settings: Mapping[str, Any], timeout_s: float) -> None:
        """Make sure all nodes have equal `settings`. Raises PeerError naming who differs, and in
        what.
        """
        everyone = self.get_all(FIRST, settings, timeout_s)
        differing: dict[str, list[int]] = {}
        for rank, theirs in enumerate(everyone):
            difference = explain_difference(through_json(settings), theirs)
            if difference:
                differing.setdefault(difference, []).append(rank)
        if differing:
            what = " | ".join(
                f"node {', '.join(map(str, ranks))} has other settings than node "
                f"{self.place.rank}: {text}"
                for text, ranks in differing.items()
            )
            raise PeerError(f"{what}. All nodes of a run must use the same")

    def agree_late(self, settings: Mapping[str, Any]) -> None:
        """Make sure that this node has the settings of the run that goes on. Raises PeerError."""
        difference = explain_difference(through_json(settings), self.welcome["facts"]["settings"])
        if difference:
            raise PeerError(
                f"the swarm at {self.line.at} has other settings than this node: {difference}. "
                "Start this node with the swarm's"
            )

    # The end.

    def leave(self) -> None:
        """The last call. The node that hosts the meeting place stays until all have left or are
        dead.
        """
        with contextlib.suppress(PeerError, TimeoutError):  # gone before us: nobody is left
            self.line.leave(UNSEEN_S)
        self._see_off()
        self.close()

    def _see_off(self) -> None:
        """The host of the meeting place stays for the others' last calls."""
        if self._host is None:
            return
        session = self.session
        latest = time.monotonic() + UNSEEN_S
        while self._host.error is None and (
            self._host.members_of(session)
            or (time.monotonic() < latest and self._host.awaits(session))
        ):
            time.sleep(0.02)

    def close(self) -> None:
        """Let go of the meeting place."""
        self.line.close()
        self._release()

    def _release(self) -> None:
        if self._host is not None:
            self._host.release()
            self._host = None


def through_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from others."""
    return json.loads(json.dumps(settings))
