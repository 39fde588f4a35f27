"""Whom a node asks next: the same choice in every driver, from (graph, seed, node) alone."""

from __future__ import annotations

from collections.abc import Callable

from swarmsgd.graphs.graph import Graph, matching_schedule
from swarmsgd.seeds import stream

Pick = Callable[[int, tuple[int, ...]], int | None]
"""Given the number of the burst and who can be asked, the partner to ask, or None."""


def random_partner(seed: int, node: int) -> Pick:
    """A uniform choice among the neighbours that can be asked (section 2)."""
    rng = stream("partners", seed, node)

    def pick(_burst: int, candidates: tuple[int, ...]) -> int | None:
        return candidates[int(rng.integers(len(candidates)))] if candidates else None

    return pick


def scheduled_partner(graph: Graph, seed: int, node: int) -> Pick:
    """The partner of a round, from a matching that every node draws alike."""

    def pick(burst: int, _candidates: tuple[int, ...]) -> int | None:
        for pair in matching_schedule(graph, seed, burst):
            if node in pair:
                return sum(pair) - node
        return None

    return pick
