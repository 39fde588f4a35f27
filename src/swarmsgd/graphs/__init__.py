"""Communication graphs: who may exchange with whom, and how fast that mixes.

>>> ring(8)
<Graph ring(8): 8 nodes, 8 edges, degree 2, lambda_2 0.5858>

Graphs are values: undirected, connected, nodes 0..n-1, the same on every machine that builds them
from the same arguments (random ones: with the same numpy and networkx). To add a kind: a function
in `builders`, and a line in the table of `kinds`, which `parse` reads. `partners` chooses whom a
node asks, `spectrum` has the eigenvalues.
"""

from __future__ import annotations

from swarmsgd.graphs.builders import (
    complete,
    cycles,
    erdos_renyi,
    exponential,
    from_edges,
    from_networkx,
    hypercube,
    one_peer_exponential,
    random_regular,
    reachable,
    ring,
    star,
    torus,
)
from swarmsgd.graphs.changing import LiveGraph
from swarmsgd.graphs.graph import Edge, Graph, gamma_of, matching_schedule
from swarmsgd.graphs.kinds import GRAPHS, GraphKind, parse
from swarmsgd.graphs.partners import random_partner, scheduled_partner

__all__ = [
    "GRAPHS",
    "Edge",
    "Graph",
    "GraphKind",
    "LiveGraph",
    "complete",
    "cycles",
    "erdos_renyi",
    "exponential",
    "from_edges",
    "from_networkx",
    "gamma_of",
    "hypercube",
    "matching_schedule",
    "one_peer_exponential",
    "parse",
    "random_partner",
    "random_regular",
    "reachable",
    "ring",
    "scheduled_partner",
    "star",
    "torus",
]
