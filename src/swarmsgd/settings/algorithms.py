"""The algorithms: SwarmSGD and what it is compared with. What makes them is in
`train.command.makers` (real) and `sim.command.makers` (virtual).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from swarmsgd.settings.options import options_of
from swarmsgd.settings.swarm import SwarmSettings


class _Entry(NamedTuple):
    help: str
    uses: tuple[str, ...] = ()
    """The settings of a swarm that it has too; titles and summaries name no others."""
    real: bool = False
    """Whether `swarmsgd train` has it; `simulate` has all."""


ALGORITHMS: Mapping[str, _Entry] = {
    "swarm": _Entry(
        "SwarmSGD: averages with random neighbours, in the background",
        tuple(name for name, option in options_of(SwarmSettings).items() if option.offered),
        real=True,
    ),
    "sgd": _Entry("small-batch SGD: one model sees all samples in sequence, nothing is sent"),
    "allreduce": _Entry("large-batch SGD: the mean of all gradients at every step", real=True),
    "local-sgd": _Entry(
        "Local SGD (Stich 2019): all models averaged every --local-steps", ("local_steps",)
    ),
    "d-psgd": _Entry("D-PSGD (Lian 2017): averages with all neighbours at every step", ("graph",)),
    "ad-psgd": _Entry(
        "AD-PSGD (Lian 2018): averages with one random neighbour a step, asynchronously",
        ("graph",),
    ),
    "sgp": _Entry("SGP (Assran 2019): push-sum to one peer of an exponential graph a step"),
    "osgp": _Entry("overlap SGP (Assran 2019): uses what was pushed a step before"),
    "a2cid2": _Entry(
        "A2CiD2 (Nabli 2023): random pairwise averages with a continuously mixed momentum",
        ("graph",),
    ),
    "diloco": _Entry(
        "DiLoCo (Douillard 2023): long --local-steps, outer Nesterov step", ("local_steps",)
    ),
    "noloco": _Entry(
        "NoLoCo (Kolehmainen 2025): DiLoCo with one random partner a round",
        ("graph", "local_steps"),
    ),
}
"""Name -> a line of help with its source, which settings it has, what can run it."""

REAL_ALGORITHMS: Mapping[str, _Entry] = {
    name: entry for name, entry in ALGORITHMS.items() if entry.real
}
"""Those that `swarmsgd train` has."""
