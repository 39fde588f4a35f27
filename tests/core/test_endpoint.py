"""One endpoint alone, its ports written down: what it sends, gives back, notes and drops."""

import threading
from typing import Any

import numpy as np
import pytest

from swarmsgd.codec import host_way, make_code
from swarmsgd.core import messages
from swarmsgd.core.endpoint import PARTING_S, Endpoint
from swarmsgd.core.matching import Matching
from swarmsgd.core.messages import Draft, ExchangeId, Kind
from swarmsgd.core.node import Node
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments
from swarmsgd.core.traffic import Exchange
from swarmsgd.core.wire_code import Bytes, Mixed

RUN = 0x1234
DIM = 5000


class Numbers(Replica):
    """The vectors of a node, by the code the package ships."""

    def __init__(self, seed: int, bits: tuple[int | None, ...]) -> None:
        rng = np.random.default_rng(seed)
        made: list[ExchangedVector] = []
        for index, width in enumerate(bits):
            copy = rng.standard_normal(DIM).astype(np.float32)
            made.append(
                ExchangedVector(
                    f"vector {index}",
                    make_code(DIM, width),
                    host_way(Segments.row(copy.copy())),
                    copy=copy,
                    pending=np.zeros_like(copy),
                )
            )
        super().__init__(made, threading.Lock())
        self.copy, self.pending = made[0].copy, made[0].pending


class Desk:
    """An endpoint and everything it asked of its ports."""

    def __init__(
        self, rank: int = 0, *, bits: tuple[int | None, ...] = (None,), matching: bool = False
    ) -> None:
        self.sent: list[tuple[int, Bytes]] = []
        self.given: list[int] = []
        self.notes: list[tuple[str, int, str]] = []
        self.dropped: list[int] = []
        self.releases = 0
        self.exchanges: list[tuple[Exchange, Mixed]] = []
        self.deaf = False
        self.numbers = Numbers(rank, bits)
        peers = [peer for peer in range(3) if peer != rank]
        self.next: int | None = None
        """Who is asked next; in matching mode in the next round."""
        machine = (
            Matching(rank, peers, lambda _: self.next)
            if matching
            else Node(rank, peers, lambda _: self.next)
        )
        self.endpoint = Endpoint(machine, self.numbers, self, run=RUN)

    def start(self, peer: int, now: float, round: int | None = None) -> None:
        """A burst ends, and `peer` is asked."""
        self.next = peer
        if isinstance(self.endpoint.machine, Matching) and round is not None:
            self.endpoint.machine.next_round = round
        self.endpoint.burst_ended(now)

    def kinds(self) -> list[tuple[int, Kind]]:
        return [(peer, messages.parse_message(message).kind) for peer, message in self.sent]

    def last(self) -> Bytes:
        return self.sent[-1][1].copy()

    # `Ports`.

    def take(self, nbytes: int) -> Bytes:
        return np.empty(nbytes, np.uint8)

    def give(self, buffer: Bytes) -> None:
        self.given.append(id(buffer))

    def send(self, peer: int, message: Bytes) -> int:
        if self.deaf:
            return 0
        self.sent.append((peer, message))
        return len(message)

    def drop(self, peer: int) -> None:
        self.dropped.append(peer)

    def release(self) -> None:
        self.releases += 1

    def note(self, what: str, peer: int, text: str) -> None:
        self.notes.append((what, peer, text))

    def mixed(self, exchange: Exchange, mixed: Mixed) -> None:
        self.exchanges.append((exchange, mixed))


def message(kind: Kind, exchange: ExchangeId, *, sections: int = 1, bits: int = 0, **of: Any):
    draft = Draft(sections, lambda nbytes: np.zeros(nbytes, np.uint8))
    for vector in range(sections):
        draft.allocator(vector, bits)(64)
    header = {"run": RUN, "sender": 1, "incarnation": 0} | of
    return draft.finish(kind, exchange=exchange, **header)


@pytest.mark.parametrize("bits", [None, 8])
def test_an_exchange_leaves_both_ends_with_opposite_changes_and_every_byte_counted(
    bits: int | None,
):
    one, two = Desk(0, bits=(bits,)), Desk(1, bits=(bits,))
    two.numbers.copy[:] = one.numbers.copy + 0.01 * two.numbers.copy
    before = one.numbers.copy.astype(np.float64) + two.numbers.copy
    apart = float(np.linalg.norm(one.numbers.copy - two.numbers.copy))
    one.start(1, 5.0)
    offer = one.last()
    two.endpoint.received(0, offer, 5.5)
    reply = two.last()
    assert one.kinds() == [(1, Kind.OFFER)] and two.kinds() == [(0, Kind.REPLY)]
    assert one.releases == 0
    one.endpoint.received(1, reply, 6.0)
    assert one.releases == 1 and two.releases == 0
    after = one.numbers.copy.astype(np.float64) + two.numbers.copy
    assert np.abs(after - before).max() < 1e-5
    assert np.array_equal(one.numbers.pending, -two.numbers.pending)
    assert np.linalg.norm(one.numbers.copy - two.numbers.copy) < 0.1 * apart
    (mine, _), (theirs, _) = one.exchanges[0], two.exchanges[0]
    assert (mine.role, mine.peer, mine.begun) == ("initiator", 1, 5.0)
    assert (theirs.role, theirs.peer, theirs.begun) == ("partner", 0, 5.5)
    assert mine.bytes_out == theirs.bytes_in == len(offer) == one.endpoint.traffic.bytes_sent
    assert mine.bytes_in == theirs.bytes_out == len(reply) == one.endpoint.traffic.bytes_received
    assert one.given == [id(reply)] and two.given == [id(offer)]
    fields = mine.fields(one.exchanges[0][1], 6.0)
    assert fields["seconds"] == 1.0 and fields["distance"] == pytest.approx(apart, rel=0.05)


OFFER = message(Kind.OFFER, ExchangeId(1, 0, 1))
BROKEN = {
    "torn": (OFFER[:-64], "torn"),
    "empty": (OFFER[:0], "shorter than a header"),
    "damaged": (np.concatenate([OFFER[:20] ^ 1, OFFER[20:]]), "not a swarmsgd peer"),
    "another run": (message(Kind.OFFER, ExchangeId(1, 0, 1), run=7), "a node of another run"),
    "another sender": (message(Kind.OFFER, ExchangeId(2, 0, 1), sender=2), "node of another run"),
    "other bits": (message(Kind.OFFER, ExchangeId(1, 0, 1), bits=8), "has sections [(0, 8)]"),
    "two vectors": (message(Kind.OFFER, ExchangeId(1, 0, 1), sections=2), "has sections [(0, 0),"),
    "not its own": (message(Kind.OFFER, ExchangeId(2, 0, 1)), "not its own, or repeated"),
    "never offered": (message(Kind.REPLY, ExchangeId(0, 0, 1)), "which was never offered"),
    "no vector": (OFFER, ""),  # a header as it should be, and 64 zeros for 5,000 numbers
}


@pytest.mark.parametrize(("buffer", "why"), BROKEN.values(), ids=BROKEN)
def test_who_breaks_the_protocol_is_told_why_and_dropped_shortly_after(buffer: Bytes, why: str):
    desk = Desk()
    before = desk.numbers.copy.copy()
    desk.endpoint.received(1, buffer, 10.0)
    assert desk.given == [id(buffer)]
    assert desk.kinds() == [(1, Kind.BYE)]
    told = messages.text_of(messages.parse_message(desk.last()))
    assert why in told
    assert [note[:2] for note in desk.notes] == [("distrusted", 1)]
    assert why in desk.endpoint.lost_peers[1]
    assert desk.endpoint.traffic.distrusted == 1
    assert desk.endpoint.machine.membership.open == (2,)
    assert desk.endpoint.deadline == 10.0 + PARTING_S
    desk.endpoint.tick(10.0 + 0.9 * PARTING_S)
    assert desk.dropped == []
    desk.endpoint.tick(10.0 + PARTING_S)
    assert desk.dropped == [1] and desk.endpoint.deadline is None
    assert np.array_equal(desk.numbers.copy, before)


def test_what_a_dropped_peer_still_sends_is_counted_and_given_back_unread():
    desk = Desk()
    desk.endpoint.received(1, OFFER[:-64], 0.0)
    late = OFFER.copy()
    desk.endpoint.received(1, late, 0.1)
    assert desk.given[-1] == id(late)
    assert desk.endpoint.traffic.messages_received == 2
    assert desk.endpoint.traffic.distrusted == 1 and len(desk.sent) == 1


def test_what_comes_in_after_the_goodbye_is_given_back_and_not_mixed():
    two, one = Desk(1), Desk(0)
    one.start(1, 0.0)
    before = two.numbers.copy.copy()
    two.endpoint.say_goodbye()
    said = list(two.sent)
    two.endpoint.received(0, one.last(), 0.1)
    assert two.given == [id(one.last())] and two.sent == said
    assert np.array_equal(two.numbers.copy, before) and not two.exchanges


def test_all_other_links_go_on_when_one_peer_is_dropped():
    desk, other = Desk(0), Desk(2)
    desk.start(2, 0.0)
    desk.endpoint.received(1, OFFER[:-64], 0.1)
    other.endpoint.received(0, desk.sent[0][1].copy(), 0.2)
    desk.endpoint.received(2, other.last(), 0.3)
    assert desk.releases == 1 and len(desk.exchanges) == 1


def test_a_reply_that_cannot_be_mixed_releases_the_node_that_waited_for_it():
    desk, other = Desk(0), Desk(1)
    desk.start(1, 0.0)
    other.endpoint.received(0, desk.last(), 0.1)
    reply = other.last()
    reply[-200:] ^= 0xFF
    desk.endpoint.received(1, reply, 0.2)
    assert desk.releases == 1
    assert desk.endpoint.traffic.distrusted == 1
    assert desk.endpoint.machine.counts.lost == 1 and desk.endpoint.machine.counts.completed == 0
    desk.start(2, 0.3)
    assert desk.kinds()[-1] == (2, Kind.OFFER)


def test_an_offer_that_cannot_leave_ends_at_once_and_is_not_lost():
    desk = Desk()
    desk.deaf = True
    desk.start(1, 0.0)
    assert desk.releases == 1
    assert desk.endpoint.deadline is None
    assert desk.endpoint.machine.counts.refused == 1 and desk.endpoint.machine.counts.lost == 0
    assert desk.endpoint.traffic.bytes_sent == 0


def test_who_could_not_send_a_reply_does_not_say_that_nothing_was_mixed():
    one, two = Desk(0), Desk(1)
    one.start(1, 0.0)
    two.deaf = True
    two.endpoint.received(0, one.last(), 1.0)
    assert len(two.exchanges) == 1 and two.sent == []
    assert two.endpoint.owes(0) and not two.endpoint.owes(2)
    two.deaf = False
    two.endpoint.say_goodbye()
    assert two.dropped == [0] and two.kinds() == [(2, Kind.BYE)]
    one.endpoint.lost(1, "closed", 2.0)
    assert (one.endpoint.machine.counts.lost, one.endpoint.machine.counts.refused) == (1, 0)


def test_a_reply_that_could_not_leave_is_forgotten_once_a_later_one_did():
    one, two = Desk(0), Desk(1)
    for two.deaf in True, False:
        one.start(1, 0.0)
        two.endpoint.received(0, one.last(), 1.0)
        one.endpoint.machine.deadline = 2.0  # pyright: ignore[reportAttributeAccessIssue]
        one.endpoint.tick(3.0)
    two.endpoint.say_goodbye()
    assert two.dropped == [] and (0, Kind.BYE) in two.kinds()


def test_the_deadline_is_that_of_patience_until_the_reply_comes():
    desk, other = Desk(0), Desk(1)
    assert desk.endpoint.deadline is None
    desk.start(1, 1.0)
    assert desk.endpoint.deadline is not None and desk.endpoint.deadline > 1.0
    other.endpoint.received(0, desk.last(), 1.1)
    desk.endpoint.received(1, other.last(), 1.2)
    assert desk.endpoint.deadline is None


def test_the_deadline_is_the_earlier_of_patience_and_a_parting():
    desk = Desk()
    desk.start(2, 0.0)
    patience = desk.endpoint.deadline
    desk.endpoint.received(1, OFFER[:-64], 1.0)
    assert desk.endpoint.deadline == 1.0 + PARTING_S
    desk.endpoint.tick(1.0 + PARTING_S)
    assert desk.endpoint.deadline == patience and desk.releases == 0
    assert patience is not None
    desk.endpoint.tick(patience)
    assert desk.endpoint.deadline is None and desk.releases == 1


def test_an_offer_that_is_refused_frees_the_node_and_is_noted():
    desk = Desk()
    desk.start(1, 0.0)
    exchange = messages.parse_message(desk.last()).exchange
    refusal = messages.control(
        Kind.REFUSE, run=RUN, sender=1, incarnation=0, exchange=exchange, text="busy"
    )
    desk.endpoint.received(1, refusal, 0.5)
    assert desk.releases == 1 and desk.notes == [("refused", 1, "busy")]
    assert desk.given == [id(refusal)]


def test_a_peer_that_leaves_is_dropped_at_once_and_its_exchange_is_not_lost():
    desk = Desk()
    desk.start(1, 0.0)
    goodbye = messages.control(Kind.BYE, run=RUN, sender=1, incarnation=0)
    desk.endpoint.received(1, goodbye, 0.5)
    assert desk.dropped == [1] and desk.notes == [("left", 1, "left the swarm")]
    assert desk.releases == 1 and desk.endpoint.machine.counts.lost == 0
    desk.endpoint.lost(1, "closed", 0.6)  # its link goes too, which is no news
    assert len(desk.notes) == 1 and desk.endpoint.lost_peers == {}


def test_who_is_distrusted_has_lost_that_peer_and_knows_why():
    desk = Desk()
    why = "its model is too far"
    goodbye = messages.control(Kind.BYE, run=RUN, sender=1, incarnation=0, text=why)
    desk.endpoint.received(1, goodbye, 0.5)
    assert desk.dropped == [1] and desk.notes == [("distrusts", 1, why)]
    assert desk.endpoint.lost_peers == {1: f"it distrusts this node: {why}"}


def test_a_link_that_breaks_frees_who_waited_for_it_and_costs_the_exchange():
    desk = Desk()
    desk.start(1, 0.0)
    desk.endpoint.lost(1, "connection reset", 0.5)
    assert desk.notes == [("lost", 1, "connection reset")]
    assert desk.endpoint.lost_peers == {1: "connection reset"}
    assert desk.releases == 1 and desk.endpoint.machine.counts.lost == 1


def test_all_open_peers_are_told_that_a_node_is_done_or_leaves():
    desk = Desk(matching=True)
    desk.endpoint.stop(0.0)
    desk.endpoint.lost(1, "closed", 0.0)
    desk.endpoint.say_goodbye()
    assert desk.kinds() == [(1, Kind.DONE), (2, Kind.DONE), (2, Kind.BYE)]


def test_where_nobody_waits_for_a_node_nobody_is_told_that_it_is_done():
    desk = Desk()
    desk.endpoint.stop(0.0)
    assert desk.sent == []


def test_an_offer_of_a_round_to_come_is_kept_and_answered_in_that_round():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.start(1, 0.0, round=3)
    offer = other.last()
    desk.endpoint.received(0, offer, 0.1)
    assert desk.sent == [] and desk.given == []
    desk.start(0, 0.2, round=3)
    assert desk.kinds() == [(0, Kind.REPLY)] and desk.given == [id(offer)]
    assert desk.releases == 1


def test_nobody_can_take_the_place_of_anothers_kept_offer():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.start(1, 0.0, round=3)
    desk.endpoint.received(0, other.last(), 0.1)
    forged = message(Kind.OFFER, ExchangeId(0, 0, 3), sender=2)
    desk.endpoint.received(2, forged, 0.2)
    assert desk.endpoint.machine.membership.open == (0,)
    desk.start(0, 0.3, round=3)
    assert (0, Kind.REPLY) in desk.kinds()


def test_an_offer_that_comes_twice_is_no_offer():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.start(1, 0.0, round=3)
    first, second = other.last(), other.last()
    desk.endpoint.received(0, first, 0.1)
    desk.endpoint.received(0, second, 0.2)
    assert desk.endpoint.traffic.distrusted == 1
    assert sorted(desk.given) == sorted([id(first), id(second)])


def test_a_kept_offer_that_proves_damaged_costs_its_sender_the_link_and_not_this_node():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.start(1, 0.0, round=3)
    offer = other.last()
    offer[150] ^= 1  # in the figures of the payload, which are not read before its round
    desk.endpoint.received(0, offer, 0.1)
    desk.start(0, 0.2, round=3)
    assert desk.releases == 1
    assert desk.endpoint.traffic.distrusted == 1
    assert desk.kinds() == [(0, Kind.BYE)] and desk.given == [id(offer)]


def test_refusals_of_what_was_never_offered_are_not_noted_and_long_ones_cut():
    desk = Desk()
    say = {"run": RUN, "sender": 1, "incarnation": 0}
    for counter in range(5):
        exchange = ExchangeId(0, 0, counter + 7)
        refusal = messages.control(Kind.REFUSE, exchange=exchange, text="no", **say)
        desk.endpoint.received(1, refusal, 0.0)
    assert desk.notes == []
    desk.start(1, 0.1)
    exchange = messages.parse_message(desk.last()).exchange
    refusal = messages.control(Kind.REFUSE, exchange=exchange, text="a\n" * 100_000, **say)
    desk.endpoint.received(1, refusal, 0.2)
    ((what, peer, text),) = desk.notes
    assert (what, peer) == ("refused", 1) and len(text) <= 1000 and "\n" not in text


# Several vectors.

WIDTHS = [(None, None), (8, 4), (4, 8, None), (3, 16)]


def vectors_of(desk: Desk) -> list[np.ndarray]:
    return [v.copy.astype(np.float64) for v in desk.numbers.vectors]


def meet(one: Desk, two: Desk, now: float) -> None:
    """One exchange, whole."""
    one.start(two.endpoint.machine.rank, now)
    two.endpoint.received(0, one.last(), now)
    one.endpoint.received(1, two.last(), now)


@pytest.mark.parametrize("bits", WIDTHS)
def test_an_exchange_mixes_all_vectors_and_conserves_the_sum_of_each(bits):
    one, two = Desk(0, bits=bits), Desk(1, bits=bits)
    before = [a + b for a, b in zip(vectors_of(one), vectors_of(two), strict=True)]
    apart = [a - b for a, b in zip(vectors_of(one), vectors_of(two), strict=True)]
    for now in range(4):
        meet(one, two, float(now))
    ends = zip(vectors_of(one), vectors_of(two), before, apart, strict=True)
    for index, (mine, theirs, was, distance) in enumerate(ends):
        assert np.abs(mine + theirs - was).max() < 1e-5
        assert np.linalg.norm(mine - theirs) < 0.7 * np.linalg.norm(distance)
        vectors = [desk.numbers.vectors[index] for desk in (one, two)]
        assert np.array_equal(vectors[0].pending, -vectors[1].pending)
    assert one.endpoint.traffic.distrusted == two.endpoint.traffic.distrusted == 0


def test_each_vector_has_its_own_bits_and_costs_its_own_bytes():
    alone, both = (
        (Desk(0, bits=(8,)), Desk(1, bits=(8,))),
        (
            Desk(0, bits=(8, 4)),
            Desk(1, bits=(8, 4)),
        ),
    )
    for one, two in (alone, both):
        for now in range(3):
            meet(one, two, float(now))
    more = len(both[0].last()) - len(alone[0].last())
    assert 0.5 * DIM <= more <= 0.5 * DIM + 256
    sections = messages.parse_message(both[0].last()).sections
    assert [(s.vector, s.bits) for s in sections] == [(0, 8), (1, 4)]


def test_an_offer_of_which_one_vector_is_damaged_mixes_none():
    one, two = Desk(0, bits=(8, 8)), Desk(1, bits=(8, 8))
    one.start(1, 0.0)
    offer = one.last()
    second = messages.parse_message(offer).sections[1].payload
    second[20] ^= 1  # in its figures, which have a check of their own
    before = vectors_of(two)
    two.endpoint.received(0, offer, 0.1)
    assert two.kinds() == [(0, Kind.BYE)]
    assert all(np.array_equal(a, b) for a, b in zip(before, vectors_of(two), strict=True))
    assert two.endpoint.machine.counts.answered == 0


def test_a_reply_of_which_one_vector_is_damaged_mixes_the_sound_one_as_the_partner_has():
    one, two = Desk(0, bits=(8, 8)), Desk(1, bits=(8, 8))
    before = [a + b for a, b in zip(vectors_of(one), vectors_of(two), strict=True)]
    one.start(1, 0.0)
    two.endpoint.received(0, one.last(), 0.1)
    reply = two.last()
    messages.parse_message(reply).sections[0].payload[20] ^= 1
    one.endpoint.received(1, reply, 0.2)
    sums = [a + b for a, b in zip(vectors_of(one), vectors_of(two), strict=True)]
    assert np.abs(sums[0] - before[0]).max() > 0.1  # lost, and counted
    assert np.abs(sums[1] - before[1]).max() < 1e-5
    assert one.endpoint.machine.counts.lost == 1 and one.releases == 1


def test_a_message_with_another_list_of_vectors_is_of_another_run():
    one, two = Desk(0, bits=(8, 8)), Desk(1, bits=(8,))
    one.start(1, 0.0)
    two.endpoint.received(0, one.last(), 0.1)
    assert "has sections [(0, 8), (1, 8)]" in two.endpoint.lost_peers[0]


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_what_stands_between_a_change_and_the_copy_keeps_the_sum_if_it_is_odd(bits):
    one, two = Desk(0, bits=(bits,)), Desk(1, bits=(bits,))

    def clip(change: np.ndarray) -> None:
        change *= min(1.0, 0.5 / float(np.linalg.norm(change)))

    for desk in (one, two):
        desk.numbers.vectors[0].alter = clip
    before = vectors_of(one)[0] + vectors_of(two)[0]
    starts = vectors_of(one)[0], vectors_of(two)[0]
    meet(one, two, 0.0)
    for desk, start in zip((one, two), starts, strict=True):
        moved = np.linalg.norm(vectors_of(desk)[0] - start)
        assert moved == pytest.approx(0.5, rel=1e-4)  # of about 50
    assert np.abs(vectors_of(one)[0] + vectors_of(two)[0] - before).max() < 1e-5
