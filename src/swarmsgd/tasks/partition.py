"""Which training samples each node owns.

A partition is a function of (labels, num_nodes, seed) alone, so every process computes the same
one without talking. All shards have the same size, ``len(labels) // num_nodes``; no sample is in
two shards, and fewer than `num_nodes` samples are in none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from swarmsgd.checks import one_of
from swarmsgd.errors import ConfigError
from swarmsgd.seeds import stream

Indices = NDArray[np.int64]


class Partition(Protocol):
    """Splits samples over nodes."""

    def split(self, labels: NDArray[np.integer], num_nodes: int, seed: int) -> Indices:
        """The sample indices of each node, ``[num_nodes, len(labels) // num_nodes]``."""
        ...


@dataclass(frozen=True)
class Iid:
    """Equal shards of one seeded shuffle."""

    def split(self, labels: NDArray[np.integer], num_nodes: int, seed: int) -> Indices:
        size = _shard_size(len(labels), num_nodes)
        order = stream("data", seed).permutation(len(labels))
        return order[: num_nodes * size].reshape(num_nodes, size)


@dataclass(frozen=True)
class Dirichlet:
    """Label skew: each node has its own mix of classes, the more uneven the smaller `alpha`.

    After Hsu, Qi and Brown 2019 (arXiv 1909.06335): node i draws class proportions p_i from a
    Dirichlet distribution, with concentration `alpha` for each class if classes are balanced
    (``alpha * num_classes * class frequency`` in general), and fills its shard by them, without
    replacement. There, one node after another fills up and the last ones take what is left. Here
    all nodes draw at once, in rounds: where a class is asked for more often than it has samples,
    chance decides who is served, and those who were not draw again from the classes that are
    left. So no node is special, shards are equal, and each sample is used once.

    As `alpha` grows the shards become like those of `Iid`; with 10 classes a node's largest class
    is about 30 % of its shard at 1, 60 % at 0.1 and 90 % at 0.01.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ConfigError(
                f"dirichlet:{self.alpha:g} needs an alpha above 0; 0.1 is strong label skew, "
                "1 mild, 100 nearly none"
            )

    def split(self, labels: NDArray[np.integer], num_nodes: int, seed: int) -> Indices:
        size = _shard_size(len(labels), num_nodes)
        rng = stream("data", seed)
        _, classes, available = np.unique(labels, return_inverse=True, return_counts=True)
        concentration = self.alpha * len(available) * available / available.sum()
        wanted = rng.dirichlet(concentration, size=num_nodes)
        counts = _fill(wanted, available, size, rng)
        return _deal(classes, counts, rng)


@dataclass(frozen=True)
class Grouped:
    """Whole groups: samples of one label stay on one node, but where a shard is full.

    The labels, in an order that the seed draws, are laid end to end and cut into shards. So at most
    ``num_nodes - 1`` labels are on two nodes that follow each other, or on more if a label has more
    samples than a shard. If labels are classes this is the strongest skew there is with equal
    shards; if they are documents each node has texts of its own.
    """

    def split(self, labels: NDArray[np.integer], num_nodes: int, seed: int) -> Indices:
        size = _shard_size(len(labels), num_nodes)
        rng = stream("data", seed)
        found, label = np.unique(labels, return_inverse=True)
        place = rng.permutation(len(found))[label]
        order = np.argsort(place, kind="stable")[: num_nodes * size]
        return rng.permuted(order.reshape(num_nodes, size), axis=1)


def _fill(
    wanted: NDArray[np.float64], available: Indices, size: int, rng: np.random.Generator
) -> Indices:
    """How many samples of each class each node gets, ``[nodes, classes]``; rows sum to `size`.

    Each round fills every node or exhausts a class, so there are at most `classes` + 1 of them.
    """
    counts = np.zeros(wanted.shape, dtype=np.int64)
    left = available.astype(np.int64)
    while (need := size - counts.sum(axis=1)).any():
        asked = rng.multinomial(need, _renormalised(wanted, left))
        for c in np.flatnonzero(asked.sum(axis=0) > left):
            asked[:, c] = rng.multivariate_hypergeometric(asked[:, c], left[c], method="marginals")
        counts += asked
        left -= asked.sum(axis=0)
    return counts


def _renormalised(wanted: NDArray[np.float64], left: Indices) -> NDArray[np.float64]:
    """`wanted` over the classes that have samples left.

    A node that wanted none of these takes them as they come.
    """
    open_ = wanted * (left > 0)
    total = open_.sum(axis=1, keepdims=True)
    return np.where(total > 1e-200, open_ / np.maximum(total, 1e-200), left / left.sum())


def _deal(classes: Indices, counts: Indices, rng: np.random.Generator) -> Indices:
    """Deal each class's shuffled samples out by `counts`; each shard is shuffled, too."""
    nodes = np.arange(len(counts))
    dealt, owner = [], []
    for c, of_class in enumerate(counts.T):
        dealt.append(rng.permutation(np.flatnonzero(classes == c))[: of_class.sum()])
        owner.append(np.repeat(nodes, of_class))
    by_owner = np.argsort(np.concatenate(owner), kind="stable")
    shards = np.concatenate(dealt)[by_owner].reshape(len(counts), -1)
    return rng.permuted(shards, axis=1)


def _shard_size(samples: int, num_nodes: int) -> int:
    if not 1 <= num_nodes <= samples:
        raise ConfigError(
            f"{samples:,} samples cannot be split over {num_nodes:,} nodes: "
            f"every node needs at least one; use 1 to {samples:,} nodes"
        )
    return samples // num_nodes


class _Entry(NamedTuple):
    usage: str
    help: str
    make: Callable[[str], Partition]


def _plain(name: str, partition: Partition) -> Callable[[str], Partition]:
    """How to make what takes no argument."""

    def make(argument: str) -> Partition:
        if argument:
            raise ConfigError(
                f"partition {name!r} takes no argument, got '{name}:{argument}'; write {name!r}"
            )
        return partition

    return make


def _dirichlet(argument: str) -> Partition:
    try:
        alpha = float(argument)
    except ValueError:
        raise ConfigError(
            f"partition 'dirichlet' needs a number alpha, got {argument!r}; "
            "write for instance 'dirichlet:0.5'"
        ) from None
    return Dirichlet(alpha)


PARTITIONS = {
    "iid": _Entry("iid", "equal shards of one shuffle", _plain("iid", Iid())),
    "grouped": _Entry(
        "grouped",
        "whole classes or documents, cut only where a node's share ends",
        _plain("grouped", Grouped()),
    ),
    "dirichlet": _Entry("dirichlet:ALPHA", "label skew, stronger for smaller ALPHA", _dirichlet),
}
"""Name -> how it is spelled, a line of help, how to make it from what follows the colon."""


def parse_partition(text: str) -> Partition:
    """A partition from its spelling on the command line, ``NAME`` or ``NAME:ARGUMENT``.

    >>> parse_partition("dirichlet:0.5")
    Dirichlet(alpha=0.5)
    """
    name, _, argument = text.partition(":")
    return one_of("partition", name, PARTITIONS, text=text).make(argument)
