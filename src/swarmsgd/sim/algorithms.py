"""The algorithms that can be simulated: SwarmSGD and what it is compared with, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from swarmsgd.sim.fleet import Fleet, Vector
from swarmsgd.sim.ledger import Ledger
from swarmsgd.sim.swarm import Swarm


class Algorithm(Protocol):
    """How the nodes of a fleet train together. Made by an entry of `ALGORITHMS`."""

    def run(self) -> Iterator[float]:
        """Train until the budget is used up. Yields the virtual time, in seconds, after every
        piece of progress; between two of them the methods below may be called.
        """
        ...

    def live(self) -> list[int]:
        """The nodes that take part now."""
        ...

    def models(self) -> Vector:
        """[live, D] what each live node would use as its model now; a new array or a view."""
        ...

    def tally(self) -> None:
        """Bring the ledger up to date."""
        ...


class Entry(NamedTuple):
    """A line of `ALGORITHMS`."""

    make: Callable[[Fleet, Ledger], Algorithm]
    help: str


ALGORITHMS: Mapping[str, Entry] = {
    "swarm": Entry(Swarm, "SwarmSGD: pairwise averages in the background; --mode, --bits, --graph"),
}
"""Name -> how to make it, and a line of help with its source."""
