"""Numbers at axes, and labels that do not lie on each other."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.observe.axes import UNITS, Axis, drawable, spread_out, tick

PLACES = st.lists(st.floats(-2, 3), min_size=1, max_size=10)


@given(PLACES)
def test_labels_are_spread_to_a_gap_within_the_axis_and_keep_their_order(places: list[float]):
    moved = spread_out(places, 0.1, 0.0, 1.0)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)
    ordered = sorted(moved)
    assert all(b - a > 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))
    for (a, new_a), (b, new_b) in itertools.combinations(zip(places, moved, strict=True), 2):
        assert a == b or (a < b) == (new_a < new_b)


def test_labels_that_lie_well_are_left_where_they_are():
    assert spread_out([0.5, 0.1, 0.9], 0.1, 0.0, 1.0) == [0.5, 0.1, 0.9]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.02, "plain", "0.02"),
        (1e-5, "plain", "10<sup>-5</sup>"),
        (2e7, "plain", "2·10<sup>7</sup>"),
        (5000, "plain", "5,000"),
        (5e5, "bytes", "500 kB"),
        (1e9, "bytes", "1 GB"),
        (0.5, "percent", "50 %"),
        (20, "seconds", "20"),
    ],
)
def test_ticks_are_written_as_a_person_would(value: float, unit: str, text: str):
    assert tick(value, unit) == text


@pytest.mark.parametrize("unit", UNITS)
@given(low=st.floats(-6, 6), decades=st.floats(0.6, 9))
def test_a_logarithmic_axis_has_four_to_eight_ticks_inside_it(
    unit: str, low: float, decades: float
):
    words = Axis(title="x", log=True, unit=unit).layout((low, low + decades))
    ticks = words["tickvals"]
    assert 4 <= len(ticks) <= 8 and len(words["ticktext"]) == len(ticks)
    assert all(low <= math.log10(value) <= low + decades for value in ticks)


def test_the_data_fill_the_axis_and_what_cannot_be_drawn_is_left_out():
    assert Axis(title="y", log=True).span([None, 0.0, 10.0, 1000.0, math.nan]) == (1.0, 3.0)
    assert Axis(title="y").span([2.0, 4.0], pad=0.5) == (1.0, 5.0)
    assert Axis(title="y").span([0.0, 4.0], pad=0.5)[0] == 0.0
    assert Axis(title="y", limits=(1, 2)).span([7.0]) == (1, 2)
    assert drawable(-1.0, log=False) and not drawable(-1.0, log=True)
    assert not drawable(None, log=False) and not drawable(math.inf, log=False)


def test_an_axis_without_data_or_with_one_value_still_has_a_length():
    for values in ([], [3.0], [0.0]):
        low, high = Axis(title="y").span(values, pad=0.05)
        assert high > low
