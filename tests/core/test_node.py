"""The exchange machine of one node: events in, effects out."""

import pytest

from swarmsgd.core.events import (
    Announce,
    Answer,
    BurstEnded,
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
    Spoiled,
    Tick,
    Unsent,
)
from swarmsgd.core.matching import FINISHED, Matching
from swarmsgd.core.messages import ExchangeId
from swarmsgd.core.node import Node
from swarmsgd.errors import ProtocolError


class Picked:
    """A choice that is made before it is asked for."""

    def __init__(self, peer: int | None = None) -> None:
        self.peer = peer

    def __call__(self, candidates: tuple[int, ...]) -> int | None:
        return self.peer if self.peer in candidates else None


def node_of(rank: int, neighbours: list[int]) -> Node:
    return Node(rank, neighbours, Picked())


def offered(node: Node, peer: int, now: float = 0.0) -> ExchangeId:
    node._pick = Picked(peer)
    effects = node.handle(BurstEnded(), now)
    assert isinstance(effects[0], SendOffer) and effects[0].peer == peer
    return effects[0].exchange


def test_an_exchange_is_offered_mixed_and_released():
    node = node_of(0, [1, 2])
    exchange = offered(node, 1)
    assert node.deadline is not None and node.held == exchange
    assert node.handle(Replied(1, exchange), 0.1) == [Mix(1, exchange), Release()]
    assert node.deadline is None and node.held is None
    assert node.counts.completed == 1 and node.counts.lost == 0


def test_the_partner_answers_at_once_whatever_it_waits_for():
    node = node_of(0, [1, 2])
    offered(node, 1)
    exchange = ExchangeId(2, 0, 1)
    assert node.handle(Offered(2, exchange), 0.1) == [Answer(2, exchange)]
    assert node.deadline is not None


def test_only_one_exchange_is_initiated_at_a_time():
    node = node_of(0, [1, 2])
    offered(node, 1)
    with pytest.raises(ProtocolError, match="one exchange is initiated at a time"):
        node.handle(BurstEnded(), 0.1)


def test_an_overdue_exchange_frees_the_node_and_its_late_reply_is_still_mixed():
    node = node_of(0, [1, 2])
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
    node = node_of(0, [1, 2])
    first = offered(node, 1)
    assert node.deadline is not None
    node.handle(Tick(), node.deadline)
    second = offered(node, 2, 40.0)
    assert node.handle(Replied(1, first), 41.0) == [Discard(1, first)]
    assert node.counts.lost == 1
    assert node.handle(Replied(2, second), 42.0) == [Mix(2, second), Release()]


def test_a_lost_link_frees_the_node_and_ends_the_peer():
    node = node_of(0, [1, 2])
    offered(node, 1)
    assert node.handle(Gone(1), 0.1) == [Release()]
    assert node.membership.open == (2,) and node.counts.lost == 1
    assert node.handle(Gone(2), 0.2) == []
    assert node.membership.candidates(1.0) == ()


def test_a_peer_that_left_has_not_mixed_what_it_did_not_answer():
    node = node_of(0, [1, 2])
    offered(node, 1)
    assert node.handle(Gone(1, left=True), 0.1) == [Release()]
    assert (node.counts.refused, node.counts.lost) == (1, 0)


def test_a_refusal_frees_the_node_and_loses_nothing():
    node = node_of(0, [1])
    exchange = offered(node, 1)
    assert node.handle(Refused(1, exchange), 0.1) == [Release()]
    assert (node.counts.refused, node.counts.lost) == (1, 0)
    assert node.handle(Refused(1, exchange), 0.2) == []


def test_a_burst_that_finds_nobody_to_ask_is_skipped_and_frees_the_node():
    node = node_of(0, [1])
    node.handle(Gone(1), 0.0)
    assert node.handle(BurstEnded(), 0.1) == [Release()]
    assert (node.counts.skipped, node.counts.started) == (1, 0)


def test_a_node_that_has_stopped_asks_nobody_until_it_goes_on():
    node = node_of(0, [1])
    assert node.stop() == []  # nobody waits for it either
    node._pick = Picked(1)
    assert node.handle(BurstEnded(), 0.0) == [Release()]
    node.go_on()
    offered(node, 1)


def test_what_could_not_be_mixed_counts_neither_as_completed_nor_as_answered():
    node = node_of(0, [1])
    exchange = offered(node, 1)
    node.handle(Replied(1, exchange), 0.1)
    node.handle(Spoiled(exchange), 0.1)
    assert (node.counts.completed, node.counts.lost) == (0, 1)
    theirs = ExchangeId(1, 0, 1)
    node.handle(Offered(1, theirs), 0.2)
    node.handle(Spoiled(theirs), 0.2)
    assert node.counts.answered == 0


def test_a_lying_peer_is_caught():
    node = node_of(0, [1, 2])
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
    node = node_of(0, [1, 2])
    exchange = offered(node, 1)
    assert node.handle(Replied(2, exchange), 0.1) == [Discard(2, exchange)]
    assert node.held == exchange


def test_a_restarted_peer_may_count_from_the_beginning():
    node = node_of(0, [1])
    node.handle(Offered(1, ExchangeId(1, 0, 9)), 0.0)
    exchange = ExchangeId(1, 1, 1)
    assert node.handle(Offered(1, exchange), 0.1) == [Answer(1, exchange)]


def test_patience_follows_the_exchange_times_of_the_link():
    node = node_of(0, [1])
    for i in range(20):
        exchange = offered(node, 1, float(i))
        node.handle(Replied(1, exchange), i + 0.5)
    offered(node, 1, 100.0)
    assert node.deadline is not None
    assert 4.0 <= node.deadline - 100.0 <= 10.0


class Rounds(Matching):
    """A machine whose partners are said round by round."""

    def __init__(self, rank: int, neighbours: list[int]) -> None:
        self.partners: dict[int, int] = {}
        super().__init__(rank, neighbours, self.partners.get)

    def begin(self, peer: int, round: int, now: float) -> list:
        self.partners[round] = peer
        self.next_round = round
        return self.handle(BurstEnded(), now)

    @property
    def expects(self) -> int | None:
        return self._expected


class TestMatching:
    def test_the_lower_id_offers_and_the_higher_waits(self):
        low, high = Rounds(0, [1]), Rounds(1, [0])
        exchange = ExchangeId(0, 0, 0)
        assert low.begin(1, 0, 0.0) == [SendOffer(1, exchange)]
        assert high.begin(0, 0, 0.0) == []
        assert high.expects == 0
        assert high.handle(Offered(0, exchange), 0.1) == [Answer(0, exchange), Release()]
        assert low.handle(Replied(1, exchange), 0.2) == [Mix(1, exchange), Release()]

    def test_an_early_offer_waits_for_the_end_of_the_round(self):
        node = Rounds(1, [0])
        exchange = ExchangeId(0, 0, 0)
        assert node.handle(Offered(0, exchange), 0.0) == []
        assert node.begin(0, 0, 0.1) == [Answer(0, exchange), Release()]

    def test_an_offer_of_a_round_that_is_over_is_refused(self):
        node = Rounds(1, [0, 2])
        node.begin(2, 3, 0.0)
        exchange = ExchangeId(0, 0, 2)
        effects = node.handle(Offered(0, exchange), 0.1)
        assert effects == [Refuse(0, exchange, "round 2 is over here")]

    def test_a_round_with_a_dead_or_finished_partner_is_skipped(self):
        node = Rounds(2, [0, 1])
        node.handle(Gone(0), 0.0)
        assert node.begin(0, 0, 0.0) == [Release()]
        assert node.begin(1, 1, 0.1) == []
        assert node.handle(Done(1, 0), 0.2) == [Release()]
        assert node.begin(1, 2, 0.3) == [Release()]
        assert node.counts.skipped == 3

    def test_a_done_of_the_phase_before_says_nothing(self):
        node = Rounds(1, [0])
        node.handle(Done(0, 0), 0.0)
        node.go_on()
        assert node.begin(0, 0, 0.1) == []
        assert node.expects is not None

    def test_who_offers_to_a_finished_partner_does_not_wait_either(self):
        node = Rounds(0, [1])
        node.handle(Done(1, 0), 0.0)
        assert node.begin(1, 0, 0.1) == [Release()]
        assert (node.counts.skipped, node.counts.started) == (1, 0)

    def test_a_node_that_makes_no_more_rounds_refuses_offers_of_them(self):
        node = Rounds(2, [0, 1])
        early, late = ExchangeId(0, 0, 5), ExchangeId(1, 0, 6)
        assert node.handle(Offered(0, early), 0.0) == []
        assert node.stop() == [Refuse(0, early, FINISHED), Announce(0)]
        assert node.handle(Offered(1, late), 0.1) == [Refuse(1, late, FINISHED)]

    def test_an_offer_of_the_phase_to_come_waits_for_it(self):
        node = Rounds(1, [0])
        node.stop()
        node.handle(Done(0, 0), 0.0)
        exchange = ExchangeId(0, 0, 5)
        assert node.handle(Offered(0, exchange), 0.1) == []
        node.go_on()
        assert node.begin(0, 5, 0.2) == [Answer(0, exchange), Release()]

    def test_a_round_begins_when_the_one_before_is_over(self):
        node = Rounds(0, [1])
        node.begin(1, 4, 0.0)
        with pytest.raises(ProtocolError, match="one exchange is initiated at a time"):
            node.begin(1, 5, 0.1)
        assert node.next_round == 5

    def test_a_newer_early_offer_takes_the_place_of_the_older_which_is_refused(self):
        node = Rounds(1, [0])
        first, second = ExchangeId(0, 0, 4), ExchangeId(0, 0, 6)
        assert node.handle(Offered(0, first), 0.0) == []
        effects = node.handle(Offered(0, second), 0.1)
        assert effects == [Refuse(0, first, "round 4 is over here")]
        with pytest.raises(ProtocolError, match=r"offered .* after"):
            node.handle(Offered(0, ExchangeId(0, 0, 5)), 0.2)

    def test_a_round_that_the_partner_is_past_is_not_waited_for(self):
        node = Rounds(1, [0])
        node.handle(Offered(0, ExchangeId(0, 0, 4)), 0.0)
        assert node.begin(0, 2, 0.1) == [Release()]
        assert node.counts.skipped == 1
        assert node.begin(0, 4, 0.2) == [Answer(0, ExchangeId(0, 0, 4)), Release()]

    def test_nor_is_it_waited_for_any_longer_once_that_shows(self):
        node = Rounds(1, [0])
        assert node.begin(0, 2, 0.0) == []
        assert node.handle(Offered(0, ExchangeId(0, 0, 4)), 0.1) == [Release()]
        assert node.counts.skipped == 1 and node.deadline is None
        assert node.begin(0, 4, 0.2) == [Answer(0, ExchangeId(0, 0, 4)), Release()]

    def test_offers_of_rounds_that_are_skipped_are_refused(self):
        node = Rounds(2, [0, 1])
        early = ExchangeId(0, 0, 3)
        assert node.handle(Offered(0, early), 0.0) == []
        assert node.begin(1, 5, 0.1) == [Refuse(0, early, "round 3 is over here")]
        assert node.expects is not None


def test_what_is_still_held_at_the_end_is_lost():
    node = node_of(0, [1, 2])
    offered(node, 1)
    assert node.deadline is not None
    node.handle(Tick(), node.deadline)
    assert node.counts.overdue == 1 and node.counts.lost == 0
    node.give_up()
    node.give_up()
    assert node.counts.lost == 1 and node.held is None


def test_an_offer_that_cannot_leave_is_no_sign_of_life():
    node = node_of(0, [1, 2])
    exchange = offered(node, 1)
    assert node.handle(Unsent(1, exchange), 0.0) == [Release()]
    assert node.counts.refused == 1 and node.held is None
    assert node.membership.candidates(0.0) == (2,)
