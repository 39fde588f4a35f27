"""One endpoint alone, its ports written down: what it sends, gives back, notes and drops."""

from typing import Any

import numpy as np
import pytest

from swarmsgd.codec import make_code
from swarmsgd.core import messages
from swarmsgd.core.code import Allocate, Bytes, Mixed
from swarmsgd.core.endpoint import PARTING_S, Endpoint
from swarmsgd.core.messages import Draft, ExchangeId, Kind
from swarmsgd.core.node import Node
from swarmsgd.core.traffic import Exchange

RUN = 0x1234
DIM = 5000


class Numbers:
    """Copy and pending of a node, by the code the package ships."""

    def __init__(self, seed: int, bits: int | None) -> None:
        self.copy = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
        self.pending = np.zeros_like(self.copy)
        self.code = make_code(DIM, bits)

    def offer(self, seed: int, allocate: Allocate) -> Bytes:
        self.offered = self.copy.copy()
        return self.code.offer(self.copy, seed, allocate)

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> tuple[Bytes, Mixed]:
        return self.code.answer(offer, self.copy, self.pending, seed, allocate)

    def mix(self, reply: Bytes) -> Mixed:
        return self.code.mix(reply, self.offered, self.copy, self.pending)


class Desk:
    """An endpoint and everything it asked of its ports."""

    def __init__(self, rank: int = 0, *, bits: int | None = None, **node: Any) -> None:
        self.sent: list[tuple[int, Bytes]] = []
        self.given: list[int] = []
        self.notes: list[tuple[str, int, str]] = []
        self.dropped: list[int] = []
        self.releases = 0
        self.exchanges: list[tuple[Exchange, Mixed]] = []
        self.deaf = False
        self.numbers = Numbers(rank, bits)
        peers = [peer for peer in range(3) if peer != rank]
        self.endpoint = Endpoint(Node(rank, peers, **node), self.numbers, self, run=RUN, bits=bits)

    def kinds(self) -> list[tuple[int, Kind]]:
        return [(peer, messages.parse(message).kind) for peer, message in self.sent]

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
    settings = {"run": RUN, "sender": 1, "incarnation": 0} | of
    return draft.finish(kind, exchange=exchange, **settings)


@pytest.mark.parametrize("bits", [None, 8])
def test_an_exchange_leaves_both_ends_with_opposite_changes_and_every_byte_counted(
    bits: int | None,
):
    one, two = Desk(0, bits=bits), Desk(1, bits=bits)
    two.numbers.copy[:] = one.numbers.copy + 0.01 * two.numbers.copy
    before = one.numbers.copy.astype(np.float64) + two.numbers.copy
    apart = float(np.linalg.norm(one.numbers.copy - two.numbers.copy))
    one.endpoint.start(1, 5.0)
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
    told = messages.text_of(messages.parse(desk.last()))
    assert why in told
    assert [note[:2] for note in desk.notes] == [("distrusted", 1)]
    assert why in desk.endpoint.lost_peers[1]
    assert desk.endpoint.traffic.distrusted == 1
    assert desk.endpoint.node.membership.open == (2,)
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
    one.endpoint.start(1, 0.0)
    before = two.numbers.copy.copy()
    two.endpoint.say_goodbye()
    said = list(two.sent)
    two.endpoint.received(0, one.last(), 0.1)
    assert two.given == [id(one.last())] and two.sent == said
    assert np.array_equal(two.numbers.copy, before) and not two.exchanges


def test_all_other_links_go_on_when_one_peer_is_dropped():
    desk, other = Desk(0), Desk(2)
    desk.endpoint.start(2, 0.0)
    desk.endpoint.received(1, OFFER[:-64], 0.1)
    other.endpoint.received(0, desk.sent[0][1].copy(), 0.2)
    desk.endpoint.received(2, other.last(), 0.3)
    assert desk.releases == 1 and len(desk.exchanges) == 1


def test_a_reply_that_cannot_be_mixed_releases_the_node_that_waited_for_it():
    desk, other = Desk(0), Desk(1)
    desk.endpoint.start(1, 0.0)
    other.endpoint.received(0, desk.last(), 0.1)
    reply = other.last()
    reply[-200:] ^= 0xFF
    desk.endpoint.received(1, reply, 0.2)
    assert desk.releases == 1
    assert desk.endpoint.traffic.distrusted == 1
    assert desk.endpoint.node.counts.lost == 1 and desk.endpoint.node.counts.completed == 0
    desk.endpoint.start(2, 0.3)
    assert desk.kinds()[-1] == (2, Kind.OFFER)


def test_an_offer_that_cannot_leave_ends_at_once_and_is_not_lost():
    desk = Desk()
    desk.deaf = True
    desk.endpoint.start(1, 0.0)
    assert desk.releases == 1
    assert desk.endpoint.deadline is None
    assert desk.endpoint.node.counts.refused == 1 and desk.endpoint.node.counts.lost == 0
    assert desk.endpoint.traffic.bytes_sent == 0


def test_who_could_not_send_a_reply_does_not_say_that_nothing_was_mixed():
    one, two = Desk(0), Desk(1)
    one.endpoint.start(1, 0.0)
    two.deaf = True
    two.endpoint.received(0, one.last(), 1.0)
    assert len(two.exchanges) == 1 and two.sent == []
    two.deaf = False
    two.endpoint.say_goodbye()
    assert two.dropped == [0] and two.kinds() == [(2, Kind.BYE)]
    one.endpoint.lost(1, "closed", 2.0)
    assert (one.endpoint.node.counts.lost, one.endpoint.node.counts.refused) == (1, 0)


def test_a_reply_that_could_not_leave_is_forgotten_once_a_later_one_did():
    one, two = Desk(0), Desk(1)
    for two.deaf in True, False:
        one.endpoint.start(1, 0.0)
        two.endpoint.received(0, one.last(), 1.0)
        one.endpoint.node.deadline = 2.0
        one.endpoint.tick(3.0)
    two.endpoint.say_goodbye()
    assert two.dropped == [] and (0, Kind.BYE) in two.kinds()


def test_the_deadline_is_that_of_patience_until_the_reply_comes():
    desk, other = Desk(0), Desk(1)
    assert desk.endpoint.deadline is None
    desk.endpoint.start(1, 1.0)
    assert desk.endpoint.deadline is not None and desk.endpoint.deadline > 1.0
    other.endpoint.received(0, desk.last(), 1.1)
    desk.endpoint.received(1, other.last(), 1.2)
    assert desk.endpoint.deadline is None


def test_the_deadline_is_the_earlier_of_patience_and_a_parting():
    desk = Desk()
    desk.endpoint.start(2, 0.0)
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
    desk.endpoint.start(1, 0.0)
    exchange = messages.parse(desk.last()).exchange
    refusal = messages.control(
        Kind.REFUSE, run=RUN, sender=1, incarnation=0, exchange=exchange, text="busy"
    )
    desk.endpoint.received(1, refusal, 0.5)
    assert desk.releases == 1 and desk.notes == [("refused", 1, "busy")]
    assert desk.given == [id(refusal)]


def test_a_peer_that_leaves_is_dropped_at_once_and_its_exchange_is_not_lost():
    desk = Desk()
    desk.endpoint.start(1, 0.0)
    goodbye = messages.control(Kind.BYE, run=RUN, sender=1, incarnation=0)
    desk.endpoint.received(1, goodbye, 0.5)
    assert desk.dropped == [1] and desk.notes == [("left", 1, "left the swarm")]
    assert desk.releases == 1 and desk.endpoint.node.counts.lost == 0
    desk.endpoint.lost(1, "closed", 0.6)  # its link goes too, which is no news
    assert len(desk.notes) == 1


def test_a_link_that_breaks_frees_who_waited_for_it_and_costs_the_exchange():
    desk = Desk()
    desk.endpoint.start(1, 0.0)
    desk.endpoint.lost(1, "connection reset", 0.5)
    assert desk.notes == [("lost", 1, "connection reset")]
    assert desk.endpoint.lost_peers == {1: "connection reset"}
    assert desk.releases == 1 and desk.endpoint.node.counts.lost == 1


def test_all_open_peers_are_told_that_a_node_is_done_or_leaves():
    desk = Desk()
    desk.endpoint.announce_done(0.0)
    desk.endpoint.lost(1, "closed", 0.0)
    desk.endpoint.say_goodbye()
    assert desk.kinds() == [(1, Kind.DONE), (2, Kind.DONE), (2, Kind.BYE)]


def test_an_offer_of_a_round_to_come_is_kept_and_answered_in_that_round():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.endpoint.start(1, 0.0, round=3)
    offer = other.last()
    desk.endpoint.received(0, offer, 0.1)
    assert desk.sent == [] and desk.given == []
    desk.endpoint.start(0, 0.2, round=3)
    assert desk.kinds() == [(0, Kind.REPLY)] and desk.given == [id(offer)]
    assert desk.releases == 1


def test_nobody_can_take_the_place_of_anothers_kept_offer():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.endpoint.start(1, 0.0, round=3)
    desk.endpoint.received(0, other.last(), 0.1)
    forged = message(Kind.OFFER, ExchangeId(0, 0, 3), sender=2)
    desk.endpoint.received(2, forged, 0.2)
    assert desk.endpoint.node.membership.open == (0,)
    desk.endpoint.start(0, 0.3, round=3)
    assert (0, Kind.REPLY) in desk.kinds()


def test_an_offer_that_comes_twice_is_no_offer():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.endpoint.start(1, 0.0, round=3)
    first, second = other.last(), other.last()
    desk.endpoint.received(0, first, 0.1)
    desk.endpoint.received(0, second, 0.2)
    assert desk.endpoint.traffic.distrusted == 1
    assert sorted(desk.given) == sorted([id(first), id(second)])


def test_a_kept_offer_that_proves_damaged_costs_its_sender_the_link_and_not_this_node():
    desk, other = Desk(1, matching=True), Desk(0, matching=True)
    other.endpoint.start(1, 0.0, round=3)
    offer = other.last()
    offer[150] ^= 1  # in the figures of the payload, which are not read before its round
    desk.endpoint.received(0, offer, 0.1)
    desk.endpoint.start(0, 0.2, round=3)
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
    desk.endpoint.start(1, 0.1)
    exchange = messages.parse(desk.last()).exchange
    refusal = messages.control(Kind.REFUSE, exchange=exchange, text="a\n" * 100_000, **say)
    desk.endpoint.received(1, refusal, 0.2)
    ((what, peer, text),) = desk.notes
    assert (what, peer) == ("refused", 1) and len(text) <= 1000 and "\n" not in text
