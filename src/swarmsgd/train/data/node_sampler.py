"""A sampler for a run whose nodes stay the same."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

from swarmsgd.errors import ConfigError
from swarmsgd.train.data.walk import Walk
from swarmsgd.train.meet.place import own_place


class NodeSampler(Walk):
    """Equal shares for all nodes: of n nodes number r takes the places r, r + n, r + 2 n, ... of
    the epoch's permutation.

    No sample is seen twice in an epoch; fewer than n are left out in it, others in each. Who this
    node is comes from the arguments, else from the environment, as for `join`. When its state is
    loaded by another number of nodes, these share what is left of the epoch.

    >>> from torch.utils.data import DataLoader
    >>> sampler = NodeSampler(range(10), num_nodes=2, rank=0)
    >>> loader = DataLoader(range(10), batch_size=2, sampler=sampler)
    >>> [len(batch) for batch in sampler.batches(loader)]
    [2, 2, 1]
    """

    def __init__(
        self,
        data: Sized | int,
        *,
        num_nodes: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(data, seed)
        self.rank, self.num_nodes = own_place(rank, num_nodes)
        if self.size < self.num_nodes:
            raise ConfigError(
                f"{self.size} samples for {self.num_nodes} nodes: wanted one for each at least"
            )
        self._begin_epoch()

    def __len__(self) -> int:
        """Samples of this node that are left in this epoch."""
        return (self.size - self._start) // self.num_nodes - self._taken

    def state_dict(self) -> dict[str, Any]:
        shares = {"num_nodes": self.num_nodes, "start": self._start, "taken": self._taken}
        return super().state_dict() | shares

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._start, self._taken = state_dict["start"], state_dict["taken"]
        nodes = state_dict["num_nodes"]
        if nodes != self.num_nodes:
            self._start, self._taken = self._start + nodes * self._taken, 0

    def _begin_epoch(self) -> None:
        self._start = 0
        """The place from which on these nodes share the epoch."""
        self._taken = 0
        """What this node consumed since."""

    def _places(self) -> Iterator[int]:
        first = self._start + self.rank + self._taken * self.num_nodes
        return (first + self.num_nodes * at for at in range(len(self)))

    def _consumed(self, place: int, count: int) -> None:
        self._taken += count
