"""An endpoint whose peers come and go: lives, newcomers that ask for parts, refused models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from test_endpoint import DIM, RUN, Desk, message

from swarmsgd.core import healing, messages
from swarmsgd.core.healing import OTHERS, Healing, Part, Want, message_of
from swarmsgd.core.messages import Draft, ExchangeId, Kind
from swarmsgd.core.outliers import SEEN, Outliers
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ProtocolError


def zeros(nbytes: int) -> Bytes:
    return np.zeros(nbytes, np.uint8)


def asks(desk: Desk, peer: int, healing: Healing) -> list[Bytes]:
    """A newcomer's questions, answered by the desk."""
    before = len(desk.sent)
    for want in healing.wants():
        desk.endpoint.received(peer, message_of(want, zeros, RUN, peer, 0), 0.0)
    return [sent for to, sent in desk.sent[before:] if to == peer]


class Giving(Desk):
    """With buffers that are laid out when asked for the second time."""

    def __init__(self) -> None:
        super().__init__()
        self.laid_out: Bytes | None = None

    def others(self) -> Bytes | None:
        return self.laid_out


def test_a_newcomer_gets_vectors_and_others_byte_for_byte_and_is_no_peer_by_asking() -> None:
    desk, mine, rest = Giving(), np.zeros(DIM, np.float32), zeros(7)
    desk.laid_out = np.arange(7, dtype=np.uint8)
    taken = Healing([mine.view(np.uint8)], rest)
    while not taken.done:
        for part in asks(desk, 9, taken):
            assert taken.take_in(0, messages.parse_message(part))
    np.testing.assert_array_equal(mine, desk.numbers.copy)
    assert rest.tolist() == list(range(7)) and taken.of == [0]
    assert 9 not in desk.endpoint.machine.membership.open


def test_others_that_must_be_laid_out_first_are_sent_when_they_are() -> None:
    desk = Giving()
    want = message_of(Want(OTHERS, 0, 3), zeros, RUN, 9, 0)
    desk.endpoint.received(9, want, 0.0)
    assert desk.sent == []
    desk.laid_out = np.array([5, 6, 7], np.uint8)
    desk.endpoint.others_ready()
    part = healing.read_part(messages.parse_message(desk.last()))
    assert part[:3] == (OTHERS, 0, 3) and part.data.tolist() == [5, 6, 7]


def test_a_part_that_was_damaged_or_not_asked_for_is_refused() -> None:
    draft = Draft(1, zeros)
    healing.write_part(draft, Part(0, 0, 8, np.arange(8, dtype=np.uint8)))
    whole = draft.finish(Kind.PART, RUN, 1, 0, healing.ID)
    into = zeros(8)
    taken = Healing([into], zeros(0))
    assert not taken.take_in(1, messages.parse_message(whole))  # nothing was asked
    list(taken.wants())
    damaged = whole.copy()
    damaged[-64 + 25] ^= 1
    with pytest.raises(ProtocolError, match="checksum"):
        taken.take_in(1, messages.parse_message(damaged))
    assert taken.take_in(1, messages.parse_message(whole)) and into.tolist() == list(range(8))


def test_who_asks_for_a_vector_that_there_is_not_is_dropped() -> None:
    desk = Desk()
    desk.endpoint.received(1, message_of(Want(3, 0, 8), zeros, RUN, 1, 0), 0.0)
    assert desk.notes == [("distrusted", 1, "node 1 asked for vector 3, which there is not")]


def offers(desk: Desk, incarnation: int, counter: int) -> None:
    """Node 1 offers in this life of its."""
    theirs = Desk(1)
    theirs.endpoint.machine.incarnation = incarnation
    theirs.endpoint.machine._counter = counter - 1  # pyright: ignore[reportAttributeAccessIssue]
    theirs.start(0, 0.0)
    desk.endpoint.received(1, theirs.last(), 0.0)


def test_what_an_earlier_life_sent_is_refused_and_the_later_one_goes_on() -> None:
    desk = Desk()
    offers(desk, 0, 1)
    assert desk.kinds() == [(1, Kind.REPLY)]
    desk.endpoint.lost(1, "its process ended", 1.0)
    desk.endpoint.opened(1, 1)
    offers(desk, 1, 1)  # a number that its former life has used too
    assert desk.kinds()[-1] == (1, Kind.REPLY) and len(desk.exchanges) == 2
    old = message(Kind.REFUSE, ExchangeId(0, 0, 1), sender=1, incarnation=0)
    desk.endpoint.received(1, old, 2.0)
    assert desk.notes[-1][:2] == ("distrusted", 1)
    assert "what an earlier process sent" in desk.notes[-1][2]


def test_a_peer_that_broke_the_protocol_is_heard_again_in_its_next_life_alone() -> None:
    desk = Desk()
    desk.endpoint.received(1, zeros(64), 0.0)
    desk.endpoint.tick(10.0)
    assert desk.dropped == [1]
    desk.endpoint.opened(1, 0)
    offers(desk, 0, 1)
    assert desk.exchanges == []
    desk.endpoint.opened(1, 1)
    offers(desk, 1, 1)
    assert len(desk.exchanges) == 1
    assert desk.notes[-1][:2] == ("back", 1) and desk.endpoint.lost_peers == {}


def test_a_link_that_is_closed_in_order_costs_nothing_and_is_not_told_of() -> None:
    desk = Desk()
    desk.start(1, 0.0)
    desk.endpoint.unlinked(1, 1.0)
    assert desk.releases == 1 and desk.notes == [] and desk.endpoint.lost_peers == {}
    assert desk.endpoint.machine.counts.lost == 0


@pytest.fixture
def wary() -> Iterator[Desk]:
    desk = Desk(bits=(8,))
    desk.numbers.vectors[0].outliers = Outliers(50.0)
    yield desk


def exchange(desk: Desk, theirs: Desk, now: float) -> None:
    theirs.start(0, now)
    desk.endpoint.received(1, theirs.last(), now)


def test_a_model_far_from_all_before_is_refused_and_teaches_the_code_nothing(wary: Desk) -> None:
    theirs = Desk(1, bits=(8,))
    for step in range(SEEN + 2):
        theirs.numbers.copy[:] = wary.numbers.copy + np.float32(0.01)
        exchange(wary, theirs, float(step))
        theirs.endpoint.received(0, wary.last(), float(step))
    assert len(wary.exchanges) == SEEN + 2
    theirs.numbers.copy *= 1e6
    copy, learned, answered = wary.numbers.copy, None, 0
    for step in range(20):  # at first its cells are too narrow, and its blocks are left out
        copy, learned = wary.numbers.copy.copy(), wary.numbers.vectors[0].code.learned()
        answered = len(wary.sent)
        exchange(wary, theirs, 100.0 + step)
        if wary.notes:
            break
        theirs.endpoint.received(0, wary.last(), 100.0 + step)
    assert wary.notes[-1][:2] == ("distrusted", 1) and "times farther" in wary.notes[-1][2]
    np.testing.assert_array_equal(wary.numbers.copy, copy)
    assert learned is not None
    np.testing.assert_array_equal(wary.numbers.vectors[0].code.learned(), learned)
    assert (1, Kind.REPLY) not in wary.kinds()[answered:]
