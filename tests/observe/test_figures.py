"""Single plots show what they were given, and say so when they cannot."""

import math

import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis
from swarmsgd.observe.bars import Bar, bars
from swarmsgd.observe.lines import Series, line_plot

X, Y = Axis(title="virtual time (s)"), Axis(title="loss")


def test_lines_without_a_point_say_so():
    series = [Series(label="a", x=[0.0], y=[None]), Series(label="b", x=[1.0], y=[-1.0])]
    with pytest.raises(ConfigError, match="nothing to draw in 'T': no series of 2 has a point"):
        line_plot(series, title="T", x=X, y=Axis(title="y", log=True))


def test_a_reference_is_dashed_named_and_takes_no_algorithm_colour():
    theory = Series(label="theory", x=[0, 1], y=[1, 2], reference=True)
    figure = line_plot([theory, Series(label="swarm", x=[0, 1], y=[1, 3])], title="T", x=X, y=Y)
    drawn = {t.legendgroup: t for t in figure.data if t.mode != "lines+text"}
    assert drawn["theory"].line.dash == "dash" and drawn["swarm"].line.dash == "solid"
    texts = [t.text[1] for t in figure.data if t.mode == "lines+text"]
    assert any("theory" in text for text in texts) and any("swarm" in text for text in texts)


def test_bars_show_both_pieces_and_the_text():
    row = Bar(label="swarm", first=9.0, second=1.0, text="10 ms", colour="#D55E00")
    figure = bars([row], title="T", subtitle="", x_title="ms", pieces=("computing", "waiting"))
    assert [t.x[0] for t in figure.data] == [9.0, 1.0, 10.0]


def test_a_name_at_the_end_of_the_axis_lies_inside_it_whatever_rounding_did():
    end = 0.6700000000000004
    series = [Series(label="swarm", x=[0.1, end], y=[1, 2])]
    figure = line_plot(series, title="T", x=Axis(title="s", log=True), y=Y)
    (name,) = (t for t in figure.data if t.mode == "lines+text")
    assert math.log10(name.x[1]) < figure.layout.xaxis.range[1]


def test_points_are_marked_where_no_line_has_many_and_a_lone_one_always():
    few = Series(label="few", x=[0, 1, 2], y=[1, 2, 3])
    many = Series(label="many", x=list(range(50)), y=list(range(50)))
    lone = Series(label="lone", x=[1], y=[1])

    def marked(*series: Series) -> set[str]:
        figure = line_plot(series, title="T", x=X, y=Y)
        return {t.legendgroup for t in figure.data if t.mode == "lines+markers"}

    assert marked(few, lone) == {"few", "lone"}
    assert marked(few, many, lone) == {"lone"}
