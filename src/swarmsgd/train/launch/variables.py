"""The environment variables that tell a node its place.

Each has two names. The standard one is what torchrun sets and what frameworks look at; our own,
with SWARMSGD_ in front, is looked at by `join` alone, and wins.
"""

from __future__ import annotations

from collections.abc import Mapping

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HOSTED = "TORCHELASTIC_USE_AGENT_STORE"
"""True if whoever started the nodes hosts the store at MASTER_ADDR and MASTER_PORT."""
KEY = "SWARMSGD_KEY"
"""The key file of the swarm."""
LISTEN = "SWARMSGD_LISTEN"
"""0 if nobody can dial the node: it is behind NAT or a firewall."""
RECORDS = "SWARMSGD_RECORDS"
"""The folder for the nodes' records, if their script names no file."""
SWARM = "SWARMSGD_SWARM"
"""HOST:PORT of the store of an open swarm."""
TRACKER = "SWARMSGD_TRACKER"
"""Set if that one hosts the nodes' meeting place too, and its store tells where."""
RUN = "TORCHELASTIC_RUN_ID"
"""Keeps runs apart that share one store. Not the count of restarts: each of torchrun's agents keeps
its own."""

OWN: Mapping[str, str] = {
    **{name: f"SWARMSGD_{name}" for name in (*PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE")},
    **{name: name.replace("TORCHELASTIC", "SWARMSGD") for name in (HOSTED, RUN)},
}
"""Standard name -> our own. A process with none of the standard ones is no part of anything to a
framework, which then starts no process group.
"""


def found(environment: Mapping[str, str], name: str) -> str | None:
    """The value under our own name of the standard `name`, else under that, else None."""
    return environment.get(OWN[name], environment.get(name))


def own_alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with all of these under our own names alone; those that are there stay."""
    theirs = {own: environment[name] for name, own in OWN.items() if name in environment}
    return theirs | {name: value for name, value in environment.items() if name not in OWN}


def is_place(name: str) -> bool:
    """Whether the variable says where a node is."""
    return name in OWN or name in OWN.values() or name in (TRACKER, SWARM)


def of_node(
    node: int, nodes: int, local: int, locals_: int, addr: str, port: int
) -> dict[str, str]:
    """What a launcher that hosts the store at `addr`:`port` sets for one node, by both names."""
    values = (node, nodes, addr, port, local, locals_, True)
    names = (*PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", HOSTED)
    both = {name: str(value) for name, value in zip(names, values, strict=True)}
    return both | own_alone(both) | {TRACKER: "True"}


def of_swarm(at: str, local: int, locals_: int) -> dict[str, str]:
    """What is set for a node of an open swarm, whose number only the store can tell."""
    values = {"LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(locals_)}
    return values | own_alone(values) | {SWARM: at}
