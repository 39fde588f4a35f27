"""The optimizer as a value: what it refuses, and that it is torch's."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.settings.optimizer import OPTIMIZERS, SCHEDULES, OptimizerSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamv"}, "optimizer is 'adamv', wanted one of sgd, .*did you mean \"adam"),
        ({"schedule": "cosin"}, "schedule is 'cosin', wanted .*did you mean \"cosine\""),
        ({"lr": 0.0}, "lr is 0.0, wanted a number above 0"),
        ({"lr": float("nan")}, "lr is nan, wanted a number above 0"),
        ({"momentum": 1.0}, "momentum is 1.0, wanted a number of at least 0 and below 1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1, wanted a number of at least 0"),
        ({"optimizer": "adamw", "beta2": 1.0}, "beta2 is 1.0, wanted a number"),
        ({"optimizer": "adamw", "eps": 0.0}, "eps is 0.0, wanted a number above 0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0, wanted a number above 0"),
        ({"optimizer": "adamw", "momentum": 0.5}, "adamw has no momentum: leave it out, or .* sgd"),
        ({"optimizer": "adam", "nesterov": True}, "adam has no nesterov"),
        ({"beta1": 0.8}, "sgd has no beta1: leave it out, or take optimizer adam or adamw or sch"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov is True but momentum is 0"),
        ({"optimizer": "schedulefree-adamw"}, "schedule is cosine, but .* take schedule constant"),
        ({"warmup": 1.0}, "warmup is 1.0, wanted a number of at least 0 and below 1"),
        ({"schedule": "inverse-sqrt"}, "inverse-sqrt, which falls .* give a share of the run"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        OptimizerSettings(**settings)


def test_the_default_of_a_setting_that_the_optimizer_has_not_is_no_mistake():
    assert OptimizerSettings(optimizer="adamw", momentum=0.9).betas == (0.9, 0.999)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_table_is_torch_s_with_the_settings_it_takes(name: str):
    settings = OptimizerSettings(optimizer=name, lr=0.3, weight_decay=0.01, schedule="constant")
    made = settings.make([nn.Parameter(torch.ones(2))])
    assert type(made).__module__.startswith(("torch.optim", "swarmsgd.optim"))
    (group,) = made.param_groups
    assert group["lr"] == 0.3
    for option in OPTIMIZERS[name].takes:
        assert group[option] == getattr(settings, option)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_begins_at_lr_when_the_warm_up_is_over(name: str):
    settings = OptimizerSettings(lr=0.4, schedule=name, warmup=0.25)
    assert [settings.rate(done) for done in (0.0, 0.125, 0.25)] == [0.0, 0.2, 0.4]
    if name != "inverse-sqrt":
        assert OptimizerSettings(lr=0.4, schedule=name).rate(0.0) == 0.4


@pytest.mark.parametrize(
    ("name", "middle", "late", "end"),
    [
        ("cosine", 0.2, 0.2 * (1 + math.cos(0.9 * math.pi)), 0.0),
        ("linear", 0.2, 0.04, 0.0),
        ("wsd", 0.4, 0.2, 0.0),
        ("step", 0.04, 0.004, 0.004),
        ("constant", 0.4, 0.4, 0.4),
    ],
)
def test_each_schedule_goes_as_it_says(name: str, middle: float, late: float, end: float):
    for warmup in (0.0, 0.5):
        settings = OptimizerSettings(lr=0.4, schedule=name, warmup=warmup)
        rates = [settings.rate(warmup + (1 - warmup) * done) for done in (0.5, 0.9, 1.0)]
        assert rates == pytest.approx([middle, late, end], abs=1e-12)


def test_inverse_sqrt_halves_when_four_times_the_warm_up_is_over():
    settings = OptimizerSettings(lr=0.4, schedule="inverse-sqrt", warmup=0.1)
    assert settings.rate(0.4) == pytest.approx(0.2)


def test_gradients_are_clipped_as_one_vector_and_only_where_they_are_longer():
    long, short = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))
    for scale, norm in ((1.0, 0.5), (0.01, 0.05)):
        long.grad, short.grad = scale * torch.tensor([3.0, 0.0, 0.0]), scale * torch.tensor([4.0])
        OptimizerSettings(clip_norm=0.5).clip([long, short])
        both = torch.cat([long.grad, short.grad])
        assert float(both.norm()) == pytest.approx(norm, rel=1e-4)
        assert float(both[3] / both[0]) == pytest.approx(4 / 3)


def test_a_rate_as_for_sgd_is_doubted_for_what_steps_by_the_rate_itself():
    assert OptimizerSettings(lr=0.5).doubt() is None
    assert OptimizerSettings(optimizer="adamw", lr=0.03).doubt() is None
    told = OptimizerSettings(optimizer="adamw", lr=0.1).doubt()
    assert told is not None and "lr is 0.1, a rate as for SGD, but the optimizer is adamw" in told
