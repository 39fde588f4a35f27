"""The swarm's total as each node knows it: conserved, never falling, right on average."""

import random

from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.core.progress import Progress, Total


def exchange(a: Progress, b: Progress) -> None:
    a.mixed(b.answered(a.offered()))


def now(nodes: list[Progress]) -> list[int]:
    return [node.now().steps for node in nodes]


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_an_exchange_keeps_the_sum_of_the_estimates_to_the_last_step(
    totals: list[int], rng: random.Random
) -> None:
    nodes = [Progress(len(totals), Total(total, 0)) for total in totals]
    for _ in range(20):
        exchange(*rng.sample(nodes, 2))
    assert sum(now(nodes)) == sum(totals)


def test_overlapping_exchanges_keep_it_too():
    a, b, c = (Progress(3, Total(total, 0)) for total in (100, 7, 31))
    to_b, to_a = a.offered(), c.offered()
    from_a, from_b = a.answered(to_a), b.answered(to_b)
    c.mixed(from_a)
    a.mixed(from_b)
    assert sum(now([a, b, c])) == 138


def test_the_mean_estimate_is_what_all_made_however_unevenly_they_work():
    rng, nodes = random.Random(0), [Progress(4) for _ in range(4)]
    made = 0
    for _ in range(4000):
        node = nodes[min(rng.choices(range(4), [8, 4, 2, 1])[0], 3)]
        node.made(1, 16)
        made += 1
        if rng.random() < 0.25:
            exchange(*rng.sample(nodes, 2))
    for node in nodes:
        total = node.total()
        assert abs(total.steps - made) < 0.02 * made
        assert abs(total.samples - 16 * made) < 0.02 * 16 * made


def test_what_is_shown_never_falls():
    ahead, behind = Progress(2, Total(1000, 0)), Progress(2)
    assert ahead.total().steps == 1000
    exchange(ahead, behind)
    assert ahead.now().steps == 500 and ahead.total().steps == 1000
    ahead.made(300, 0)
    assert ahead.total().steps == 1100


def test_who_arrives_begins_where_its_neighbour_is_and_counts_its_own_from_there():
    newcomer = Progress(1)
    newcomer.take_over(Total(5000, 80))
    newcomer.live(4)
    newcomer.made(1, 2)
    assert newcomer.total() == Total(5004, 88) and newcomer.own == Total(1, 2)


def test_what_is_told_is_never_below_zero_and_both_ends_reckon_with_it():
    fast = Progress(4)
    fast.made(100, 0)
    assert fast.offered() == Total(400, 0)
    fast.answered(Total(4, 0))
    fast.answered(Total(4, 0))  # two slow ones, while the offer was on its way
    slow = Progress(4)
    slow.answered(Total(400, 0))
    fast.mixed(Total(0, 0))
    assert fast.now() == Total(0, 0)
    before = fast._state.total.steps + slow._state.total.steps
    slow.mixed(fast.answered(slow.offered()))
    assert fast._state.total.steps + slow._state.total.steps == before
