"""The meeting place, without a socket: who is in, who meets whom, who is told of what."""

from __future__ import annotations

import itertools
from typing import Any

from swarmsgd.train.meet.register import AWAY_S, REFILL_S, SILENT_S, Out, Register


class Desk:
    """A register and what its nodes were told; client names are bytes of the node's label."""

    def __init__(self, refill_s: float = 0.0) -> None:
        names = itertools.count()
        self.register = Register(lambda: f"token{next(names)}", refill_s=refill_s)
        self.now = 0.0
        self.told: dict[str, list[dict[str, Any]]] = {}

    def take(self, out: Out) -> None:
        for client, message in out:
            self.told.setdefault(client.decode(), []).append(message)

    def say(self, who: str, /, **message: Any) -> None:
        self.take(self.register.said(who.encode(), message, self.now))

    def hello(self, who: str, id: int | None, size: int | None, **more: Any) -> dict[str, Any]:
        self.say(who, do="hello", session="s", size=size, id=id, **more)
        return self.told.get(who, [{}])[-1]

    def meet(self, who: str, room: str, value: Any, kind: Any = "all", **more: Any) -> None:
        self.say(who, do="gather", n=1, room=room, value=value, who=kind, **more)

    def ended(self, who: str) -> None:
        self.take(self.register.ended(who.encode(), self.now))

    def wait(self, seconds: float, *beating: str) -> None:
        for _ in range(int(seconds / 0.5)):
            self.now += 0.5
            for who in beating:
                self.say(who, do="beat")
            self.take(self.register.tick(self.now))

    def last(self, who: str) -> dict[str, Any]:
        return self.told[who][-1]

    def begin(self, size: int) -> None:
        """A fixed list of nodes a, b, ... that has begun."""
        names = "abcdef"[:size]
        for id, who in enumerate(names):
            assert self.hello(who, id, size)["begun"] is False
        for id, who in enumerate(names):
            value = {"endpoint": f"at {who}", "facts": "facts", "incarnation": 0}
            self.meet(who, "joined", value, begins=True)
            assert (self.last(who).get("values") is not None) == (id == size - 1)


def test_all_of_a_fixed_list_meet_and_each_is_told_what_all_said():
    desk = Desk()
    for id, who in enumerate("abc"):
        assert desk.hello(who, id, 3)["welcome"] == id
    for who in "abc":
        desk.meet(who, "x", who.upper())
    for who in "abc":
        assert desk.last(who)["values"] == {"0": "A", "1": "B", "2": "C"}


def test_a_node_that_ends_before_all_are_there_ends_the_start_for_the_others():
    desk = Desk()
    for id, who in enumerate("ab"):
        desk.hello(who, id, 3)
    desk.meet("a", "x", 0)
    desk.ended("b")
    assert desk.last("a")["ended"] == [1]
    desk.hello("c", 2, 3)  # slow: it is told as soon as it asks
    desk.meet("c", "x", 0)
    assert desk.last("c")["ended"] == [1]  # node 0 gave up for that


def test_nodes_that_are_started_again_after_that_begin_anew():
    desk = Desk()
    for id, who in enumerate("ab"):
        desk.hello(who, id, 2)
    desk.meet("a", "x", 0)
    desk.ended("b")
    assert desk.hello("A", 0, 2)["begun"] is False
    desk.ended("a")  # the former one, late
    desk.meet("A", "x", 1)
    assert desk.hello("B", 1, 2)["incarnation"] == 1
    desk.meet("B", "x", 2)
    assert desk.last("A")["values"] == {"0": 1, "1": 2}


def test_a_second_process_with_one_rank_is_refused():
    desk = Desk()
    desk.hello("a", 0, 2)
    assert "a node 0 in this run already" in desk.hello("b", 0, 2)["refused"]
    assert "of 2 nodes, this node says of 3" in desk.hello("c", 1, 3)["refused"]


def test_a_node_that_dies_is_told_of_and_comes_back_as_the_next_life():
    desk = Desk()
    desk.begin(3)
    desk.ended("c")
    assert "news" not in desk.last("a")  # it may be its connection alone
    desk.wait(AWAY_S + 1, "a", "b")
    assert desk.last("a") == {"news": [["gone", 2, 0, "lost"]]}
    welcome = desk.hello("C", 2, 3)
    assert welcome["begun"] and welcome["incarnation"] == 1 and welcome["facts"] == "facts"
    assert welcome["members"] == [[0, 0, "at a"], [1, 0, "at b"]]
    assert "joined" not in str(desk.last("a"))  # not before it has a model
    desk.say("C", do="live", n=1, endpoint="at C", facts="facts")
    assert desk.last("a") == {"news": [["joined", 2, 1, "at C"]]}


def test_a_connection_that_comes_back_in_time_is_no_news():
    desk = Desk()
    desk.begin(2)
    token = desk.register.sessions["s"].token
    told = len(desk.told["a"])
    desk.ended("b")
    again = {"token": token, "facts": "facts", "next_id": 0, "means": 0}
    desk.hello("B", 1, 2, back=True, incarnation=0, endpoint="at b", **again)
    desk.wait(2 * AWAY_S, "a", "B")
    assert len(desk.told["a"]) == told


def test_a_life_that_is_over_is_refused():
    desk = Desk()
    desk.begin(2)
    token = desk.register.sessions["s"].token
    desk.ended("b")
    desk.wait(AWAY_S + 1, "a")
    assert desk.hello("B", 1, 2)["incarnation"] == 1
    again = {"token": token, "facts": "facts", "next_id": 0, "means": 0}
    old = desk.hello("b", 1, 2, back=True, incarnation=0, endpoint="at b", **again)
    assert "started again meanwhile" in old["refused"]


def test_a_silent_node_is_left_out_until_it_beats():
    desk = Desk()
    desk.begin(3)
    desk.wait(SILENT_S + 1, "a", "b")
    assert ["gone", 2, 0, "silent"] in desk.last("a")["news"]
    desk.meet("a", "mean", 1, "live")
    desk.meet("b", "mean", 2, "live")
    assert desk.last("a")["values"] == {"0": 1, "1": 2}
    desk.say("c", do="beat")
    assert desk.last("a")["news"] == [["joined", 2, 0, "at c"]]
    desk.meet("c", "mean", 3, "live")
    assert desk.last("c")["missed"] == [0, 1]  # and is told whose mean there is without it


def test_who_was_not_heard_while_the_meeting_place_stood_still_is_not_silent():
    desk = Desk()
    desk.begin(3)
    desk.ended("c")
    desk.now += 2 * SILENT_S
    desk.register.stood_still(2 * SILENT_S, desk.now)
    desk.wait(AWAY_S, "a")
    assert not any("news" in message for message in desk.told["a"])
    desk.wait(1.0, "a")
    assert desk.last("a")["news"] == [["gone", 2, 0, "lost"]]
    desk.wait(SILENT_S, "a")
    assert desk.last("a")["news"] == [["gone", 1, 0, "silent"]]


def test_a_mean_waits_for_all_that_live_and_no_longer_for_who_dies():
    desk = Desk()
    desk.begin(3)
    for who in "ab":
        desk.meet(who, "mean", who, "live")
    desk.say("a", do="absent", n=2, room="mean")
    assert desk.last("a")["absent"] == [2]
    desk.take(desk.register.died(2))
    assert desk.last("b")["values"] == {"0": "a", "1": "b"}


def test_a_room_of_some_goes_on_without_who_dies_and_shows_that():
    desk = Desk()
    desk.begin(3)
    for who in "ab":
        desk.meet(who, "done", True, [0, 1, 2])
    assert "values" not in desk.last("a") or "done" in desk.register.sessions["s"].rooms
    desk.say("c", do="left", n=5)
    assert desk.last("a")["values"] == {"0": True, "1": True}


def test_the_first_of_an_open_swarm_begins_it_and_the_others_wait_for_that():
    desk = Desk()
    assert desk.hello("a", None, None)["begun"] is False
    assert "waits" in desk.hello("b", None, None)
    desk.say("a", do="live", n=1, endpoint="at a", facts="F")
    welcome = desk.last("b")
    assert welcome["welcome"] == 1 and welcome["begun"] and welcome["members"] == [[0, 0, "at a"]]


def test_an_open_swarm_is_begun_by_one_that_others_can_dial():
    desk = Desk()
    hidden = desk.hello("a", None, None, listens=False)
    assert hidden == {"waits": "waiting for a node that listens to begin the swarm"}
    assert desk.hello("b", None, None, listens=True)["welcome"] == 0
    desk.say("b", do="live", n=1, endpoint="at b", facts="facts")
    assert desk.last("a")["welcome"] == 1 and desk.last("a")["begun"]
    desk.say("a", do="live", n=1, endpoint="", facts="facts")
    assert desk.last("b") == {"news": [["joined", 1, 0, ""]]}


def test_who_arrives_where_none_can_be_dialled_is_told_of_to_those_who_can_dial_it():
    desk = Desk()
    for who, endpoint in (("a", "at a"), ("b", ""), ("c", "")):
        desk.hello(who, None, None)
        if who != "c":  # which has no model yet
            desk.say(who, do="live", n=1, endpoint=endpoint, facts="facts")
    desk.hello("d", None, None)
    before = {who: len(told) for who, told in desk.told.items()}
    desk.say("d", do="arriving", endpoint="at d")
    assert desk.last("b") == {"news": [["arriving", 3, 0, "at d"]]}
    after = {who: len(told) for who, told in desk.told.items()}
    assert after == before | {"b": before["b"] + 1}


def test_if_the_first_dies_before_it_is_live_the_next_begins():
    desk = Desk()
    desk.hello("a", None, None)
    desk.hello("b", None, None)
    desk.ended("a")
    desk.wait(1)
    assert desk.last("b")["begun"] is False and desk.last("b")["welcome"] == 1


def test_numbers_are_never_given_twice_not_even_by_the_next_store():
    first = Desk()
    first.hello("a", None, None)
    first.say("a", do="live", n=1, endpoint="at a", facts="F")
    first.hello("b", None, None)
    first.ended("b")
    assert first.hello("c", None, None)["welcome"] == 2
    second = Desk(refill_s=REFILL_S)
    assert "nodes that know it" in second.hello("d", None, None)["waits"]
    token = first.register.sessions["s"].token
    again = {"token": token, "facts": "F", "next_id": 3, "means": 0}
    second.hello("a", 0, None, back=True, incarnation=0, endpoint="at a", **again)
    welcome = second.last("d")
    assert welcome["welcome"] == 3 and welcome["begun"] and welcome["facts"] == "F"


def test_a_store_with_nothing_to_be_filled_from_begins_a_swarm_after_a_while():
    desk = Desk(refill_s=REFILL_S)
    desk.hello("a", None, None)
    desk.wait(REFILL_S + 1)
    assert desk.last("a")["begun"] is False


def test_who_waits_to_begin_a_run_that_goes_on_is_told_so():
    desk = Desk()  # of node 0, which was started again and hosts the store
    desk.hello("a", 0, 2)
    desk.meet("a", "hello", 0)
    again = {"token": "old", "facts": "F", "next_id": 0, "means": 0}
    desk.hello("b", 1, 2, back=True, incarnation=0, endpoint="at b", **again)
    assert desk.last("a")["welcome"] == 0 and desk.last("a")["facts"] == "F"


def test_who_comes_after_all_have_left_in_order_is_told_that_it_is_over():
    desk = Desk()
    desk.begin(3)
    desk.take(desk.register.died(2))
    late = desk.hello("C", 2, 3)
    assert late["begun"]
    for who in "ab":
        desk.say(who, do="left", n=1)
    assert "ended before this node had a model" in desk.last("C")["refused"]
    assert "is over" in desk.hello("D", 2, 3)["refused"]
    assert desk.hello("A", 0, 3)["begun"] is False  # one that left begins the next run


def test_a_process_that_is_started_again_after_all_have_left_begins_no_run():
    desk = Desk()
    desk.begin(2)
    for who in "ab":
        desk.say(who, do="left", n=1)
    assert "the run is over" in desk.hello("A", 0, 2, again=True)["refused"]
    assert desk.hello("A", 0, 2)["begun"] is False  # another script of the same launch does
    assert desk.hello("B", 1, 2, again=True)["begun"] is False


def test_what_makes_no_sense_is_let_fall():
    desk = Desk()
    desk.meet("x", "room", 1)
    assert desk.last("x")["unknown"]
    desk.begin(2)
    desk.say("a", do="dance")
    desk.ended("nobody")
    assert len(desk.register.sessions["s"].members) == 2
