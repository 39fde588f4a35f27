"""Whom a node asks next: the same choice in every driver, from (graph, seed, node) alone."""

from __future__ import annotations

from collections.abc import Callable

from swarmsgd.graphs.graph import Graph, matching_schedule
from swarmsgd.seeds import stream


def random_partner(seed: int, node: int) -> Callable[[tuple[int, ...]], int | None]:
    """A uniform choice among the neighbours that can be asked."""
    rng = stream("partners", seed, node)

    def pick(candidates: tuple[int, ...]) -> int | None:
        return candidates[int(rng.integers(len(candidates)))] if candidates else None

    return pick


def scheduled_partner(graph: Graph, seed: int, node: int) -> Callable[[int], int | None]:
    """The partner of a round, from a matching that every node draws alike."""

    def partner_of(round: int) -> int | None:
        for pair in matching_schedule(graph, seed, round):
            if node in pair:
                return sum(pair) - node
        return None

    return partner_of
