"""Heat maps of the benchmarks share one scale, and say so when they cannot be drawn."""

from __future__ import annotations

import pytest
from heat import heat_map

from swarmsgd.errors import ConfigError


def heat(panels: list, **changes: object):
    words = {"panel_titles": ["H = 1", "H = 2"], "x_labels": ["a", "b"], "y_labels": ["c"]}
    return heat_map(panels, title="T", x_title="x", y_title="y", **(words | changes))


def test_heat_maps_share_one_scale_and_leave_out_nulls():
    figure = heat([[[1.0, None]], [[3.0, 2.0]]])
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (1.0, 3.0)
    assert figure.data[0].z[0][1] is None
    assert [a.text for a in figure.layout.annotations] == ["<b>H = 1</b>", "<b>H = 2</b>"]


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
