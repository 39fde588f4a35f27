"""Images in folders, one folder a class, as ImageNet lies on disks: read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.tasks.stream import index_batches, node_generator
from swarmsgd.tasks.vision.images import normalise
from swarmsgd.tasks.vision.listing import Listing, list_folder
from swarmsgd.tasks.vision.loading import Key, Samples, load_named

FOLDER = "folder"
MEANS, DEVIATIONS = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's training pixels, each channel, in bytes."""

SCORE_PIXELS = 1 << 22
"""In a batch that is scored."""


def images_folder(dataset: str) -> Path | None:
    """The path of ``folder:PATH``; None for another data set. Raises ConfigError without a path."""
    name, _, path = dataset.partition(":")
    if name != FOLDER:
        return None
    if not path:
        raise ConfigError(
            f"dataset is {dataset!r}, which names no folder; write {FOLDER}:PATH, "
            "the folder that has train and val in it"
        )
    return Path(path)


class FolderImages:
    """An `Images` of which only the names are in memory."""

    def __init__(self, root: Path, image_size: int, loaders: int) -> None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise DataError(
                "reading images needs Pillow; install it by: pip install 'swarmsgd[vision]'"
            ) from error
        self._size = image_size
        self._loaders = loaders
        self.train, self.test = list_folder(root)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self._size, self._size

    @property
    def num_classes(self) -> int:
        return len(self.train.classes)

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.train.labels

    def batches(
        self, shard: NDArray[np.int64], batch_size: int, seed: int, node: int, *, augment: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Always cut out at random: `augment` is not asked."""
        # Loaders are handed the names of the node's own images and no others.
        samples = Samples(self.train.part(shard), self._size, (seed, node))
        return load_named(samples, _keys(len(shard), batch_size, seed, node), self._loaders)

    def scored(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._plain(self.test)

    def sample(self, chosen: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        return self._plain(self.train.part(chosen))

    def _plain(self, listing: Listing) -> Iterator[tuple[Tensor, Tensor]]:
        count = max(1, SCORE_PIXELS // self._size**2)
        keys = [(row, 0) for row in range(len(listing))]
        parts = [keys[i : i + count] for i in range(0, len(keys), count)]
        return load_named(Samples(listing, self._size), parts, self._loaders)

    def normalised(self, images: Tensor) -> Tensor:
        return normalise(images, MEANS, DEVIATIONS)


def _keys(count: int, batch_size: int, seed: int, node: int) -> Iterator[list[Key]]:
    position = 0
    for chosen in index_batches(np.arange(count), batch_size, node_generator(seed, node)):
        yield [(int(row), position + i) for i, row in enumerate(chosen)]
        position += batch_size
