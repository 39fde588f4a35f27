"""A folder of small pictures, drawn here: one shape a class, of any place, size and colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "square", "triangle")
TRAIN, TEST = 40, 10
"""Pictures of each class: 200 together."""


def draw_folder(root: Path) -> Path:
    """The same pictures in every `root`, which is returned."""
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", TEST)):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                _picture(name, rng).save(folder / f"{i:02d}.png")
    return root


def _picture(name: str, rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (40, 36), _colour(rng, 0, 80))
    draw, fill = ImageDraw.Draw(image), _colour(rng, 150, 256)
    x, y, r = (int(rng.integers(low, high)) for low, high in ((14, 24), (14, 24), (8, 12)))
    box = (x - r, y - r, x + r, y + r)
    match name:
        case "circle":
            draw.ellipse(box, fill=fill)
        case "square":
            draw.rectangle(box, fill=fill)
        case "triangle":
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
        case _:
            draw.line(box, fill=fill, width=4)
            draw.line((x - r, y + r, x + r, y - r), fill=fill, width=4)
    return image


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(part) for part in rng.integers(low, high, 3))
