"""The algorithms that can be simulated: SwarmSGD and what it is compared with, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from swarmsgd.sim.baselines.a2cid2 import a2cid2
from swarmsgd.sim.baselines.a2cid2 import check as check_a2cid2
from swarmsgd.sim.baselines.ad_psgd import ad_psgd
from swarmsgd.sim.baselines.allreduce import allreduce
from swarmsgd.sim.baselines.d_psgd import d_psgd
from swarmsgd.sim.baselines.diloco import diloco
from swarmsgd.sim.baselines.local_sgd import local_sgd
from swarmsgd.sim.baselines.noloco import noloco
from swarmsgd.sim.baselines.push_sum import osgp, sgp
from swarmsgd.sim.baselines.sgd import Sgd
from swarmsgd.sim.config import SimConfig
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
    uses: frozenset[str]
    """The options of the swarm's that it has too; its summary names no others."""
    check: Callable[[SimConfig], None] = lambda _config: None
    """Raises ConfigError for a run that it cannot make."""


def _uses(*options: str) -> frozenset[str]:
    return frozenset(options)


ALGORITHMS: Mapping[str, Entry] = {
    "swarm": Entry(
        Swarm,
        "SwarmSGD: pairwise averages in the background; --mode, --bits, --graph",
        _uses("graph", "local_steps", "mode", "bits", "rotation"),
    ),
    "sgd": Entry(
        Sgd, "small-batch SGD: one model sees all samples in sequence, nothing is sent", _uses()
    ),
    "allreduce": Entry(
        allreduce, "large-batch SGD: the mean of all gradients at every step", _uses()
    ),
    "local-sgd": Entry(
        local_sgd,
        "Local SGD (Stich 2019): all models averaged every --local-steps",
        _uses("local_steps"),
    ),
    "d-psgd": Entry(
        d_psgd, "D-PSGD (Lian 2017): averages with all neighbours at every step", _uses("graph")
    ),
    "ad-psgd": Entry(
        ad_psgd,
        "AD-PSGD (Lian 2018): averages with one random neighbour a step, asynchronously",
        _uses("graph"),
    ),
    "sgp": Entry(
        sgp, "SGP (Assran 2019): push-sum to one peer of an exponential graph a step", _uses()
    ),
    "osgp": Entry(osgp, "overlap SGP (Assran 2019): uses what was pushed a step before", _uses()),
    "a2cid2": Entry(
        a2cid2,
        "A2CiD2 (Nabli 2023): random pairwise averages with a continuously mixed momentum",
        _uses("graph"),
        check_a2cid2,
    ),
    "diloco": Entry(
        diloco,
        "DiLoCo (Douillard 2023): long --local-steps, outer Nesterov step",
        _uses("local_steps"),
    ),
    "noloco": Entry(
        noloco,
        "NoLoCo (Kolehmainen 2025): DiLoCo with one random partner a round",
        _uses("graph", "local_steps"),
    ),
}
"""Name -> how to make it, a line of help with its source, and which options it has."""
