"""Graphs from text, as the command line gives them: "ring", "torus:4x8", "random-regular:4"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarmsgd.checks import one_of, whole
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import builders
from swarmsgd.graphs.graph import Graph


@dataclass(frozen=True)
class GraphKind:
    """A line of `GRAPHS`: how a kind of graph is spelled, what it is, how it is built."""

    usage: str
    help: str
    build: Callable[..., Graph]  # of (number of nodes, *values after the colon, seed if seeded)
    values: tuple[Callable[[str], float], ...] = ()  # what reads each value; between them an x
    optional: bool = False  # the values may be left out
    seeded: bool = False


def _torus(n: int, rows: int | None = None, cols: int | None = None) -> Graph:
    n = whole("the number of nodes", n, 1, move="give one node per process, for example 16")
    if rows is None or cols is None:
        rows = max(side for side in range(1, math.isqrt(n) + 1) if n % side == 0)
        cols = n // rows
    if rows * cols != n:
        raise ConfigError(
            f"torus:{rows}x{cols} has {rows * cols} nodes, wanted {n}; give sides whose product is "
            f"{n}, or just torus for the most square one"
        )
    return builders.torus(rows, cols)


_KINDS = (
    GraphKind("complete", "every node beside every other", builders.complete),
    GraphKind("ring", "each node beside two others", builders.ring),
    GraphKind("torus[:ROWSxCOLS]", "grid with joined borders", _torus, (int, int), optional=True),
    GraphKind(
        "hypercube", "neighbours differ in one bit; nodes a power of two", builders.hypercube
    ),
    GraphKind("exponential", "node i beside i +- 1, 2, 4, 8, ...", builders.exponential),
    GraphKind(
        "one-peer-exponential",
        "exponential; in matching mode, fixed rounds; nodes a power of two",
        builders.one_peer_exponential,
    ),
    GraphKind(
        "random-regular:DEGREE",
        "random, equal degrees",
        builders.random_regular,
        (int,),
        seeded=True,
    ),
    GraphKind(
        "erdos-renyi:P",
        "each pair with probability P",
        builders.erdos_renyi,
        (float,),
        seeded=True,
    ),
    GraphKind(
        "cycles:DEGREE",
        "random cycles, two neighbours in each; also where nodes come and go",
        builders.cycles,
        (int,),
        seeded=True,
    ),
    GraphKind("star", "node 0 beside all others", builders.star),
)
GRAPHS: Mapping[str, GraphKind] = {
    kind.usage.partition(":")[0].rstrip("["): kind for kind in _KINDS
}


def parse(name: str, num_nodes: int, seed: int = 0) -> Graph:
    """The graph that text such as "ring", "torus:4x8" or "random-regular:4" names; see `GRAPHS`.

    Only the random kinds use the seed. One node alone has no neighbours in any of them.
    """
    key, colon, text = name.strip().lower().replace("_", "-").partition(":")
    kind = one_of("graph", key, GRAPHS, text=name)
    words = text.split("x") if colon else []
    try:
        if len(words) != len(kind.values) and (words or not kind.optional):
            raise ValueError
        values = [value(word) for value, word in zip(kind.values, words, strict=False)]
    except ValueError:
        move = "put numbers for the capitals" if kind.values else "drop the colon and the rest"
        text = f"the graph {name!r} cannot be read, wanted {kind.usage}; {move}"
        raise ConfigError(text) from None
    if num_nodes == 1:
        return builders.complete(1)
    return kind.build(num_nodes, *values, *([seed] if kind.seeded else []))
