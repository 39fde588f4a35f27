"""Models of torchvision: whose weights they have, and what is refused."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
import torch
from torch import nn

from swarmsgd.errors import ConfigError
from swarmsgd.tasks.vision import torchvision_models
from swarmsgd.tasks.vision.models import check_model, make_model

needs_torchvision = pytest.mark.skipif(
    not torchvision_models.names(), reason="torchvision is not installed: pip install torchvision"
)
SHAPE = (3, 32, 32)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@needs_torchvision
def test_resnets_have_the_parameters_of_their_paper():
    """11.7 and 25.6 million for the 1,000 classes of ImageNet (He et al. 2016)."""
    counts = [len(weights(make_model(n, SHAPE, 1000, 0))) for n in ("resnet18", "resnet50")]
    assert counts == [11_689_512, 25_557_032]


@needs_torchvision
def test_weights_are_a_function_of_the_seed_and_no_generator_is_moved():
    before = torch.get_rng_state()
    first, again, other = (weights(make_model("resnet18", SHAPE, 10, s)) for s in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small"])
def test_a_model_gives_logits_of_the_classes_in_training_mode(name: str):
    model = make_model(name, SHAPE, 7, 0)
    assert all(module.training for module in model.modules())
    assert model(torch.zeros(2, *SHAPE)).shape == (2, 7)


@needs_torchvision
@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("resnet18", (1, 28, 28), "takes images of 3 colours, these have 1; take cnn"),
        ("vit_b_16", SHAPE, r"cannot take images of 32x32 \(Wrong image height.*image_size, 224"),
        ("alexnet", SHAPE, r"cannot take images of 32x32 \(Given input size"),
    ],
)
def test_images_that_a_model_cannot_take_are_told(name: str, shape: Any, text: str):
    with pytest.raises(ConfigError, match=text):
        make_model(name, shape, 10, 0)


@needs_torchvision
def test_an_unknown_model_is_answered_with_one_of_torchvision():
    with pytest.raises(
        ConfigError, match=r"model of torchvision; did you mean \"wide_resnet50_2\""
    ):
        check_model("wide_resnet50")


@pytest.fixture
def no_torchvision(monkeypatch: pytest.MonkeyPatch):
    really = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
        return really(name, *arguments, **named)

    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    torchvision_models.names.cache_clear()
    yield
    torchvision_models.names.cache_clear()


@pytest.mark.usefixtures("no_torchvision")
def test_without_torchvision_one_line_says_how_to_get_it():
    with pytest.raises(ConfigError, match=r"torchvision, which has more, .*'swarmsgd\[vision\]'"):
        check_model("resnet18")
    check_model("resnet20")
