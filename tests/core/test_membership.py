"""Who can be asked, and how long to wait: learned, never guessed by a user."""

from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.core.membership import FIRST_PATIENCE_S, LEAST_PATIENCE_S, Membership


def test_a_silent_peer_is_left_alone_for_a_time_that_doubles():
    members = Membership([1, 2])
    rests: list[float] = []
    for _ in range(4):
        members.overdue(1, 0.0)
        rest = next(t / 10 for t in range(1, 1000) if 1 in members.candidates(t / 10))
        rests.append(rest)
    assert rests == [2.0, 4.0, 8.0, 16.0]


def test_a_peer_that_is_heard_from_can_be_asked_again_at_once():
    members = Membership([1, 2])
    members.overdue(1, 0.0)
    assert members.candidates(0.1) == (2,)
    members.heard(1)
    assert members.candidates(0.1) == (1, 2)


def test_a_gone_peer_never_comes_back_by_itself():
    members = Membership([1, 2])
    members.lost(1)
    members.heard(1)
    assert members.candidates(1e9) == (2,) and members.gone == {1}


def test_patience_before_anything_was_seen_is_long_and_then_learned_from_other_links():
    members = Membership([1, 2])
    assert members.patience_s(1) == FIRST_PATIENCE_S
    for _ in range(50):
        members.answered(2, 0.5)
    assert 3.0 < members.patience_s(1) < 8.0


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=60))
def test_patience_is_a_multiple_of_what_was_seen_and_never_below_the_least(times: list[float]):
    members = Membership([1])
    for seconds in times:
        members.answered(1, seconds)
    assert members.patience_s(1) >= LEAST_PATIENCE_S
    assert members.patience_s(1) >= min(times)


def test_patience_doubles_with_each_silence_and_an_answer_ends_that():
    members = Membership([1])
    for _ in range(50):
        members.answered(1, 1.0)
    before = members.patience_s(1)
    members.overdue(1, 0.0)
    assert members.patience_s(1) == 2 * before
    members.answered(1, 1.0)
    assert abs(members.patience_s(1) - before) < 0.1 * before
