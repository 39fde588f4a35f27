"""Which node this process is, and where the others meet: from arguments or the environment."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from swarmsgd.errors import ConfigError
from swarmsgd.train.launch import variables

MOVE = (
    "pass rank, num_nodes, master_addr and master_port to join(), or start with `swarmsgd launch "
    "-n 4 script.py`"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which node this is, and where the store is."""

    rank: int
    num_nodes: int
    host: str
    port: int
    hosted: bool
    """Whether somebody else (a launcher, torchrun's agent) hosts the store; else node 0 does."""
    run_name: str = "run"
    """Keeps runs apart that share one store."""
    open: bool = False
    """An open swarm: no list of nodes, and the store gives out their numbers."""

    @classmethod
    def find(
        cls,
        environment: Mapping[str, str],
        *,
        rank: int | None = None,
        num_nodes: int | None = None,
        master_addr: str | None = None,
        master_port: int | None = None,
        swarm: str | None = None,
    ) -> Place | None:
        """From the arguments, else the SWARMSGD_ variables, else the standard ones, else those of
        Slurm or MPI (`cluster`); None if none of them says anything: one node.

        Raises ConfigError for a part that is missing or makes no sense.
        """
        given = (rank, num_nodes, master_addr, master_port)
        if swarm is not None or all(each is None for each in given):
            at = swarm or environment.get(variables.SWARM)
            if at:
                return cls.of_swarm(at, named=any(each is not None for each in given))
        values: dict[str, str] = {}
        for name, value in zip(variables.PLACE, given, strict=True):
            text = variables.found(environment, name) if value is None else str(value)
            if text is not None:
                values[name] = text
        task: dict[str, str] = {}
        if "RANK" not in values and "WORLD_SIZE" not in values:
            task = cluster(environment)
            values = task | values
        if "RANK" not in values and "WORLD_SIZE" not in values:
            return None
        if values.get("WORLD_SIZE") == "1" and "MASTER_ADDR" not in values:
            return None
        missing = [name for name in variables.PLACE if name not in values]
        if missing:
            if task:
                raise ConfigError(
                    f"this is task {task['RANK']} of {task['WORLD_SIZE']} of one job, but "
                    f"{' and '.join(missing)} must say where they meet: set both to the host of "
                    "task 0 and a free port for all tasks, or pass num_nodes=1 to train alone"
                )
            raise ConfigError(f"{', '.join(missing)} not set, but {', '.join(values)} is: {MOVE}")
        rank_, num_nodes_ = (_whole(name, values[name]) for name in ("RANK", "WORLD_SIZE"))
        if not 0 <= rank_ < num_nodes_:
            raise ConfigError(f"rank is {rank_}, wanted 0 to {num_nodes_ - 1} (num_nodes - 1)")
        return cls(
            rank_,
            num_nodes_,
            _address(values["MASTER_ADDR"]),
            _port(values["MASTER_PORT"]),
            hosted=_is_hosted(environment, values["MASTER_ADDR"], values["MASTER_PORT"]),
            run_name=variables.found(environment, variables.RUN_VARIABLE) or "run",
        )

    @classmethod
    def of_swarm(cls, at: str, *, named: bool = False) -> Place:
        """Of an open swarm whose store is at HOST:PORT; /NAME behind it keeps swarms of one store
        apart. Raises ConfigError.
        """
        if named:
            raise ConfigError(
                f"an open swarm ({at}) gives out the numbers of its nodes: leave rank, num_nodes, "
                "master_addr and master_port away"
            )
        where, _, name = at.partition("/")
        host, colon, port = where.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ConfigError(
                f"the swarm is {at!r}, wanted HOST:PORT of a `swarmsgd store`, for instance "
                "10.0.0.1:29500"
            )
        return cls(
            -1, 0, _address(host), int(port), hosted=False, run_name=name or "swarm", open=True
        )


def own_place(rank: int | None = None, num_nodes: int | None = None) -> tuple[int, int]:
    """Rank and number of nodes, from the arguments or the environment as for `join`; (0, 1) if
    neither says anything. Raises ConfigError as `Place.find`.
    """
    anywhere = {"master_addr": "127.0.0.1", "master_port": 1}
    place = Place.find(os.environ, rank=rank, num_nodes=num_nodes, **anywhere)
    return (0, 1) if place is None else (place.rank, place.num_nodes)


def shall_listen(given: bool | None) -> bool:
    """Whether others can dial this node: from the argument, else SWARMSGD_LISTEN, else yes. Raises
    ConfigError.
    """
    text = os.environ.get(variables.LISTEN, "1")
    if given is None and text not in ("0", "1"):
        raise ConfigError(
            f"{variables.LISTEN} is {text!r}, wanted 0 (nobody can dial this node) or 1"
        )
    return text == "1" if given is None else given


def _is_hosted(environment: Mapping[str, str], addr: str, port: str) -> bool:
    """Whether the environment names a store at this address that somebody else hosts; the
    arguments of `join` may have named the same one, or another.
    """
    names = (variables.HOSTED, "MASTER_ADDR", "MASTER_PORT")
    both = (names, [variables.OWN[name] for name in names])
    return ["True", addr, port] in [[environment.get(n) for n in each] for each in both]


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, wanted a whole number") from None


def _port(text: str) -> int:
    port = _whole("MASTER_PORT", text)
    if not 1 <= port <= 65535:
        raise ConfigError(f"MASTER_PORT is {port}, wanted 1 to 65535")
    return port


def _address(text: str) -> str:
    """A name or an address, and nothing around it."""
    if re.fullmatch(r"[\w.-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%\w+)?", text) and not re.fullmatch(
        r"[^:]+:\d+", text
    ):
        return text
    raise ConfigError(
        f"MASTER_ADDR is {text!r}, wanted a name or an address of the host where node 0 (or the "
        "launcher) is, for instance 10.0.0.1, without scheme or port"
    )


# Starters that set variables of their own.

PORTS = range(20000, 30000)
"""Where the nodes of a job meet whose starter names no port."""


def cluster(environment: Mapping[str, str]) -> dict[str, str]:
    """RANK, WORLD_SIZE and, where they can be told, MASTER_ADDR and MASTER_PORT of a task that
    Slurm's srun or an mpirun started beside others; nothing for any other process.
    """
    if _count(environment, "SLURM_STEP_NUM_TASKS") > 1:
        first = first_host(environment.get("SLURM_STEP_NODELIST", ""))
        job = f"{environment.get('SLURM_JOB_ID')}.{environment.get('SLURM_STEP_ID')}"
        return _task(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", first, job)
    if _count(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        size = environment["OMPI_COMM_WORLD_SIZE"]
        alone = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == size
        job = environment.get("PMIX_NAMESPACE", environment.get("OMPI_MCA_ess_base_jobid", ""))
        host = "127.0.0.1" if alone else None
        return _task(environment, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", host, job)
    if _count(environment, "PMI_SIZE") > 1:  # MPICH and its kin say nothing of hosts
        return _task(environment, "PMI_RANK", "PMI_SIZE", None, "")
    return {}


def _task(
    environment: Mapping[str, str], rank: str, size: str, host: str | None, job: str
) -> dict[str, str]:
    values = {"RANK": environment.get(rank, ""), "WORLD_SIZE": environment[size]}
    if host is not None:
        port = PORTS[zlib.crc32(job.encode()) % len(PORTS)]
        values |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    return values


def _count(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0


def first_host(hosts: str) -> str | None:
    """The first of a list of hosts as Slurm writes it; None for an empty one.

    >>> first_host("gpu[07-09,12],cpu1"), first_host("n1,n2"), first_host("a[1-2]b[03-04]")
    ('gpu07', 'n1', 'a1b03')
    """
    found = re.match(r"(?:[^,\[]|\[[^\]]*\])+", hosts)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", found[0]) if found else None
