"""A node's line to the meeting place: one connection, one thread.

The line dials again, for ever, when it is lost: whatever listens at the address then is told who
this node is and what it knows of the run. Training needs none of it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from swarmsgd.errors import PeerError
from swarmsgd.train.meet.dealer import WATCHED, dealer, endpoint_of
from swarmsgd.train.meet.news import LineLost, News, RunHasBegun
from swarmsgd.train.meet.session import Said
from swarmsgd.train.meet.tracker import KIND
from swarmsgd.transport import lifetime
from swarmsgd.transport.descriptors import close_connections
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import packed, unpacked

_log = logging.getLogger("swarmsgd")

_BEAT_S = 1.0
_LATEST_S = 0.2
_SOON_MS = 10
_FIND_S = 1.0
_COME_BACK_S = 5.0
"""Others find a meeting place again within this time, or are gone."""

HUNG_UP = 3
"""So many connections that end before a word is said are no accident."""


class Line:
    """To the meeting place at `address`:`port`, where this node says `hello` first.

    `find` tells, while there is no connection, whether it is elsewhere now.
    """

    def __init__(
        self,
        address: str,
        port: int,
        hello: Said,
        key: SwarmKey | None = None,
        find: Callable[[], tuple[str, int] | None] = lambda: None,
    ) -> None:
        self.at = f"{address}:{port}"
        self.lost = False
        """Whether the meeting place was reached once and cannot be now."""
        self.hung_up = 0
        """How often whoever listens there ended the connection before a word was said."""
        self.refused: str | None = None
        self.waits: str | None = None
        """What the meeting place waits for, if it said so."""
        self.members: dict[int, tuple[int, str]] = {}
        """The nodes that live, of which this line knows: incarnation and endpoint."""
        self.gone: dict[int, str] = {}
        """Those that have gone since, and how."""
        self.welcome: Said | None = None
        self._hello = hello
        self._back: Said | None = None
        self._left = False
        self._on_news: Callable[[list[News]], None] | None = None
        self._welcomed = threading.Event()
        self._numbers = 0
        self._pending: dict[int, queue.SimpleQueue[Said | None]] = {}
        self._outbox: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._closed = False
        self._process = os.getpid()
        self._fds: dict[int, int] = {}
        self._port = port
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._context = zmq.Context()
        self._socket = dealer(self._context, address, port, key)
        self._monitor = self._context.socket(zmq.PAIR)
        self._socket.monitor("inproc://line", WATCHED)
        self._monitor.connect("inproc://line")
        self._find = find
        self._connected = False
        self._greets = False
        """A connection is up, and HELLO not said: ZeroMQ tells of it before one can send."""
        self._count_at: float | None = None
        """When to ask who has come back, after the meeting place was lost."""
        self._find_at = time.monotonic() + _FIND_S
        self._endpoint = endpoint_of(address, port)
        self._socket.connect(self._endpoint)
        self._thread = threading.Thread(target=self._run, name="swarmsgd-line", daemon=True)
        self._thread.start()
        lifetime.begins(self)

    # What a node says.

    def meet(self, timeout_s: float) -> Said:
        """The welcome. Raises PeerError if this node is refused, or TimeoutError."""
        give_up = time.monotonic() + timeout_s
        while not self._welcomed.wait(_LATEST_S):
            if self.refused is not None:
                raise PeerError(self._refusal())
            if time.monotonic() > give_up:
                raise TimeoutError
        assert self.welcome is not None
        return self.welcome

    def stand(self, *, endpoint: str, facts: Any) -> None:
        """From now on this node is in the run: who loses its line comes back with this."""
        assert self.welcome is not None
        self._back = {"endpoint": endpoint, "facts": facts, "back": True}

    def listen(self, on_news: Callable[[list[News]], None]) -> dict[int, tuple[int, str]]:
        """Hear from now on who comes and goes, on the line's own thread; who lives now."""
        self._on_news = on_news
        return dict(self.members)

    def say(self, what: str, **fields: Any) -> None:
        """Something that wants no answer."""
        self._outbox.put({"do": what, **fields})
        self._wake()

    def ask(self, what: str, timeout_s: float, **fields: Any) -> Said:
        """The answer. Raises LineLost if the meeting place is gone, TimeoutError after `timeout_s`
        with the question still standing, RunHasBegun if that is the answer.
        """
        number, answers = self._question(what, fields)
        try:
            return self._answer(answers, timeout_s)
        finally:
            self._pending.pop(number, None)

    def leave(self, timeout_s: float) -> None:
        """The last word; what comes after it is from nobody in the run. Raises as `ask`."""
        self._back = None
        self._left = True
        self.ask("left", timeout_s)

    def gather(
        self,
        room: str,
        value: Any,
        who: str | Sequence[int],
        *,
        begins: bool = False,
        timeout_s: float,
        tell_s: float | None = None,
        tell: Callable[[list[int]], None] = lambda _: None,
    ) -> Said:
        """Meet others in a room: what all of them say. See `register`.

        `tell` is given the absent once `tell_s` have passed. Raises as `ask`.
        """
        fields = {"room": room, "value": value, "who": who, "begins": begins}
        number, answers = self._question("gather", fields)
        give_up = time.monotonic() + timeout_s
        tell_at = None if tell_s is None else time.monotonic() + tell_s
        try:
            while True:
                try:
                    return self._answer(answers, _LATEST_S)
                except TimeoutError:
                    now = time.monotonic()
                if now > give_up:
                    raise TimeoutError
                if tell_at is not None and now > tell_at:
                    tell_at = None
                    tell(self.absent(room))
        finally:
            self._pending.pop(number, None)

    def living(self) -> dict[int, tuple[int, str]]:
        """As `members`; raises PeerError if this node was refused since."""
        if self.refused is not None:
            raise PeerError(self._refusal())
        return dict(self.members)

    def met_again(self, timeout_s: float) -> bool:
        """Whether a meeting place that was lost is there again in time, or another one."""
        give_up = time.monotonic() + timeout_s
        while self.lost and time.monotonic() < give_up:
            time.sleep(0.05)
        return not self.lost

    def absent(self, room: str) -> list[int]:
        """Who is waited for in a room."""
        return self.ask("absent", 5.0, room=room).get("absent", [])

    def _question(self, what: str, fields: Said) -> tuple[int, queue.SimpleQueue[Said | None]]:
        answers: queue.SimpleQueue[Said | None] = queue.SimpleQueue()
        self._numbers += 1
        number = self._numbers
        self._pending[number] = answers
        self.say(what, n=number, **fields)
        return number, answers

    def _answer(self, answers: queue.SimpleQueue[Said | None], timeout_s: float) -> Said:
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                answer = answers.get(timeout=min(_LATEST_S, max(0.0, give_up - time.monotonic())))
            except queue.Empty:
                if self.lost or self._closed:
                    raise LineLost(self._why_lost()) from None
                if time.monotonic() >= give_up:
                    raise TimeoutError from None
                continue
            if answer is None and self.refused is not None:
                raise PeerError(self._refusal())
            if answer is None:
                raise LineLost(self._why_lost())
            if "welcome" in answer:
                raise RunHasBegun
            return answer

    def _refusal(self) -> str:
        return f"the meeting place at {self.at} refuses this node: {self.refused}"

    def _why_lost(self) -> str:
        return f"the store of this run, at {self.at}, cannot be reached any more"

    def close(self) -> None:
        """Hang up. May be called twice; in a forked child it does nothing."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        self._wake()
        self._thread.join()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(200)
        self._context.term()
        self._woken.close()
        self._waker.close()
        lifetime.ends(self)

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's."""
        close_connections(self._fds)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    # The thread.

    def _run(self) -> None:
        poller = zmq.Poller()
        for readable in (self._socket, self._monitor, self._woken):
            poller.register(readable, zmq.POLLIN)
        next_beat = 0.0
        while not self._closed:
            poller.poll(_SOON_MS if self._greets else int(1000 * _BEAT_S))
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            while int(self._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                event = recv_monitor_message(self._monitor)
                self._changed(event["event"], int(event["value"]))
            while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                self._heard(self._socket.recv())
            if self._greets:
                self._greets = not self._send(self._who_i_am())
            beats = self._welcomed.is_set() and not self._left
            if beats and (now := time.monotonic()) >= next_beat:
                next_beat = now + _BEAT_S * 0.9
                self._send({"do": "beat"})
            self._send_all()
            if self._count_at is not None and time.monotonic() >= self._count_at:
                self._count_at = None
                self._send({"do": "members"})
            if not self._connected and time.monotonic() >= self._find_at:
                self._look_elsewhere()
        self._send_all()

    def _look_elsewhere(self) -> None:
        self._find_at = time.monotonic() + _FIND_S
        found = self._find()
        if found is not None and (endpoint := endpoint_of(*found)) != self._endpoint:
            self._socket.disconnect(self._endpoint)
            self._socket.connect(endpoint)
            self._endpoint, self._port = endpoint, found[1]
            self.at = f"{found[0]}:{found[1]}"

    def _send_all(self) -> None:
        while True:
            try:
                message = self._outbox.get_nowait()
            except queue.Empty:
                return
            if not self._send(message) and (asks := self._pending.get(message.get("n", 0))):
                asks.put(None)  # or it would wait for ever

    def _send(self, message: Said) -> bool:
        """Whether it left. If there is no connection who waits for an answer is told."""
        try:
            self._socket.send(bytes(packed(KIND, json.dumps(message).encode())), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _changed(self, event: int, value: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._fds[value] = self._port
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected = self._greets = True
        else:
            self.hung_up += event == zmq.EVENT_DISCONNECTED and not self._connected
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:  # after which ZeroMQ tries no more
                self.hung_up = HUNG_UP
            self._fds.clear()
            self._connected = False
            if self._welcomed.is_set():
                self.lost = True
            for answers in list(self._pending.values()):
                answers.put(None)

    def _who_i_am(self) -> Said:
        hello = {"do": "hello", **self._hello}
        if self._back is not None and self.welcome is not None:
            welcome = self.welcome
            hello |= self._back
            hello |= {"id": welcome["welcome"], "incarnation": welcome["incarnation"]}
            hello |= {"token": welcome["token"], "means": welcome["means"]}
            hello["next_id"] = max([welcome["next_id"], *(1 + n for n in self.members)])
        return hello

    def _heard(self, part: bytes) -> None:
        try:
            message: Said = json.loads(bytes(unpacked(memoryview(part))[1]))
        except ValueError:
            return
        if "welcome" in message:
            self._be_welcome(message)
        elif "all" in message:
            here = {entry[0] for entry in message["all"]}
            gone = [News("gone", n, e[0], "lost") for n, e in self.members.items() if n not in here]
            self._hear(gone)
        elif "news" in message:
            self._hear([News(*each) for each in message["news"]])
        elif "refused" in message:
            self.refused = message["refused"]
            for answers in list(self._pending.values()):
                answers.put(None)
            if self._back is not None:
                _log.warning("%s. It trains on with those it knows", self._refusal())
        elif "waits" in message:
            self.waits = message["waits"]
        elif message.get("unknown"):
            if self._back is not None:
                self._send(self._who_i_am())
            if (answers := self._pending.get(message["n"])) is not None:
                answers.put(None)
        elif (answers := self._pending.get(message.get("n", 0))) is not None:
            if self.welcome is not None:  # a meeting place that is filled again asks for this
                self.welcome["means"] = message.get("means", self.welcome["means"])
            answers.put(message)

    def _be_welcome(self, message: Said) -> None:
        first = self.welcome is None
        self.welcome = message
        self.lost = False
        here = {n: (incarnation, endpoint) for n, incarnation, endpoint in message["members"]}
        here.pop(message["welcome"], None)
        if first or self._back is None:
            self.members = here
            if message["begun"] and not first:  # while it waited to begin, others went on
                for answers in list(self._pending.values()):
                    answers.put(message)
            self._welcomed.set()
            return
        # What others know and this node does not. Who is not there is given time to come back.
        self._count_at = time.monotonic() + _COME_BACK_S
        self._hear([News("joined", n, *e) for n, e in here.items() if self.members.get(n) != e])

    def _hear(self, news: list[News]) -> None:
        for each in news:
            if each.what == "joined":
                self.members[each.node] = each.incarnation, each.text
                self.gone.pop(each.node, None)
            elif each.what == "arriving":
                pass  # it has no model yet
            elif self.members.get(each.node, (each.incarnation, ""))[0] <= each.incarnation:
                self.members.pop(each.node, None)
                self.gone[each.node] = each.text
        if self._on_news is not None and news:
            self._on_news(news)
