"""Every random stream of a run, by name.

A stream is numpy's generator of (seed of the run, number of its name, ids), so no two names draw
the same numbers, nor two nodes. numpy fills up with zeros: an id that is left out is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

STREAMS: Mapping[str, int] = {
    "data": 0,  # how samples lie on the nodes, or where the nodes' optima are
    "order": 1,  # (node) the order in which a node goes through its samples
    "partners": 2,  # (node) whom a node asks
    "speeds": 3,  # how fast each simulated node is
    "jitter": 4,  # (node, life) how long each of its steps takes
    "lengths": 5,  # (0, or 1 + node) how long bursts are: of all nodes alike, or of one
    "counts": 6,  # how many averages a node of A2CiD2 takes part in
    "matching": 7,  # (round) who is paired with whom
    "pattern": 8,  # (node) what the checks of a transport send
    "epochs": 13,  # (epoch) the order in which the nodes of a script go through all samples
    "chaos": 14,  # what fails in a launch, and when
    "crops": 12,  # (node, position) what is cut out of an image that a node trains on
}
"""Name -> number. A number once used stays: recorded figures hang on it."""

NUMBERS: Mapping[str, tuple[int, ...]] = {
    "graph": (),  # (attempt, below 100) networkx's generator of a random graph
    "owners": (2000,),  # (epoch, node) which samples are a node's, where nodes come and go
    "torch": (1000,),  # (node) torch's global one in a process of `swarmsgd train`
}
"""Generators of other libraries, which are seeded with one whole number: name -> constants that go
into it between the run's seed and the ids.
"""


def stream(name: str, seed: int, *ids: int) -> np.random.Generator:
    """The stream `name` (of `STREAMS`) of a run, from its beginning."""
    return np.random.default_rng([seed, STREAMS[name], *ids])


def seed_for(name: str, seed: int, *ids: int, bits: int = 32) -> int:
    """The number to seed another's generator with, a name of `NUMBERS`; 32 or 64 bits long."""
    sequence = np.random.SeedSequence([seed, *NUMBERS[name], *ids])
    return int(sequence.generate_state(1, np.uint64 if bits == 64 else np.uint32)[0])


def fixed() -> np.random.Generator:
    """A stream that is the same in every run, whatever its seed: for how a data set is split into
    training and test samples, and for which training samples are scored.
    """
    return np.random.default_rng(0)
