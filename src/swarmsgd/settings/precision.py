"""In which numbers a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS: Mapping[str, str] = {
    "float32": "all in float32",
    "bfloat16": "forward and backward by torch's autocast; parameters, steps, scores in float32",
}
"""Name -> a line of help."""


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Around the forward pass of a training step."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
