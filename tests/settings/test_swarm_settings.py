"""Settings are checked where they are born; the texts say what to do; all else reads them."""

import inspect
from dataclasses import fields

import numpy as np
import pytest
import torch

import swarmsgd
from swarmsgd import graphs
from swarmsgd.core import lattice
from swarmsgd.errors import ConfigError
from swarmsgd.observe.schema import KINDS
from swarmsgd.settings.swarm import AGREED, BITS, SwarmSettings, lengths_of


def test_the_bits_of_the_settings_are_those_of_the_code():
    assert (None, *lattice.CODED_BITS) == BITS


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"mode": "nonblocking"}, "mode is 'nonblocking'.*did you mean \"non-blocking\""),
        ({"bits": 9}, "bits is 9, wanted one of none, 3, 4"),
        ({"rotation": "on"}, "rotation is 'on', wanted True, False or None"),
        ({"local_steps": 0}, "local_steps is 0, wanted a whole number of at least 1"),
        ({"local_steps": "poisson:4"}, "local_steps is 'poisson:4'"),
        ({"seed": -1}, "seed is -1"),
        ({"join_timeout_s": 0}, "join_timeout_s is 0"),
        ({"graph": 4}, "graph is 4, wanted a Graph or the name of one"),
        ({"exchange_state": "momentum_buffer"}, "wanted names of optimizer state"),
        ({"exchange_state": ("a", "a")}, "wanted names of optimizer state, each once"),
        ({"exchange_state": ("",)}, "wanted names of optimizer state"),
        (
            {"exchange_state": ("exp_avg", "exp_avg_sq")},
            "'exp_avg_sq', and what a step takes the root of must not go below",
        ),
        ({"exchange_state": ("grad_avg",)}, "'grad_avg', and what a step takes the root of"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        SwarmSettings(**settings)


def test_local_steps_are_fixed_or_geometric_with_the_mean_asked_for():
    rng = np.random.default_rng(0)
    assert {lengths_of("4").draw(rng) for _ in range(10)} == {4}
    draws = [lengths_of("geometric:4").draw(rng) for _ in range(20_000)]
    assert min(draws) == 1 and abs(np.mean(draws) - 4) < 0.1
    assert str(lengths_of("geometric:4")) == "geometric:4"


def test_nodes_agree_on_all_but_how_they_pace_themselves():
    names = {field.name for field in fields(SwarmSettings)}
    assert names - set(AGREED) == {
        "local_steps", "join_timeout_s", "on_divergence", "refuse_beyond",
    }  # fmt: skip


def test_the_signature_of_join_has_every_setting_with_its_default():
    parameters = inspect.signature(swarmsgd.join).parameters
    for field in fields(SwarmSettings):
        assert parameters[field.name].default == field.default
    assert list(parameters)[:2] == ["model", "optimizer"]
    assert {"record", "rank", "num_nodes", "master_addr", "master_port"} <= set(parameters)
    assert "settings" not in parameters


def test_join_answers_a_setting_that_does_not_exist_with_one_that_does():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="no setting 'local_step'; did you mean \"local_steps\""):
        swarmsgd.join(model, optimizer, local_step=3)


def test_what_is_left_to_us_is_decided_in_records():
    in_effect = SwarmSettings(bits=4, graph=graphs.ring(4), local_steps=2).in_effect()
    assert in_effect["rotation"] is True
    assert (in_effect["graph"], in_effect["local_steps"]) == ("ring(4)", "2")
    assert set(in_effect) <= set(KINDS["start"].fields)


def test_the_title_names_what_was_changed():
    uses = {field.name for field in fields(SwarmSettings)}
    words = SwarmSettings(rotation=False, exchange_state=("momentum_buffer",)).words(uses)
    assert words == [
        "complete", "H 4", "non-blocking", "8 bits",
        "rotation off", "exchange_state momentum_buffer",
    ]  # fmt: skip
    assert SwarmSettings(rotation=False).words({"local_steps"}) == ["H 4"]
