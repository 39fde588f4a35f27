"""Images of any size, decoded by Pillow and cut to one size.

Pillow cuts out and scales in one call. What is cut is drawn from a generator that is handed in;
torchvision's transforms draw from torch's global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from swarmsgd.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels of the whole image."""

Cut = Callable[["Image.Image", int], "Image.Image"]
"""An RGB image and the size wanted -> that many pixels a side."""

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
CUTS_TRIED = 10
MARGIN = 256 / 224
"""A test image is scaled to this many times the size wanted before its centre is cut out."""


def read_cut(path: Path, size: int, cut: Cut) -> Tensor:
    """The image as uint8 ``[3, size, size]``. Raises DataError, which names the file."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.array(cut(image.convert("RGB"), size))
    except Exception as error:  # a broken file may raise anything
        raise DataError(
            f"{path} cannot be used: {type(error).__name__}: {error}. Replace it, or take it away"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_cut(image: Image.Image, size: int) -> Image.Image:
    """What a test sees: the centre, 7/8 of the shorter side."""
    side = min(image.width, image.height) / MARGIN
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return _scaled(image, size, (left, top, left + side, top + side))


def random_cut(rng: np.random.Generator) -> Cut:
    """What training sees: a box of random area and aspect, scaled, mirrored half of the time
    (Szegedy et al. 2015, arXiv 1409.4842, section 6).
    """

    def cut(image: Image.Image, size: int) -> Image.Image:
        from PIL.Image import Transpose

        scaled = _scaled(image, size, random_box(image.width, image.height, rng))
        return scaled.transpose(Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else scaled

    return cut


def random_box(width: int, height: int, rng: np.random.Generator) -> Box:
    """8 to 100 % of the image, at 3:4 to 4:3; in whole pixels. If none of ten fits: the largest
    box in the middle that has such an aspect.
    """
    low, high = map(math.log, ASPECT)
    for _ in range(CUTS_TRIED):
        area = width * height * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, height * ASPECT[1]), min(height, width / ASPECT[0])
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def _scaled(image: Image.Image, size: int, box: Box) -> Image.Image:
    from PIL.Image import Resampling

    return image.resize((size, size), Resampling.BILINEAR, box=box)
