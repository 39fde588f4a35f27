"""A burst: the local steps between two exchanges."""

from __future__ import annotations

from typing import Protocol, TypeVar

Rng = TypeVar("Rng", contravariant=True)


class Lengths(Protocol[Rng]):
    """What burst lengths are drawn from: H, fixed or random."""

    def draw(self, rng: Rng, /) -> int:
        """The length of the next burst in local steps, at least 1."""
        ...


class Burst:
    """Counts the local steps of the burst that goes on.

    A burst that is `due` ends when its model is published, and goes on until it can be: H grows on
    a slow link.
    """

    __slots__ = ("_lengths", "_rng", "length", "made")

    def __init__(self, lengths: Lengths[Rng], rng: Rng) -> None:
        self._lengths = lengths
        self._rng = rng
        self.made = 0
        """Local steps made in it so far."""
        self.length = lengths.draw(rng)
        """Local steps after which it is due."""

    @property
    def due(self) -> bool:
        """Whether it may end now."""
        return self.made >= self.length

    def next(self) -> None:
        """This one was published: the next one begins."""
        self.made = 0
        self.length = self._lengths.draw(self._rng)
