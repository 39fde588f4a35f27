"""Sentences of like length together, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.tasks.text.pieces import BEGIN, END, PAD

POOL = 256
"""Batches among which sentences are sorted: enough for each length to fill a few."""


def like_length_batches(
    shard: NDArray[np.int64],
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]],
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Endless full batches of indices; every pass over the shard is shuffled anew.

    `lengths` are those of all sources and all targets, by index. Each pass is cut into pools of
    `POOL` batches, whose sentences are sorted by length and whose batches are shuffled. The few
    that do not fill a batch go first in the next pass.

    Sources of one length are sorted by their targets' lengths, upwards if it is even and downwards
    if odd: so a batch in which one length ends and the next begins is of like targets, too.
    """
    left = shard[:0]
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(shard)])
        full = len(left) // batch_size
        for begin in range(0, full, POOL):
            pool = left[begin * batch_size : min(begin + POOL, full) * batch_size]
            source, target = (side[pool] for side in lengths)
            order = np.lexsort((np.where(source % 2, -target, target), source))
            yield from rng.permutation(pool[order].reshape(-1, batch_size))
        left = left[full * batch_size :]


def sources(sentences: Sequence[NDArray[np.uint16]]) -> Tensor:
    """Int64 ``[B, S]``: each with END behind it."""
    return _padded(sentences, begin=False)


def targets(sentences: Sequence[NDArray[np.uint16]]) -> Tensor:
    """Int64 ``[B, T + 1]``: each between BEGIN and END."""
    return _padded(sentences, begin=True)


def _padded(sentences: Sequence[NDArray[np.uint16]], *, begin: bool) -> Tensor:
    rows = np.full((len(sentences), begin + max(map(len, sentences)) + 1), PAD, np.int64)
    if begin:
        rows[:, 0] = BEGIN
    for row, sentence in zip(rows, sentences, strict=True):
        end = begin + len(sentence)
        row[begin:end] = sentence
        row[end] = END
    return torch.from_numpy(rows)
