"""Graphs over nodes that come and go: each node works out its own neighbours, from who lives."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence

from swarmsgd.checks import whole
from swarmsgd.errors import ConfigError


class Cycles:
    """A union of `degree` / 2 cycles through all live ids, each in an order of its own: an expander
    with high probability (Law and Siu 2003), whose degrees are at most `degree`.

    A cycle's order is that of a hash of (seed, cycle, id), so all nodes find the same one; if a
    node comes or goes only those beside it, two a cycle, have others beside them than before.

    >>> cycles = Cycles(4, seed=0, ids=range(100))
    >>> before = cycles.neighbours(7)
    >>> len(before) <= 4 and all(7 in cycles.neighbours(peer) for peer in before)
    True
    """

    def __init__(self, degree: int, seed: int, ids: Iterable[int] = ()) -> None:
        move = "an even number, for two neighbours in each cycle"
        whole("the degree of cycles", degree, 2, move=move)
        if degree % 2:
            raise ConfigError(f"the degree of cycles is {degree}, wanted {move}")
        self.name = f"cycles:{degree}"
        self.degree = degree
        self._seed = seed
        live = list(ids)
        self._orders = [sorted(self._key(c, id) for id in live) for c in range(degree // 2)]

    def _key(self, cycle: int, id: int) -> tuple[bytes, int]:
        text = f"{self._seed} {cycle} {id}".encode()
        return hashlib.blake2b(text, digest_size=8).digest(), id

    @property
    def gamma_factor(self) -> float:
        """As `Graph.gamma_factor` has it, with the eigenvalues that a random graph of that degree d
        has in the limit of many nodes: their mean inverse is (d - 1) / d (d - 2) (Kesten 1959,
        McKay 1981).
        """
        n, d = len(self._orders[0]), self.degree
        if n <= d + 1:
            return (n - 1) / 2
        trace = n * (n * n - 1) / 12 if d == 2 else n * n * (d - 1) / (2 * (d - 2))
        return trace / (2 * (n - 1)) + (n - 1) / 4

    def add(self, id: int) -> None:
        """A node is live."""
        for cycle, order in enumerate(self._orders):
            insort(order, self._key(cycle, id))

    def remove(self, id: int) -> None:
        """It is so no more."""
        for cycle, order in enumerate(self._orders):
            del order[bisect_left(order, self._key(cycle, id))]

    def neighbours(self, id: int) -> tuple[int, ...]:
        """In rising order; of a node that does not live, those that it would have."""
        found: set[int] = set()
        for cycle, order in enumerate(self._orders):
            key = self._key(cycle, id)
            at = bisect_left(order, key)
            after = at + (at < len(order) and order[at] == key)
            if order:
                found |= {order[at - 1][1], order[after % len(order)][1]}
        return tuple(sorted(found - {id}))


class LiveGraph:
    """The neighbours of one node, as those that live change.

    Hidden nodes are those that nobody can dial. The cycles go through the others; a hidden node
    has the neighbours that it would have in them.
    """

    def __init__(self, name: str, seed: int, node: int) -> None:
        kind, _, degree = name.partition(":")
        if kind not in ("cycles", "complete") or (kind == "complete") == bool(degree):
            raise ConfigError(
                f"the graph {name!r} is one of a fixed list of nodes; where nodes come and go it "
                'is "cycles:8", a random graph of that degree over those that live, or "complete"'
            )
        if kind == "cycles" and not degree.isdecimal():
            raise ConfigError(f"the graph {name!r} cannot be read, wanted for instance cycles:8")
        self.name = name
        self._node = node
        self._cycles = Cycles(int(degree), seed) if degree else None
        self._live: set[int] = {node}
        self._on_cycles: set[int] = set()
        self._follow({node})

    @property
    def num_nodes(self) -> int:
        """How many nodes live, this one included."""
        return len(self._live)

    @property
    def gamma_factor(self) -> float:
        """As `Graph.gamma_factor` has it, hidden nodes left out."""
        return (self.num_nodes - 1) / 2 if self._cycles is None else self._cycles.gamma_factor

    def neighbours(self, live: Iterable[int], hidden: Collection[int] = ()) -> Sequence[int]:
        """This node's, if these and it are all that live, of whom some are `hidden`."""
        me, cycles = self._node, self._cycles
        self._live = {me, *live}
        apart = self._live.intersection(hidden)
        self._follow(self._live - apart)
        if cycles is None:
            return sorted(self._on_cycles - {me} if me in apart else self._live - {me})
        mine = set(cycles.neighbours(me))
        if me not in apart:
            mine |= {id for id in apart if me in cycles.neighbours(id)}
        return sorted(mine)

    def _follow(self, now: set[int]) -> None:
        if self._cycles is not None:
            for id in now - self._on_cycles:
                self._cycles.add(id)
            for id in self._on_cycles - now:
                self._cycles.remove(id)
        self._on_cycles = now
