"""Random shifts and flips of whole batches, without a loop over images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 4


def crop_and_flip(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image padded by 4 black pixels, cropped at a random place, mirrored half of the time.

    ``[B, C, H, W]`` in and out, any dtype; He et al. 2016, section 4.2.
    """
    batch, _, height, width = images.shape
    top, left = torch.from_numpy(rng.integers(0, 2 * SHIFT + 1, size=(2, batch)))
    mirrored = torch.from_numpy(rng.random((batch, 1, 1, 1)) < 0.5)
    # A view [B, C, top, left, H, W] of all crops there are, so that only the chosen are copied.
    crops = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT)).unfold(2, height, 1).unfold(3, width, 1)
    cropped = crops[torch.arange(batch), :, top, left]
    return torch.where(mirrored, cropped.flip(3), cropped)
