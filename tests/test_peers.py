"""What the benchmark of the peers makes of the lines that nodes print."""

import pytest
from peers_figures import NODES, figures

CALM, KILLED, RETURNS, END = 100.0, 120.0, 140.0, 180.0


def lines(slot, *stretches, pid=0, members=None):
    """A step every 10 ms in each stretch."""
    return [
        {"slot": slot, "pid": slot + pid, "at": begin + 0.01 * i}
        | ({} if members is None else {"members": members})
        for begin, end in stretches
        for i in range(round(100 * (end - begin)))
    ]


def survivors(*stretches):
    return [line for slot in range(NODES - 1) for line in lines(slot, *stretches)]


def test_who_goes_on_is_back_at_once():
    found = figures(survivors((CALM, END)), CALM, KILLED, RETURNS, END)
    assert found["lives"] and found["full_s"] == 0
    assert found["longest_s"] == pytest.approx(0.01)
    assert found["trains_again_s"] is None


def test_a_stall_after_the_kill_is_told_from_one_at_the_return():
    said = survivors((CALM, 121), (126, 141), (143, END))
    found = figures(said, CALM, KILLED, RETURNS, END)
    assert found["longest_s"] == pytest.approx(5, abs=0.02)
    assert found["full_s"] == pytest.approx(6, abs=0.2)
    assert found["longest_return_s"] == pytest.approx(2, abs=0.02)


def test_a_stall_as_those_of_the_calm_is_no_dip():
    rounds = [(begin, begin + 8) for begin in range(100, 180, 10)]
    found = figures(survivors(*rounds), CALM, KILLED, RETURNS, END)
    assert found["full_s"] == 0 and found["longest_calm_s"] == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("last", [120.0, 160.0])
def test_a_job_that_stops_is_dead(last):
    found = figures(survivors((CALM, last)), CALM, KILLED, RETURNS, END)
    assert not found["lives"] and found["full_s"] is None


def test_the_dead_trains_again_and_is_counted_again():
    said = [
        line
        for slot in range(NODES - 1)
        for line in (
            *lines(slot, (CALM, 121), members=NODES),
            *lines(slot, (121, 146), members=NODES - 1),
            *lines(slot, (146, END), members=NODES),
        )
    ]
    said += [*lines(3, (CALM, KILLED)), *lines(3, (143, END), pid=100)]
    found = figures(said, CALM, KILLED, RETURNS, END)
    assert found["trains_again_s"] == pytest.approx(3)
    assert found["counted_s"] == pytest.approx(6, abs=0.02)
