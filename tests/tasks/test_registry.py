"""Tables, names and options."""

from __future__ import annotations

import doctest
from dataclasses import fields
from pathlib import Path

import pytest
import tyro

from swarmsgd.errors import ConfigError
from swarmsgd.tasks import TASKS, SyntheticOptions, VisionOptions, choices, make_task, registry
from swarmsgd.tasks import partition as partitions


def test_an_unknown_task_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="unknown task 'visoin', did you mean 'vision'"):
        make_task("visoin", num_nodes=1)


def test_an_unknown_option_is_answered_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match=r"unknown option.*'batchsize', did you mean 'batch_size'"
    ):
        make_task("vision", num_nodes=1, batchsize=8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dataset": "fasion-mnist"}, "did you mean 'fashion-mnist'"),
        ({"model": "resnet"}, "did you mean 'resnet20'"),
        ({"partition": "dirichlet:0"}, "alpha above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
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
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must be a number of at least"):
        SyntheticOptions(**options)


@pytest.mark.parametrize("task", TASKS)
def test_every_option_becomes_a_flag_with_help(task: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        tyro.cli(TASKS[task].options, args=["--help"])
    text = capsys.readouterr().out
    for option in fields(TASKS[task].options):
        assert f"--{option.name.replace('_', '-')}" in text
    assert "Seed of the" in text


def test_flags_are_read():
    options = tyro.cli(VisionOptions, args=["--batch-size", "8", "--augment", "--data", "/x"])
    assert options == VisionOptions(batch_size=8, augment=True, data=Path("/x"))


@pytest.mark.parametrize("module", [choices, partitions, registry])
def test_docstring_examples_run(module):
    assert doctest.testmod(module).failed == 0
