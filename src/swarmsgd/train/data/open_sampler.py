"""A sampler for nodes that come and go, without anybody who hands samples out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError
from swarmsgd.seeds import seed_for
from swarmsgd.train.data.walk import Walk

OWNERS_AT_ONCE = 4096
"""Places whose owners are computed at a time."""

Words = npt.NDArray[np.uint64]


class OpenSampler(Walk):
    """Every place of an epoch's permutation belongs to one of the nodes that live: to the one whose
    hash with the place is largest (rendezvous hashing, Thaler and Ravishankar 1998). All nodes walk
    through the places in the same order, so one who inherits skips what the dead one has done.

    `nodes` are the numbers of those that this node takes to be alive, itself included; set it when
    that changes, at any time. It holds from the next index that is drawn. Nodes are asked for
    nothing: as long as they agree on `nodes`, every sample is seen exactly once in an epoch. When a
    node dies, only its own samples are concerned, and of these only those between the place where
    it stopped and the place where the heir was when it heard of it: they are seen *never* in this
    epoch if the heir was ahead, *twice* if it was behind. An arrival takes its samples from all; of
    these those between its first place and the place where the former owner heard of it are seen
    never or twice in the same way. In the next epoch all is as it should be. (A loader's workers
    draw ahead: what they have drawn by then counts as passed.)

    Shares are equal on average only: N/n samples, give or take their square root. A node that
    arrives loads the state of another one; with that of the node that is furthest behind its
    arrival makes nothing be seen never, only twice.
    """

    def __init__(
        self, data: Sized | int, *, node: int, nodes: Iterable[int], seed: int = 0
    ) -> None:
        super().__init__(data, seed)
        self.node = whole("node", node, 0)
        self._next = 0
        self.nodes = nodes

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that share the samples."""
        return self._nodes

    @nodes.setter
    def nodes(self, nodes: Iterable[int]) -> None:
        found = tuple(sorted({whole("a node", node, 0) for node in nodes}))
        if self.node not in found:
            raise ConfigError(f"nodes are {list(found)}, wanted node {self.node} itself among them")
        self._nodes = found

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"next": self._next}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._next = state_dict["next"]

    def _begin_epoch(self) -> None:
        self._next = 0

    def _places(self) -> Iterator[int]:
        at = self._next
        while at < self.size:
            nodes, end = self._nodes, min(at + OWNERS_AT_ONCE, self.size)
            for place in self._owned(at, end):
                if self._nodes is not nodes:
                    break
                at = place + 1
                yield place
            else:
                at = end

    def _owned(self, start: int, end: int) -> list[int]:
        """Places from `start` to `end` that are this node's."""
        places = np.arange(start, end, dtype=np.uint64)
        keys = [seed_for("owners", self.seed, self.epoch, node, bits=64) for node in self._nodes]
        hashes = np.stack([_mixed(places ^ np.uint64(key)) for key in keys])
        owners = hashes.argmax(axis=0)
        return (start + np.flatnonzero(owners == self._nodes.index(self.node))).tolist()

    def _consumed(self, place: int, count: int) -> None:
        self._next = place + 1


def _mixed(words: Words) -> Words:
    """The end of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads every bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
