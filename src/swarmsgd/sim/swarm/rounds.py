"""The matching of a round, drawn once for all virtual nodes."""

from __future__ import annotations

from collections.abc import Callable

from swarmsgd import graphs


class Rounds:
    """Who is whose partner in which round of matching mode."""

    def __init__(self, graph: graphs.Graph, seed: int) -> None:
        self._graph = graph
        self._seed = seed
        self._rounds: dict[int, dict[int, int]] = {}

    def partner_of(self, rank: int) -> Callable[[int], int | None]:
        """Of one node, as its machine asks for it."""
        return lambda round: self._partners(round).get(rank)

    def _partners(self, round: int) -> dict[int, int]:
        found = self._rounds.get(round)
        if found is None:
            pairs = graphs.matching_schedule(self._graph, self._seed, round)
            found = {i: j for pair in pairs for i, j in (pair, pair[::-1])}
            self._rounds[round] = found
            self._rounds.pop(round - 64, None)
        return found
