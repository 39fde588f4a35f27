"""The models of the vision task, and how their weights are drawn.

Models of the table are built without weights (on torch's meta device) and then filled from a
generator that belongs to the call. What the table has not may be a model of torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from swarmsgd.checks import closest
from swarmsgd.errors import ConfigError
from swarmsgd.tasks.vision import torchvision_models
from swarmsgd.tasks.vision.resnet import resnet20

ImageShape = tuple[int, int, int]
"""Channels, height, width."""


def cnn(shape: ImageShape, num_classes: int) -> nn.Module:
    """Two small convolutions and a hidden layer of 60: 99,782 parameters on 28x28x1.

    The layer norm keeps it stable at five times the best small-batch rate, which the nodes of a
    decentralized run want; unlike batch norm it has no running statistics that would have to be
    averaged. Needs images of at least 4x4.
    """
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 60),
        nn.LayerNorm(60),
        nn.ReLU(),
        nn.Linear(60, num_classes),
    )


def mlp(shape: ImageShape, num_classes: int) -> nn.Module:
    """One hidden layer of 128."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


class _Entry(NamedTuple):
    build: Callable[[ImageShape, int], nn.Module]
    help: str


MODELS = {
    "cnn": _Entry(cnn, "small CNN, 0.1 M parameters, 10,000 samples a second on one core"),
    "mlp": _Entry(mlp, "one hidden layer of 128, 0.1 M parameters on 28x28"),
    "resnet20": _Entry(resnet20, "CIFAR ResNet-20 of He et al. 2016, 0.27 M parameters"),
}
"""Name -> (image shape, number of classes) -> module, and a line of help."""


def check_model(name: str) -> None:
    """Raise ConfigError unless `name` is in the table, or one of torchvision's."""
    if name in MODELS or name in torchvision_models.names():
        return
    if not torchvision_models.names():
        raise ConfigError(
            f"model is {name!r}, wanted one of {', '.join(MODELS)}{closest(name, MODELS)} "
            "torchvision, which has more, is not installed: pip install 'swarmsgd[vision]'"
        )
    raise ConfigError(
        f"model is {name!r}, wanted one of {', '.join(MODELS)}, or a classification model of "
        f"torchvision{closest(name, [*MODELS, *torchvision_models.names()])}"
    )


def make_model(name: str, shape: ImageShape, num_classes: int, seed: int) -> nn.Module:
    """Model `name` of the table, or else of torchvision, on the CPU, its weights a function of
    `seed` alone.
    """
    check_model(name)
    if name not in MODELS:
        return torchvision_models.build(name, shape, num_classes, seed)
    with torch.device("meta"):
        model = MODELS[name].build(shape, num_classes)
    model.to_empty(device="cpu")
    he_init(model, torch.Generator().manual_seed(seed))
    return model


def he_init(model: nn.Module, generator: torch.Generator) -> None:
    """Fill all weights in place as in He et al. 2015 (arXiv 1502.01852), biases with zero."""
    for module in model.modules():
        match module:
            case nn.Conv2d() | nn.Linear():
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.BatchNorm2d() | nn.LayerNorm():
                module.reset_parameters()  # ones and zeros; draws nothing
            case _ if any(True for _ in module.parameters(recurse=False)):
                raise TypeError(f"he_init does not know how to fill a {type(module).__name__}")
