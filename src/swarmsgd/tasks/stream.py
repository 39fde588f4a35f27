"""The order in which a node goes through its shard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from swarmsgd.seeds import stream


def node_generator(seed: int, node: int) -> np.random.Generator:
    """The generator of one node's data; nodes of a run and runs of a node are independent."""
    return stream("order", seed, node)


def index_batches(
    shard: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Endless full batches of indices; every pass over the shard is shuffled anew.

    Each pass has every sample exactly once. A batch may end one pass and begin the next, so
    nothing is dropped and a shard may be smaller than a batch.
    """
    left = shard[:0]
    while True:
        while len(left) < batch_size:
            left = np.concatenate([left, rng.permutation(shard)])
        yield left[:batch_size]
        left = left[batch_size:]
