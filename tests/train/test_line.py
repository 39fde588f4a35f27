"""A node's line to the meeting place, over real sockets: it outlives it, and loses nothing."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from nodes import free_port

from swarmsgd.train.meet import line as line_module
from swarmsgd.train.meet import tracker as tracker_module
from swarmsgd.train.meet.line import Line, LineLost
from swarmsgd.train.meet.register import SILENT_S
from swarmsgd.train.meet.tracker import Tracker
from swarmsgd.transport.port import packed

WAIT_S = 60.0


class Place:
    """A meeting place at one port, that is lost and begins again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.lines: list[Line] = []
        self.tracker = Tracker("127.0.0.1", self.port)

    def again(self) -> None:
        self.tracker.close()
        until(lambda: all(line.lost for line in self.lines))
        self.tracker = Tracker("127.0.0.1", self.port)
        until(lambda: not any(line.lost for line in self.lines))

    def arrive(self) -> Line:
        """One more node of an open swarm, which is live."""
        hello = {"session": "s", "size": None, "id": -1}
        line = Line("127.0.0.1", self.port, hello)
        self.lines.append(line)
        welcome = line.meet(WAIT_S)
        endpoint = f"at {welcome['welcome']}"
        line.ask("live", WAIT_S, endpoint=endpoint, facts="facts")
        line.stand(endpoint=endpoint, facts="facts")
        return line

    def mean(self) -> list[dict[str, Any]]:
        """What each is told when all meet for a mean."""
        told: dict[int, dict[str, Any]] = {}

        def meet(number: int, line: Line) -> None:
            told[number] = line.gather("mean", number, "live", timeout_s=WAIT_S)

        threads = [threading.Thread(target=meet, args=each) for each in enumerate(self.lines)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [told[number] for number in sorted(told)]

    def close(self) -> None:
        for line in self.lines:
            line.close()
        self.tracker.close()


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def test_means_go_on_at_the_next_meeting_place_for_old_and_late_nodes_alike(place: Place) -> None:
    place.arrive()
    place.arrive()
    place.mean()
    place.arrive()  # which was not there for that one
    place.again()
    assert [sorted(each["values"]) for each in place.mean()] == [["0", "1", "2"]] * 3


def test_a_meeting_place_that_was_held_takes_nobody_for_silent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [place.arrive() for _ in range(2)]
    held_s, held = 0.0, threading.Event()
    monotonic, register = time.monotonic, place.tracker.register
    stood_still = register.stood_still

    def stands(seconds: float, now: float) -> None:
        stood_still(seconds, now)
        held.set()

    monkeypatch.setattr(register, "stood_still", stands)
    clock = SimpleNamespace(monotonic=lambda: monotonic() + held_s)
    monkeypatch.setattr(tracker_module, "time", clock)
    held_s = 2 * SILENT_S
    assert held.wait(WAIT_S)
    assert [set(told["values"]) for told in place.mean()] == [{"0", "1"}] * 2
    assert all(line.gone == {} for line in lines)


def test_who_died_while_there_was_no_meeting_place_is_gone_at_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_module, "_COME_BACK_S", 1.0)
    first, _, third = place.arrive(), place.arrive(), place.arrive()
    until(lambda: first.members.keys() == {1, 2})
    place.tracker.close()
    place.lines.remove(third)
    third.close()
    place.again()
    until(lambda: first.gone == {2: "lost"})
    assert first.members.keys() == {1}


def test_who_begins_to_meet_where_another_run_just_ended_meets_at_the_next_place() -> None:
    """As node 0 does that hosts one run after the other, while another node is quicker."""
    from swarmsgd.train.meet.place import Place as Where
    from swarmsgd.train.meet.rendezvous import Rendezvous

    port = free_port()
    ending = Tracker("127.0.0.1", port)
    quick = Rendezvous(Where(1, 2, "127.0.0.1", port, hosted=False), WAIT_S)
    found: list[list[Any]] = []
    meeting = threading.Thread(target=lambda: found.append(quick.get_all("hello", "b", WAIT_S)))
    meeting.start()
    until(lambda: ending.register.sessions[quick.session].rooms != {})
    ending.close()
    host = Rendezvous(Where(0, 2, "127.0.0.1", port, hosted=False), WAIT_S)
    assert host.get_all("hello", "a", WAIT_S) == ["a", "b"]
    meeting.join()
    assert found == [["a", "b"]]
    leaving = threading.Thread(target=host.leave)
    leaving.start()
    quick.leave()
    leaving.join()


def test_who_is_too_late_and_finds_no_place_to_ask_who_is_missing_says_both() -> None:
    """The host gave up at the same moment, and its meeting place went with it."""
    from swarmsgd.train.meet.place import Place as Where
    from swarmsgd.train.meet.rendezvous import Rendezvous

    ending = Tracker("127.0.0.1", port := free_port())
    late = Rendezvous(Where(1, 3, "127.0.0.1", port, hosted=False), WAIT_S)
    ending.close()
    until(lambda: late.line.lost)
    said = late._too_late("hello", 2.0)
    assert said.startswith("not all 3 nodes appeared within 2 s, and the store of this run, at ")
    assert said.endswith("what its host printed may say who is missing. Start all again")
    late.close()


def test_a_question_that_could_not_leave_is_answered_at_once(place: Place) -> None:
    line = place.arrive()
    place.tracker.close()
    until(lambda: line.lost)
    line._find = lambda: None
    with pytest.raises(LineLost, match="cannot be reached any more"):
        line.gather("mean", 1, "live", timeout_s=WAIT_S)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    line._pending[77] = answers  # asked before the loss was seen
    line._outbox.put({"do": "members", "n": 77})
    line._wake()
    assert answers.get(timeout=WAIT_S) is None


def test_a_message_that_no_node_sends_leaves_the_meeting_place_to_the_others(place: Place) -> None:
    line = place.arrive()
    context = zmq.Context()
    with context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(f"tcp://127.0.0.1:{place.port}")
        for body in (b"[" * 4096, b"[]", b"\xff", b'{"do": "hello"}'):
            stranger.send(packed(tracker_module.KIND, body))
        assert line.gather("mean", 1, "live", timeout_s=WAIT_S)["values"] == {"0": 1}
    context.term()
    assert place.tracker.error is None and place.tracker._thread.is_alive()
