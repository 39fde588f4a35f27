"""The commands that start nodes and what they need: `swarmsgd launch`, `store` and `keygen`."""

from __future__ import annotations

import argparse
import importlib.machinery
import os
import sys
from pathlib import Path
from typing import Any

from swarmsgd.epilogs import LAUNCH_EPILOG
from swarmsgd.errors import ConfigError


def launch_command(arguments: list[str]) -> int:
    """The command `swarmsgd launch`; its exit code."""
    from swarmsgd.flags import Parser

    parser = Parser(
        "launch",
        arguments,
        description="Run a Python script as several nodes on this host.",
        epilog=LAUNCH_EPILOG,
        usage="swarmsgd launch [options] SCRIPT [ARGUMENTS ...]\n"
        "       swarmsgd launch [options] -m MODULE [ARGUMENTS ...]",
    )
    add = parser.add_argument

    def named(*names: str, **shape: Any) -> None:
        """An option, by torchrun's names too, and these as torchrun also has them, with _."""
        also = {f"--{name[2:].replace('-', '_')}" for name in names if name.startswith("--")}
        add(*names, *sorted(also - set(names)), **shape)

    from swarmsgd.train.launch.launcher import GRACE_S

    named("-n", "--nodes", "--nproc-per-node", type=int, required=True, help="nodes on this host")
    named("--hosts", "--nnodes", type=int, default=1,
          help="hosts of the run, with -n nodes each (default: 1)")  # fmt: skip
    named("--host-index", "--node-rank", type=int, default=0,
          help="which host this is, from 0 (default: 0)")  # fmt: skip
    named("--master-addr", help="address of host 0 (default: this machine's loopback)")
    named("--master-port", type=int, default=0, help="port of the store (default: a free one)")
    add("--address", metavar="ADDRESS|INTERFACE",
        help="where others reach the nodes of this host (default: the address that routes to host "
        "0)")  # fmt: skip
    add("--grace", type=float, default=GRACE_S, metavar="S",
        help="seconds from SIGTERM to SIGKILL when the run is ended (default: 30)")  # fmt: skip
    add(
        "--standard-env",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="set RANK, WORLD_SIZE, ... beside SWARMSGD_RANK, ...; not for scripts whose framework "
        "would start a DDP then (default: set)",
    )
    add("--key", type=Path, help="key file of the swarm, as SWARMSGD_KEY (default: no encryption)")
    add(
        "--no-listen",
        dest="listen",
        action="store_false",
        help="nobody can dial the nodes of this host (NAT, a firewall): they only dial out",
    )
    add("--swarm", metavar="HOST:PORT",
        help="add the nodes to the open swarm whose `swarmsgd store` is there")  # fmt: skip
    named("--restart", "--max-restarts", type=int, default=0, metavar="K",
          help="start a node that failed again, up to K times (default: 0)")  # fmt: skip
    add("--chaos", metavar="EVENTS",
        help='make nodes fail: "kill:3@20 stop:2@30-40 restart:3@45 slow:1:4@50-60", in seconds, '
        "or random:SEED")  # fmt: skip
    add("--out", type=Path, help="keep the records of the nodes of this host in this folder, for "
        "`swarmsgd report` (default: none; with --dashboard a new one in runs/)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace what an earlier run left in the folder")
    add("--dashboard", action="store_true", help="show the nodes of this host on a page of this "
        "machine while the run goes on; its address is told first")  # fmt: skip
    add("--dashboard-port", type=int, default=0, metavar="PORT",
        help="port of that page (default: a free one)")  # fmt: skip
    add("-m", dest="module", action="store_true", help="run a module, as python -m does")
    add("script", metavar="SCRIPT", help="the script, or with -m the module")
    add("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments, untouched")
    given = parser.parse_args(arguments)
    from swarmsgd.observe.words import notice
    from swarmsgd.train.launch import local
    from swarmsgd.train.launch.chaos import Chaos
    from swarmsgd.train.launch.hosts import use_address, where
    from swarmsgd.train.launch.variables import LISTEN
    from swarmsgd.train.meet.key import use_key
    from swarmsgd.train.meet.place import Place

    _check_exists(given.script, module=given.module)
    if given.key is not None:
        notice(f"all links are encrypted with the key {use_key(given.key).fingerprint}")
    if not given.listen:
        os.environ[LISTEN] = "0"
    here = use_address(given.address)
    master = given.master_addr or (here if given.hosts == 1 else "127.0.0.1")
    if given.hosts > 1 and given.master_addr and 0 <= given.host_index < given.hosts:
        notice(where(given.hosts, given.host_index, master, given.master_port))
    if given.swarm is not None:
        Place.of_swarm(given.swarm, named=given.hosts > 1 or given.master_port != 0)
    option = ["-m"] if given.module else []
    argv = [sys.executable, *option, given.script, *given.arguments]
    options: dict[str, Any] = {
        "hosts": given.hosts,
        "host_index": given.host_index,
        "master_addr": master,
        "master_port": given.master_port,
        "standard_env": given.standard_env,
        "grace_s": given.grace,
        "swarm": given.swarm,
        "restarts": given.restart,
        "chaos": None if given.chaos is None else Chaos.read(given.chaos, given.nodes),
    }
    if given.out is None and not given.dashboard:
        return local.launch(argv, given.nodes, **options).exit_code
    from swarmsgd.train.launch.script_records import launch_kept

    page = given.dashboard_port if given.dashboard else None
    folder = {"out": given.out, "overwrite": given.overwrite, "page": page}
    return launch_kept(argv, given.nodes, **folder, **options).exit_code


def store(arguments: list[str]) -> int:
    """The command `swarmsgd store`; its exit code."""
    parser = argparse.ArgumentParser(
        "swarmsgd store",
        description="Keep the meeting place of open swarms. Nodes come with `swarmsgd launch "
        "--swarm HOST:PORT`, or join(swarm=...), at any time. It may end and be started again: "
        "those who train go on, and tell the next one who they are.",
    )
    parser.add_argument("--port", type=int, default=29500, help="(default: 29500)")
    parser.add_argument(
        "--address", default="*", help="of this machine, to listen at (default: at all of them)"
    )
    parser.add_argument("--key", type=Path, help="key file of the swarm, as SWARMSGD_KEY")
    given = parser.parse_args(arguments)
    from swarmsgd.train.command.store import keep_store

    return keep_store(given.address, given.port, given.key)


def keygen(arguments: list[str]) -> int:
    """The command `swarmsgd keygen`; its exit code."""
    parser = argparse.ArgumentParser(
        "swarmsgd keygen",
        description="Draw the key of a swarm. Copy the file to all hosts, and let nobody else have "
        "it: who has it can join the swarm and read all that it sends.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write it; a new file")
    given = parser.parse_args(arguments)
    from swarmsgd.train.meet.key import make_key

    key = make_key(given.file)
    print(f"key {key.fingerprint} written to {given.file}")
    return 0


def _check_exists(script: str, *, module: bool) -> None:
    if not module and not Path(script).exists():
        raise ConfigError(f"there is no script {script}: check the path, or use -m for a module")
    top = script.partition(".")[0]
    if module and importlib.machinery.PathFinder.find_spec(top, ["", *sys.path]) is None:
        raise ConfigError(f"there is no module {top} in {Path.cwd()} or among the installed ones")
