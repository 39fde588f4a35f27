"""Tables, names and options."""

from __future__ import annotations

import doctest

import pytest

from swarmsgd.errors import ConfigError
from swarmsgd.tasks import SyntheticOptions, VisionOptions, find_task, make_task, registry
from swarmsgd.tasks import partition as partitions


def test_an_unknown_task_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"task is 'visoin', .*did you mean \"vision\""):
        make_task("visoin", num_nodes=1)


def test_an_unknown_option_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"no option .*'batchsize'; did you mean \"batch_size\""):
        make_task("vision", num_nodes=1, batchsize=8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dataset": "minst"}, 'did you mean "fashion-mnist"'),
        ({"model": "resnet"}, r'did you mean "resnet\d+"'),
        ({"partition": "dirichlet:0"}, "alpha above 0"),
        ({"batch_size": 0}, "batch_size is 0, wanted a whole number of at least 1"),
        ({"seed": -1}, "seed is -1, wanted a whole number of at least 0"),
    ],
)
def test_vision_options_are_checked_where_they_are_made(options: dict, text: str):
    with pytest.raises(ConfigError, match=text):
        VisionOptions(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"dimension": 0},
        {"condition": 0.5},
        {"noise": -1.0},
        {"heterogeneity": float("nan")},
        {"condition": float("inf")},
        {"samples_per_node": 0},
        {"seed": -1},
    ],
)
def test_synthetic_options_are_checked_where_they_are_made(options: dict):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is .*, wanted a (whole )?number"):
        SyntheticOptions(**options)


def test_the_name_of_a_data_set_is_short_for_the_vision_task_on_it():
    assert make_task("digits", num_nodes=4, model="mlp").name == "digits/mlp"
    assert find_task("vision") == ("vision", {})


@pytest.mark.parametrize("module", [partitions, registry])
def test_docstring_examples_run(module):
    assert doctest.testmod(module).failed == 0
