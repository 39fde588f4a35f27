"""The classification models of torchvision, by their names there, without weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from swarmsgd.errors import ConfigError

_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Of models that would else have several outputs, or warn."""

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def names() -> tuple[str, ...]:
    """What there is; nothing where torchvision is not installed. Raises ConfigError for one that
    does not work with this torch.
    """
    try:
        models = _torchvision_models()
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        return ()
    return tuple(models.list_models(module=models))


def build(name: str, shape: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """Weights are drawn as torchvision draws them, after torch's generator was set to `seed`; its
    state is as before when this returns. Raises ConfigError for images the model cannot take.
    """
    models = _torchvision_models()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = models.get_model(
            name, weights=None, num_classes=num_classes, **_ARGUMENTS.get(name, {})
        )
    _check_shape(name, model, shape)
    return model


def _check_shape(name: str, model: nn.Module, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    if channels != 3:
        raise ConfigError(
            f"model {name} takes images of 3 colours, these have {channels}; take cnn, mlp or "
            "resnet20"
        )
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"model {name} cannot take images of {height}x{width} "
            f"({str(error).splitlines()[0]}); take another image_size, 224 for most, or model"
        ) from None
    finally:
        model.train()


def _torchvision_models() -> Any:
    """`torchvision.models`. It declares fakes of two operators of object detection; where these
    come for another build of torch (CUDA's, next to a torch for CPUs), that fails, though no model
    here uses them: they are declared, and it is imported again.
    """
    try:
        from torchvision import models
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise ConfigError(f"torchvision does not work with this torch: {error}") from error
        for operator in _OPERATORS:
            torch.library.define(f"torchvision::{operator}", _SCHEMA)
        from torchvision import models
    return models
