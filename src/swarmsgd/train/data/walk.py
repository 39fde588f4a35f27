"""What both samplers are: a walk through a permutation, and an honest count of how far it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sized
from typing import Any

from torch.utils.data import DataLoader, Sampler

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError
from swarmsgd.seeds import stream
from swarmsgd.settings.swarm import LARGEST_SEED


class Walk(Sampler[int]):
    """Each epoch is one permutation of all samples, from (seed, epoch) alone; of its places
    0, 1, ... this node takes those that `_places` gives.

    Iterating begins at the first place that has not been *consumed* in this epoch, also after a
    loop that was left. A loader with workers draws indices long before the loop gets their
    samples, so what counts is not what was drawn but what `batches` handed out.
    """

    def __init__(self, data: Sized | int, seed: int = 0) -> None:
        size = data if isinstance(data, int) else len(data)
        self.size = whole("the number of samples", size, 1)
        self.seed = whole("seed", seed, 0, LARGEST_SEED)
        self.epoch = 0
        """The passes over the data that have ended."""
        self._drawn: deque[int] = deque()
        self._counts = False
        self._uncounted = False

    def __iter__(self) -> Iterator[int]:
        self._uncounted |= not self._counts
        permutation = stream("epochs", self.seed, self.epoch).permutation(self.size)
        drawn = self._drawn = deque()
        for place in self._places():
            drawn.append(place)
            yield int(permutation[place])

    def batches(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The batches that are left of this epoch; their samples count as consumed when they are
        handed out. At the end the next epoch begins.

        `loader` must have this sampler and a `batch_size`. Raises ConfigError otherwise.
        """
        own_batches = loader.batch_size is None and loader.batch_sampler is not None
        in_order = getattr(loader, "in_order", True)  # new in torch 2.6
        if loader.sampler is not self or own_batches or not in_order:
            raise ConfigError(
                "this loader has another sampler, a batch_sampler, or in_order=False: make it with "
                "DataLoader(data, batch_size=32, sampler=sampler), whose batches can be counted"
            )
        self._counts = True
        try:
            for batch in loader:
                taken = min(loader.batch_size or 1, len(self._drawn))
                last = [self._drawn.popleft() for _ in range(taken)][-1]
                self._consumed(last, taken)
                yield batch
        finally:
            self._counts = False
        self.epoch += 1
        self._begin_epoch()

    def state_dict(self) -> dict[str, Any]:
        """How far it came; for `swarm.save(sampler=...)`.

        Raises ConfigError if a loop went around `batches`: nobody knows then what it got.
        """
        if self._uncounted:
            raise ConfigError(
                "samples were drawn that nobody counted: loop over sampler.batches(loader), not "
                "over the loader, so that a checkpoint knows how far the loop came"
            )
        return {"size": self.size, "seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state. Raises ConfigError for one of other data or another seed."""
        for name, mine in (("size", self.size), ("seed", self.seed)):
            if state_dict[name] != mine:
                raise ConfigError(
                    f"the sampler's {name} is {mine}, in the checkpoint it is {state_dict[name]}: "
                    "make it with the same data and seed, or leave it out of load() (sampler=None)"
                )
        self.epoch = state_dict["epoch"]
        self._begin_epoch()

    def _places(self) -> Iterator[int]:
        """Of this node, in order, from the first that is not consumed."""
        raise NotImplementedError

    def _consumed(self, place: int, count: int) -> None:
        """The loop has `count` more; the last of them was at `place`."""
        raise NotImplementedError

    def _begin_epoch(self) -> None:
        """Nothing of this epoch is consumed."""
        raise NotImplementedError
