"""Training to a total of the whole swarm: fast nodes make more steps, all stop together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, TypeVar

import torch

from swarmsgd.checks import whole
from swarmsgd.core.progress import Progress
from swarmsgd.errors import ConfigError

AnyBatch = TypeVar("AnyBatch")


class Goal:
    """How far the swarm is on its way to a total, if there is one."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress or Progress()
        """What this node knows of the swarm's."""
        self._samples: int | None = None
        self._steps: int | None = None

    @property
    def share(self) -> float:
        """0 at the beginning, and as long as no total was given; 1 at the end."""
        total = self.progress.total()
        if self._samples is not None:
            return min(1.0, total.samples / self._samples)
        return 0.0 if self._steps is None else min(1.0, total.steps / self._steps)

    def aim(self, samples: int | None, steps: int | None) -> None:
        """Of all nodes together."""
        if (samples is None) == (steps is None):
            raise ConfigError("until() wants either samples or steps, of all nodes together")
        for name, value in (("samples", samples), ("steps", steps)):
            if value is not None:
                whole(name, value, 1)
        self._samples, self._steps = samples, steps

    def batches(
        self, loader: Iterable[AnyBatch], on_pass: Callable[[int], object]
    ) -> Iterator[AnyBatch]:
        """Those of `loader`, again and again, until the total is reached."""
        passes = 0
        while self.share < 1.0:
            any_batch = False
            on_pass(passes)
            for batch in loader:
                any_batch = True
                yield batch
                self.progress.made(0, size_of(batch))
                if self.share >= 1.0:
                    return
            passes += 1
            if not any_batch:
                raise ConfigError(
                    "the loader given to until() has no batch (any more): a generator can be gone "
                    "through once, give a DataLoader or a list"
                )


def size_of(batch: Any) -> int:
    """How many samples a batch has: the first length that is found in it."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        return size_of(next(iter(batch.values()))) if batch else 0
    if isinstance(batch, list | tuple):
        first: Any = batch[0] if batch else None
        return size_of(first) if isinstance(first, torch.Tensor | list | tuple) else len(batch)
    return len(batch) if isinstance(batch, Sized) else 1


def set_epoch(loader: Any) -> Callable[[int], object]:
    """Tells the loader's sampler which pass begins, if it wants to know."""
    tell = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    return tell if callable(tell) else lambda _: None
