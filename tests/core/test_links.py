"""When to dial whom: at once or a little later, again with growing pauses, never for nothing."""

import math

from swarmsgd.core.links import FIRST_PAUSE_S, KEEP_S, LONGEST_PAUSE_S, SECOND_S, WantedLinks


def test_of_two_nodes_the_lower_dials_at_once_and_the_higher_leaves_it_time():
    low, high = WantedLinks(1), WantedLinks(2)
    low.want([2], 0.0)
    high.want([1], 0.0)
    assert low.due(0.0) == [2] and high.due(0.0) == []
    assert high.deadline == SECOND_S and high.due(SECOND_S) == [1]


def test_a_node_that_nobody_can_dial_does_so_at_once():
    links = WantedLinks(2, listens=False)
    links.want([1], 0.0)
    assert links.due(0.0) == [1]
    links.lost(1, 0.0)
    assert links.deadline == FIRST_PAUSE_S


def test_what_cannot_be_reached_is_tried_again_for_ever_with_pauses_that_grow():
    links, now, pauses = WantedLinks(0), 0.0, list[float]()
    links.want([1], now)
    for _ in range(12):
        assert links.due(now) == [1] and links.due(now) == []
        links.lost(1, now)
        pauses.append(links.deadline - now)
        now = links.deadline
    assert pauses[:4] == [FIRST_PAUSE_S * 2**i for i in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_S
    links.fresh(1, now)  # it is heard of again
    assert links.due(now) == [1]


def test_an_open_link_is_not_dialled_and_one_that_is_lost_is():
    links = WantedLinks(0)
    links.opened(1, 0.0)
    links.want([1], 0.0)
    assert links.due(99.0) == [] and links.deadline == math.inf
    links.lost(1, 5.0)
    assert links.due(5.0 + FIRST_PAUSE_S) == [1]


def test_a_link_nobody_wants_is_closed_after_a_while_unless_it_is_wanted_again():
    links = WantedLinks(0)
    links.want([1, 2], 0.0)
    links.opened(1, 0.0)
    links.opened(2, 0.0)
    links.want([], 1.0)
    assert links.surplus(1.0 + KEEP_S / 2) == []
    links.want([2], 2.0)
    assert links.surplus(1.0 + KEEP_S) == [1]
    links.keep(1, 20.0)
    assert links.surplus(20.0) == [] and links.surplus(20.0 + KEEP_S) == [1]


def test_who_is_wanted_no_more_is_not_dialled():
    links = WantedLinks(0)
    links.want([1], 0.0)
    links.want([], 0.0)
    assert links.due(1e9) == []
