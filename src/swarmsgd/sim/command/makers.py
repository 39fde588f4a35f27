"""How the algorithms are made for a simulated run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from swarmsgd.sim.baselines.a2cid2 import a2cid2
from swarmsgd.sim.baselines.a2cid2 import check_a2cid2 as check_a2cid2
from swarmsgd.sim.baselines.ad_psgd import ad_psgd
from swarmsgd.sim.baselines.allreduce import allreduce
from swarmsgd.sim.baselines.d_psgd import d_psgd
from swarmsgd.sim.baselines.diloco import diloco
from swarmsgd.sim.baselines.local_sgd import local_sgd
from swarmsgd.sim.baselines.noloco import noloco
from swarmsgd.sim.baselines.push_sum import osgp, sgp
from swarmsgd.sim.baselines.sgd import Sgd
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet, Vector
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.sim.swarm.nodes import SwarmEngine


class Algorithm(Protocol):
    """How the nodes of a fleet train together. Made by an entry of `MAKERS`."""

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


class Maker(NamedTuple):
    """A line of `MAKERS`."""

    make: Callable[[Fleet, Ledger], Algorithm]
    check: Callable[[SimConfig], None] = lambda _config: None
    """Raises ConfigError for a run that it cannot make."""


MAKERS: Mapping[str, Maker] = {
    "swarm": Maker(SwarmEngine),
    "sgd": Maker(Sgd),
    "allreduce": Maker(allreduce),
    "local-sgd": Maker(local_sgd),
    "d-psgd": Maker(d_psgd),
    "ad-psgd": Maker(ad_psgd),
    "sgp": Maker(sgp),
    "osgp": Maker(osgp),
    "a2cid2": Maker(a2cid2, check_a2cid2),
    "diloco": Maker(diloco),
    "noloco": Maker(noloco),
}
"""Name in `swarmsgd.settings.algorithms.ALGORITHMS` -> how it is made here."""
