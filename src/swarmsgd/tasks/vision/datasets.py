"""The image data sets, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.checks import one_of
from swarmsgd.errors import DataError
from swarmsgd.seeds import fixed
from swarmsgd.tasks.base import Notify, silent
from swarmsgd.tasks.lookup import Arrays
from swarmsgd.tasks.vision.cifar import load_cifar10, load_cifar100
from swarmsgd.tasks.vision.fashion import load_fashion_mnist
from swarmsgd.tasks.vision.folder import FOLDER
from swarmsgd.tasks.vision.images import ImageData, Split
from swarmsgd.tasks.vision.jpeg import load_cifar10_jpeg75


def load_digits(data: Path | None, notify: Notify) -> Arrays:
    """The 1,797 8x8 digits of scikit-learn, 1,437 for training; pixels go from 0 to 16."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise DataError(
            "the digits are part of scikit-learn; install it by: pip install 'swarmsgd[tasks]'"
        ) from error
    pixels, labels = load(return_X_y=True)
    order = fixed().permutation(len(labels))
    train, test = np.split(order, [len(labels) * 4 // 5])
    images = np.asarray(pixels, dtype=np.uint8).reshape(-1, 8, 8)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


class _InMemory(NamedTuple):
    load: Callable[[Path | None, Notify], Arrays]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    help: str
    num_classes: int = 10


class _OnDisk(NamedTuple):
    usage: str
    help: str


_CIFAR_MEAN, _CIFAR_STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)

_LOADED = {
    "fashion-mnist": _InMemory(
        load_fashion_mnist, (72.94,), (90.02,), "60,000 clothes, 28x28 grey; comes by itself, 31 MB"
    ),
    "digits": _InMemory(load_digits, (4.88,), (6.02,), "1,437 digits, 8x8 grey; from scikit-learn"),
    "cifar10": _InMemory(
        load_cifar10, _CIFAR_MEAN, _CIFAR_STD, "50,000 photos, 32x32 RGB; comes by itself, 170 MB"
    ),
    "cifar10-jpeg75": _InMemory(
        load_cifar10_jpeg75, _CIFAR_MEAN, _CIFAR_STD, "CIFAR-10 as JPEG of quality 75; from --data"
    ),
    "cifar100": _InMemory(
        load_cifar100, (129.3, 124.1, 112.4), (68.2, 65.4, 70.4),
        "50,000 photos, 32x32 RGB, 100 classes; comes by itself, 169 MB", 100,
    ),
}  # fmt: skip
"""Name -> loader, mean and standard deviation of the pixels of each channel, a line of help, number
of classes.
"""

DATASETS: Mapping[str, _InMemory | _OnDisk] = {
    **_LOADED,
    FOLDER: _OnDisk(f"{FOLDER}:PATH", "PATH/train and PATH/val, one folder of images a class"),
}
"""All there are: those that are held in memory, and images in folders."""


def load_images(name: str, data: Path | None = None, notify: Notify = silent) -> ImageData:
    """Find, or fetch (see `lookup`), and load a data set that is held in memory.

    A launcher calls this once before it starts its processes; they then find the data on disk.
    """
    entry = one_of("dataset", name, _LOADED)
    arrays = entry.load(data, notify)
    train, test = (
        Split(_images(arrays[f"{split}_images"]), _labels(arrays[f"{split}_labels"]))
        for split in ("train", "test")
    )
    return ImageData(
        name=name,
        train=train,
        test=test,
        mean=entry.mean,
        std=entry.std,
        num_classes=entry.num_classes,
    )


def _images(pixels: NDArray[np.uint8]) -> Tensor:
    images = torch.from_numpy(pixels)
    return images if images.ndim == 4 else images.unsqueeze(1)


def _labels(labels: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))
