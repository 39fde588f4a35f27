"""The optimizer as a value: what it refuses, and that it is torch's."""

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
        ({"beta1": 0.8}, "sgd has no beta1: leave it out, or take optimizer adam or adamw"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov is True but momentum is 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        OptimizerSettings(**settings)


def test_the_default_of_a_setting_that_the_optimizer_has_not_is_no_mistake():
    assert OptimizerSettings(optimizer="adamw", momentum=0.9).betas == (0.9, 0.999)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_the_table_is_torch_s_with_the_settings_it_takes(name: str):
    settings = OptimizerSettings(optimizer=name, lr=0.3, weight_decay=0.01)
    made = settings.make([nn.Parameter(torch.ones(2))])
    assert type(made).__module__.startswith("torch.optim")
    (group,) = made.param_groups
    assert group["lr"] == 0.3
    for option in OPTIMIZERS[name].takes:
        assert group[option] == getattr(settings, option)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_begins_at_lr(name: str):
    assert OptimizerSettings(lr=0.4, schedule=name).rate(0.0) == 0.4


def test_the_cosine_goes_to_zero_and_constant_stays():
    cosine = OptimizerSettings(lr=0.4, schedule="cosine")
    assert [round(cosine.rate(done), 6) for done in (0.5, 1)] == [0.2, 0.0]
    assert OptimizerSettings(lr=0.4, schedule="constant").rate(1.0) == 0.4


def test_gradients_are_clipped_as_one_vector_and_only_where_they_are_longer():
    long, short = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))
    for scale, norm in ((1.0, 0.5), (0.01, 0.05)):
        long.grad, short.grad = scale * torch.tensor([3.0, 0.0, 0.0]), scale * torch.tensor([4.0])
        OptimizerSettings(clip_norm=0.5).clip([long, short])
        both = torch.cat([long.grad, short.grad])
        assert float(both.norm()) == pytest.approx(norm, rel=1e-4)
        assert float(both[3] / both[0]) == pytest.approx(4 / 3)
