"""Single plots show what they were given, and say so when they cannot."""

import math

import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis
from swarmsgd.observe.bars import Bar, bars
from swarmsgd.observe.figures import Series, lines
from swarmsgd.observe.heat import heat_map

X, Y = Axis(title="virtual time (s)"), Axis(title="loss")


def test_lines_without_a_point_say_so():
    series = [Series(label="a", x=[0.0], y=[None]), Series(label="b", x=[1.0], y=[-1.0])]
    with pytest.raises(ConfigError, match="nothing to draw in 'T': no series of 2 has a point"):
        lines(series, title="T", x=X, y=Axis(title="y", log=True))


def test_a_reference_is_dashed_named_and_takes_no_algorithm_colour():
    theory = Series(label="theory", x=[0, 1], y=[1, 2], reference=True)
    figure = lines([theory, Series(label="swarm", x=[0, 1], y=[1, 3])], title="T", x=X, y=Y)
    drawn = {t.legendgroup: t for t in figure.data if t.mode != "lines+text"}
    assert drawn["theory"].line.dash == "dash" and drawn["swarm"].line.dash == "solid"
    texts = [t.text[1] for t in figure.data if t.mode == "lines+text"]
    assert any("theory" in text for text in texts) and any("swarm" in text for text in texts)


def test_bars_show_both_pieces_and_the_text():
    row = Bar(label="swarm", first=9.0, second=1.0, text="10 ms", colour="#D55E00")
    figure = bars([row], title="T", subtitle="", x_title="ms", pieces=("computing", "waiting"))
    assert [t.x[0] for t in figure.data] == [9.0, 1.0, 10.0]


def heat(panels: list, **changes: object):
    words = {"panel_titles": ["H = 1", "H = 2"], "x_labels": ["a", "b"], "y_labels": ["c"]}
    return heat_map(panels, title="T", x_title="x", y_title="y", **(words | changes))


def test_heat_maps_share_one_scale_and_leave_out_nulls():
    figure = heat([[[1.0, None]], [[3.0, 2.0]]])
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (1.0, 3.0)
    assert figure.data[0].z[0][1] is None
    assert [a.text for a in figure.layout.annotations] == ["<b>H = 1</b>", "<b>H = 2</b>"]


def test_a_heat_map_with_a_middle_reaches_as_far_to_both_sides():
    figure = heat([[[1.0, 2.0]], [[-3.0, 0.0]]], middle=0.0)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-3.0, 3.0)


def test_logarithmic_colours_keep_the_number_itself_in_the_cell():
    figure = heat([[[10.0, 0.0]], [[1000.0, 100.0]]], log=True)
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (1.0, 3.0)
    assert figure.data[0].customdata[0][0] == 10.0 and figure.data[0].z[0][1] is None


@pytest.mark.parametrize(
    ("panels", "error"),
    [
        ([[[1.0, 2.0]]], "1 heat maps but 2 panel titles"),
        ([[[1.0]], [[1.0]]], "does not fit 1 y labels and 2 x labels"),
        ([[[None, None]], [[None, None]]], "no cell has a value"),
    ],
)
def test_a_heat_map_that_does_not_fit_says_how(panels: list, error: str):
    with pytest.raises(ConfigError, match=error):
        heat(panels)


def test_a_name_at_the_end_of_the_axis_lies_inside_it_whatever_rounding_did():
    end = 0.6700000000000004
    series = [Series(label="swarm", x=[0.1, end], y=[1, 2])]
    figure = lines(series, title="T", x=Axis(title="s", log=True), y=Y)
    (name,) = (t for t in figure.data if t.mode == "lines+text")
    assert math.log10(name.x[1]) < figure.layout.xaxis.range[1]


def test_points_are_marked_where_no_line_has_many_and_a_lone_one_always():
    few = Series(label="few", x=[0, 1, 2], y=[1, 2, 3])
    many = Series(label="many", x=list(range(50)), y=list(range(50)))
    lone = Series(label="lone", x=[1], y=[1])

    def marked(*series: Series) -> set[str]:
        figure = lines(series, title="T", x=X, y=Y)
        return {t.legendgroup for t in figure.data if t.mode == "lines+markers"}

    assert marked(few, lone) == {"few", "lone"}
    assert marked(few, many, lone) == {"lone"}
