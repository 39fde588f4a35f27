"""The environment variables that tell a node its place.

Each has two names. The standard one is what torchrun sets and what frameworks look at; our own,
with SWARMSGD_ in front, is looked at by `join` alone, and wins.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarmsgd.errors import ConfigError

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
HOSTED = "TORCHELASTIC_USE_AGENT_STORE"
"""True if whoever started the nodes hosts the store at MASTER_ADDR and MASTER_PORT."""
KEY = "SWARMSGD_KEY"
"""The key file of the swarm."""
AGAIN = "SWARMSGD_AGAIN"
"""Set in a process that the launcher has started in place of one that failed."""
LISTEN = "SWARMSGD_LISTEN"
"""0 if nobody can dial the node: it is behind NAT or a firewall."""
RECORDS = "SWARMSGD_RECORDS"
"""The folder for the nodes' records, if their script names no file."""
SWARM = "SWARMSGD_SWARM"
"""HOST:PORT of the store of an open swarm."""
TRACKER = "SWARMSGD_TRACKER"
"""Set if that one hosts the nodes' meeting place too, and its store tells where."""
RUN_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Keeps runs apart that share one store. Not the count of restarts: each of torchrun's agents keeps
its own."""

OWN: Mapping[str, str] = {
    **{name: f"SWARMSGD_{name}" for name in (*PLACE, "LOCAL_RANK", "LOCAL_WORLD_SIZE")},
    **{name: name.replace("TORCHELASTIC", "SWARMSGD") for name in (HOSTED, RUN_VARIABLE)},
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


def check_numbers(
    nodes: int, hosts: int, host_index: int, master_addr: str, master_port: int
) -> None:
    """Of a launcher. Raises ConfigError for those that make no sense."""
    if nodes < 1:
        raise ConfigError(f"the number of nodes is {nodes}, wanted at least 1")
    if hosts < 1:
        raise ConfigError(f"the number of hosts is {hosts}, wanted at least 1")
    if not 0 <= host_index < hosts:
        raise ConfigError(
            f"the host index is {host_index}, wanted 0 to {hosts - 1}: each of {hosts} hosts runs "
            "the launcher with its own"
        )
    if not 0 <= master_port < 1 << 16:
        raise ConfigError(f"the master port is {master_port}, wanted 0 to 65535")
    if hosts > 1 and master_port == 0:
        raise ConfigError(
            "several hosts need a --master-port that all know; give the same free one on each"
        )
    if hosts > 1 and master_addr in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"several hosts cannot meet at {master_addr}: as --master-addr give each of them the "
            "address at which the others reach host 0"
        )
