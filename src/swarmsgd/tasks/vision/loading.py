"""Batches of images that are read when they are needed, by processes of torch's DataLoader.

A sample is asked for by its row and its position in the node's stream, and what is random in it is
a function of (seed, node, position). So the batches do not depend on how many processes read them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swarmsgd.errors import DataError
from swarmsgd.seeds import stream
from swarmsgd.tasks.vision.crops import centre_cut, random_cut, read_cut
from swarmsgd.tasks.vision.listing import Listing

Key = tuple[int, int]
"""Row of a listing, and position in the stream."""

Sample = tuple[Tensor, int] | DataError
"""Image and label; or what is wrong with the file: raised in a loader it would come as a page."""


@dataclass(frozen=True)
class Samples(Dataset[Sample]):
    """Images of a listing: as a test sees them, or as the training of (seed, node) does."""

    listing: Listing
    size: int
    training: tuple[int, int] | None = None

    def __getitem__(self, key: Key) -> Sample:
        row, position = key
        cut = centre_cut
        if self.training is not None:
            cut = random_cut(stream("crops", *self.training, position))
        try:
            image = read_cut(self.listing.path(row), self.size, cut)
        except DataError as error:
            return error
        return image, int(self.listing.labels[row])


def load_named(
    samples: Samples, batches: Iterable[list[Key]], loaders: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches asked for, in this order: images uint8 ``[B, 3, size, size]``, labels ``[B]``.

    They are read by `loaders` processes, which end with the iterator; by this one if there are
    none. Raises DataError for a file that cannot be used, or if a process is gone.
    """
    loader = DataLoader(
        samples,
        batch_sampler=batches,
        collate_fn=_together,
        num_workers=loaders,
        multiprocessing_context=_processes() if loaders else None,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # or it would draw a seed from the global one
    )
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that loads images has ended ({str(error).splitlines()[0]}); "
            "try with fewer loaders, or 0, if memory is short"
        ) from error


def _together(samples: Sequence[Sample]) -> tuple[Tensor, Tensor] | DataError:
    images, labels = [], []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        images.append(sample[0])
        labels.append(sample[1])
    return torch.stack(images), torch.tensor(labels)


def _processes() -> ForkServerContext:
    """How they are started: from a process that has nothing of the node's. A fork of the node
    would hold its sockets, so that peers would not see when it dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "PIL.Image"])
    return context


def _begin(_loader: int) -> None:
    """In a loader: leave Ctrl-C to the node, and end when it is gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    node = multiprocessing.parent_process()
    assert node is not None

    def follow() -> None:
        wait([node.sentinel])
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
