"""The exchange machine of one node: events in, effects out."""

import pytest

from swarmsgd.core.events import (
    Answer,
    Discard,
    Done,
    Gone,
    Mix,
    Offered,
    Refuse,
    Refused,
    Release,
    Replied,
    SendOffer,
    Start,
    Tick,
    Unsent,
)
from swarmsgd.core.messages import ExchangeId
from swarmsgd.core.node import FINISHED, Node, State
from swarmsgd.errors import ProtocolError


def offered(node: Node, peer: int, now: float = 0.0) -> ExchangeId:
    effects = node.handle(Start(peer), now)
    assert isinstance(effects[0], SendOffer) and effects[0].peer == peer
    return effects[0].exchange


def test_an_exchange_is_offered_mixed_and_released():
    node = Node(0, [1, 2])
    exchange = offered(node, 1)
    assert node.state is State.OFFERED and node.held == exchange
    assert node.handle(Replied(1, exchange), 0.1) == [Mix(1, exchange), Release()]
    assert node.state is State.IDLE and node.held is None
    assert node.counts.completed == 1 and node.counts.lost == 0


def test_the_partner_answers_at_once_whatever_it_waits_for():
    node = Node(0, [1, 2])
    offered(node, 1)
    exchange = ExchangeId(2, 0, 1)
    assert node.handle(Offered(2, exchange), 0.1) == [Answer(2, exchange)]
    assert node.state is State.OFFERED


def test_only_one_exchange_is_initiated_at_a_time():
    node = Node(0, [1, 2])
    offered(node, 1)
    with pytest.raises(ProtocolError, match="one exchange is initiated at a time"):
        node.handle(Start(2), 0.1)


def test_an_overdue_exchange_frees_the_node_and_its_late_reply_is_still_mixed():
    node = Node(0, [1, 2])
    exchange = offered(node, 1)
    assert node.deadline is not None
    assert node.handle(Tick(), node.deadline - 0.01) == []
    now = node.deadline
    assert node.handle(Tick(), now) == [Release()]
    assert node.membership.candidates(now) == (2,)
    assert node.handle(Replied(1, exchange), now + 1) == [Mix(1, exchange)]
    assert (node.counts.late, node.counts.completed, node.counts.lost) == (1, 1, 0)
    assert node.membership.candidates(now + 1) == (1, 2)


def test_a_late_reply_to_what_is_no_longer_held_is_discarded_and_counted_as_lost():
    node = Node(0, [1, 2])
    first = offered(node, 1)
    assert node.deadline is not None
    node.handle(Tick(), node.deadline)
    second = offered(node, 2, 40.0)
    assert node.handle(Replied(1, first), 41.0) == [Discard(1, first)]
    assert node.counts.lost == 1
    assert node.handle(Replied(2, second), 42.0) == [Mix(2, second), Release()]


def test_a_lost_link_frees_the_node_and_ends_the_peer():
    node = Node(0, [1, 2])
    offered(node, 1)
    assert node.handle(Gone(1), 0.1) == [Release()]
    assert node.membership.open == (2,) and node.counts.lost == 1
    assert node.handle(Gone(2), 0.2) == []
    assert node.membership.candidates(1.0) == ()


def test_a_peer_that_left_has_not_mixed_what_it_did_not_answer():
    node = Node(0, [1, 2])
    offered(node, 1)
    assert node.handle(Gone(1, left=True), 0.1) == [Release()]
    assert (node.counts.refused, node.counts.lost) == (1, 0)


def test_a_refusal_frees_the_node_and_loses_nothing():
    node = Node(0, [1])
    exchange = offered(node, 1)
    assert node.handle(Refused(1, exchange), 0.1) == [Release()]
    assert (node.counts.refused, node.counts.lost) == (1, 0)
    assert node.handle(Refused(1, exchange), 0.2) == []


def test_a_lying_peer_is_caught():
    node = Node(0, [1, 2])
    with pytest.raises(ProtocolError):
        node.handle(Offered(1, ExchangeId(2, 0, 1)), 0.0)  # another node's exchange
    node.handle(Offered(1, ExchangeId(1, 0, 5)), 0.0)
    with pytest.raises(ProtocolError):
        node.handle(Offered(1, ExchangeId(1, 0, 5)), 0.0)  # the same offer twice
    with pytest.raises(ProtocolError):
        node.handle(Replied(1, ExchangeId(0, 0, 1)), 0.0)  # never offered
    with pytest.raises(ProtocolError):
        node.handle(Replied(1, ExchangeId(1, 0, 1)), 0.0)  # not even ours


def test_a_reply_of_the_wrong_peer_is_not_mixed():
    node = Node(0, [1, 2])
    exchange = offered(node, 1)
    assert node.handle(Replied(2, exchange), 0.1) == [Discard(2, exchange)]
    assert node.held == exchange


def test_a_restarted_peer_may_count_from_the_beginning():
    node = Node(0, [1])
    node.handle(Offered(1, ExchangeId(1, 0, 9)), 0.0)
    exchange = ExchangeId(1, 1, 1)
    assert node.handle(Offered(1, exchange), 0.1) == [Answer(1, exchange)]


def test_patience_follows_the_exchange_times_of_the_link():
    node = Node(0, [1])
    for i in range(20):
        exchange = offered(node, 1, float(i))
        node.handle(Replied(1, exchange), i + 0.5)
    offered(node, 1, 100.0)
    assert node.deadline is not None
    assert 4.0 <= node.deadline - 100.0 <= 10.0


class TestMatching:
    def test_the_lower_id_offers_and_the_higher_waits(self):
        low, high = Node(0, [1], matching=True), Node(1, [0], matching=True)
        exchange = ExchangeId(0, 0, 0)
        assert low.handle(Start(1, 0), 0.0) == [SendOffer(1, exchange)]
        assert high.handle(Start(0, 0), 0.0) == []
        assert high.state is State.EXPECTING
        assert high.handle(Offered(0, exchange), 0.1) == [Answer(0, exchange), Release()]
        assert low.handle(Replied(1, exchange), 0.2) == [Mix(1, exchange), Release()]

    def test_an_early_offer_waits_for_the_end_of_the_round(self):
        node = Node(1, [0], matching=True)
        exchange = ExchangeId(0, 0, 0)
        assert node.handle(Offered(0, exchange), 0.0) == []
        assert node.handle(Start(0, 0), 0.1) == [Answer(0, exchange), Release()]

    def test_an_offer_of_a_round_that_is_over_is_refused(self):
        node = Node(1, [0, 2], matching=True)
        node.handle(Start(2, 3), 0.0)
        exchange = ExchangeId(0, 0, 2)
        effects = node.handle(Offered(0, exchange), 0.1)
        assert effects == [Refuse(0, exchange, "round 2 is over here")]

    def test_a_round_with_a_dead_or_finished_partner_is_skipped(self):
        node = Node(2, [0, 1], matching=True)
        node.handle(Gone(0), 0.0)
        assert node.handle(Start(0, 0), 0.0) == [Release()]
        assert node.handle(Start(1, 1), 0.1) == []
        assert node.handle(Done(1, 0), 0.2) == [Release()]
        assert node.handle(Start(1, 2), 0.3) == [Release()]
        assert node.counts.skipped == 3

    def test_a_done_of_the_phase_before_says_nothing(self):
        node = Node(1, [0], matching=True)
        node.handle(Done(0, 0), 0.0)
        node.next_phase()
        assert node.handle(Start(0, 0), 0.1) == []
        assert node.state is State.EXPECTING

    def test_who_offers_to_a_finished_partner_does_not_wait_either(self):
        node = Node(0, [1], matching=True)
        node.handle(Done(1, 0), 0.0)
        assert node.handle(Start(1, 0), 0.1) == [Release()]
        assert (node.counts.skipped, node.counts.started) == (1, 0)

    def test_a_node_that_makes_no_more_rounds_refuses_offers_of_them(self):
        node = Node(2, [0, 1], matching=True)
        early, late = ExchangeId(0, 0, 5), ExchangeId(1, 0, 6)
        assert node.handle(Offered(0, early), 0.0) == []
        assert node.finish() == [Refuse(0, early, FINISHED)]
        assert node.handle(Offered(1, late), 0.1) == [Refuse(1, late, FINISHED)]

    def test_an_offer_of_the_phase_to_come_waits_for_it(self):
        node = Node(1, [0], matching=True)
        node.finish()
        node.handle(Done(0, 0), 0.0)
        exchange = ExchangeId(0, 0, 5)
        assert node.handle(Offered(0, exchange), 0.1) == []
        node.next_phase()
        assert node.handle(Start(0, 5), 0.2) == [Answer(0, exchange), Release()]

    def test_rounds_only_grow(self):
        node = Node(0, [1], matching=True)
        node.handle(Start(1, 4), 0.0)
        node.handle(Replied(1, ExchangeId(0, 0, 4)), 0.1)
        with pytest.raises(ProtocolError, match="rounds only grow"):
            node.handle(Start(1, 4), 0.2)

    def test_a_newer_early_offer_takes_the_place_of_the_older_which_is_refused(self):
        node = Node(1, [0], matching=True)
        first, second = ExchangeId(0, 0, 4), ExchangeId(0, 0, 6)
        assert node.handle(Offered(0, first), 0.0) == []
        effects = node.handle(Offered(0, second), 0.1)
        assert effects == [Refuse(0, first, "round 4 is over here")]
        with pytest.raises(ProtocolError, match=r"offered .* after"):
            node.handle(Offered(0, ExchangeId(0, 0, 5)), 0.2)

    def test_a_round_that_the_partner_is_past_is_not_waited_for(self):
        node = Node(1, [0], matching=True)
        node.handle(Offered(0, ExchangeId(0, 0, 4)), 0.0)
        assert node.handle(Start(0, 2), 0.1) == [Release()]
        assert node.counts.skipped == 1
        assert node.handle(Start(0, 4), 0.2) == [Answer(0, ExchangeId(0, 0, 4)), Release()]

    def test_nor_is_it_waited_for_any_longer_once_that_shows(self):
        node = Node(1, [0], matching=True)
        assert node.handle(Start(0, 2), 0.0) == []
        assert node.handle(Offered(0, ExchangeId(0, 0, 4)), 0.1) == [Release()]
        assert node.counts.skipped == 1 and node.deadline is None
        assert node.handle(Start(0, 4), 0.2) == [Answer(0, ExchangeId(0, 0, 4)), Release()]

    def test_offers_of_rounds_that_are_skipped_are_refused(self):
        node = Node(2, [0, 1], matching=True)
        early = ExchangeId(0, 0, 3)
        assert node.handle(Offered(0, early), 0.0) == []
        assert node.handle(Start(1, 5), 0.1) == [Refuse(0, early, "round 3 is over here")]
        assert node.state is State.EXPECTING


def test_what_is_still_held_at_the_end_is_lost():
    node = Node(0, [1, 2])
    offered(node, 1)
    assert node.deadline is not None
    node.handle(Tick(), node.deadline)
    assert node.counts.overdue == 1 and node.counts.lost == 0
    node.give_up()
    node.give_up()
    assert node.counts.lost == 1 and node.held is None


def test_an_offer_that_cannot_leave_is_no_sign_of_life():
    node = Node(0, [1, 2])
    exchange = offered(node, 1)
    assert node.handle(Unsent(1, exchange), 0.0) == [Release()]
    assert node.counts.refused == 1 and node.held is None
    assert node.membership.candidates(0.0) == (2,)
