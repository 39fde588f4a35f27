"""The models: their sizes, and where their weights come from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.tasks.vision.models import MODELS, he_init, make_model

CIFAR, FASHION, DIGITS = (3, 32, 32), (1, 28, 28), (1, 8, 8)


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet20_has_the_parameters_of_the_paper():
    """0.27 M in Table 6 of He et al.; 269,722 with shortcuts that have none, and batch norm."""
    assert size(make_model("resnet20", CIFAR, 10, 0)) == 269_722


def test_resnet20_has_twenty_layers_with_weights():
    model = make_model("resnet20", CIFAR, 10, 0)
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == 20


def test_the_small_models_have_a_tenth_of_a_million_parameters():
    assert size(make_model("cnn", FASHION, 10, 0)) == 99_782
    assert size(make_model("mlp", FASHION, 10, 0)) == 101_770


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [CIFAR, FASHION, DIGITS])
def test_every_model_takes_every_shape(name: str, shape: tuple[int, int, int]):
    model = make_model(name, shape, 10, 0)
    out = model(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, 10)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_shortcut_of_option_a_keeps_every_other_pixel_and_adds_zeros():
    block = list(make_model("resnet20", CIFAR, 10, 0).children())[6]
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_weights_have_the_variance_of_he_et_al():
    weight = make_model("mlp", (1, 100, 100), 10, 0).get_parameter("1.weight")
    assert weight.var().item() == pytest.approx(2 / 10_000, rel=0.02)


def test_layers_without_a_rule_are_not_left_unfilled():
    with pytest.raises(TypeError, match="how to fill a Bilinear"):
        he_init(nn.Sequential(nn.Bilinear(1, 1, 1)), torch.Generator())


def test_an_unknown_model_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"model is 'cnnn', .*did you mean \"cnn\""):
        make_model("cnnn", DIGITS, 10, 0)
