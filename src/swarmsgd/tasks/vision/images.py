"""What the vision task asks of a data set; and a data set that is held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.tasks.stream import index_batches, node_generator
from swarmsgd.tasks.vision.augment import crop_and_flip

Labelled = tuple[Tensor, Tensor]
"""Images uint8 ``[B, C, H, W]`` and labels int64 ``[B]``, on the CPU."""

SCORE_BATCH = 1000


class Images(Protocol):
    """A data set."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        ...

    @property
    def num_classes(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of all training images."""
        ...

    def batches(
        self, shard: NDArray[np.int64], batch_size: int, seed: int, node: int, *, augment: bool
    ) -> Iterator[Labelled]:
        """The endless training batches of a node that owns the images `shard`."""
        ...

    def scored(self) -> Iterator[Labelled]:
        """All test images, in order."""
        ...

    def sample(self, chosen: NDArray[np.int64]) -> Iterator[Labelled]:
        """These training images, in order, as if they were test images."""
        ...

    def normalised(self, images: Tensor) -> Tensor:
        """As float32 of about zero mean and unit variance, on the device they are on."""
        ...


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``[B, C, H, W]`` as float32, less `mean` and over `std` of each channel."""
    shift = torch.tensor(mean, device=images.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1)
    return images.to(torch.float32).sub_(shift).div_(scale)


class Split(NamedTuple):
    """`images` are ``[N, C, H, W]`` uint8, `labels` ``[N]`` int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """An `Images` in memory, kept as bytes: a quarter of the size of floats.

    `mean` and `std` are those of the training pixels, one for each channel, in their own units.
    """

    name: str
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.train.labels.numpy()

    def batches(
        self, shard: NDArray[np.int64], batch_size: int, seed: int, node: int, *, augment: bool
    ) -> Iterator[Labelled]:
        rng = node_generator(seed, node)
        for indices in index_batches(shard, batch_size, rng):
            chosen = torch.from_numpy(indices)
            images = self.train.images[chosen]
            yield crop_and_flip(images, rng) if augment else images, self.train.labels[chosen]

    def scored(self) -> Iterator[Labelled]:
        return _parts(self.test)

    def sample(self, chosen: NDArray[np.int64]) -> Iterator[Labelled]:
        rows = torch.from_numpy(chosen)
        return _parts(Split(self.train.images[rows], self.train.labels[rows]))

    def normalised(self, images: Tensor) -> Tensor:
        return normalise(images, self.mean, self.std)


def _parts(split: Split) -> Iterator[Labelled]:
    parts = (part.split(SCORE_BATCH) for part in split)
    return zip(*parts, strict=True)
