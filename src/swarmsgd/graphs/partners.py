"""Whom a node asks next: the same choice in every driver, from (graph, seed, node) alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from swarmsgd.graphs.graph import Graph, matching_schedule


def random_partner(rng: np.random.Generator) -> Callable[[tuple[int, ...]], int | None]:
    """A uniform choice among the neighbours that can be asked; `rng` is the node's "partners"."""

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
