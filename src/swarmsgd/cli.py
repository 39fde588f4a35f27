"""The command `swarmsgd`: parse, call, print.

The options of `swarmsgd train` and `simulate` are the fields of their configs: see `flags`.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swarmsgd import flags
from swarmsgd.errors import ConfigError, DataError, SwarmError
from swarmsgd.observe.output import unhindered

USAGE_ERROR = 2

DESCRIPTION = "Train neural networks without a barrier: asynchronous decentralized SGD."
EXAMPLES = """\
examples:
  swarmsgd train vision                        four nodes train a CNN on Fashion-MNIST
  swarmsgd train vision --algorithm allreduce  the same with all-reduce, to compare
  swarmsgd launch -n 4 train.py --lr 0.1       your own script, which calls swarmsgd.join()
  swarmsgd simulate vision --nodes 64          the same in virtual time, on any network you like
  swarmsgd compare digits                      several algorithms in one simulated world

`swarmsgd COMMAND --help` tells more.
"""
LAUNCH_EPILOG = """\
Every node gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and,
unless it is set, its share of the cores as OMP_NUM_THREADS. The launcher hosts the store where
they meet. What they print is passed on with the node in front. A node that fails does not take
the others along. Ctrl-C ends all: SIGTERM, then SIGKILL after a few seconds or at the next Ctrl-C.

exit code:
  0    all nodes of this host ended well
  1    at least one of them failed
  2    wrong usage; nothing was started
  130  Ctrl-C (128 + the signal for others)

examples:
  swarmsgd launch -n 4 train.py --lr 0.1
  swarmsgd launch -n 4 -m mypackage.train --lr 0.1
  swarmsgd launch -n 1 --hosts 4 --host-index 2 --master-addr 10.0.0.1 --master-port 29500 train.py
                             on each of four hosts, each with its own index; the store is open to
                             the network, so keep that network to yourself
"""
TRAIN_EPILOG = """\
The run's folder gets config.json, a node-<i>.jsonl of records for each node, the mean model as
model.safetensors, and summary.json.

exit code:
  0    there is a mean model (of the nodes that lived: a warning names the others)
  1    there is none
  2    wrong usage; nothing was started
  130  Ctrl-C; what was recorded is kept

examples:
  swarmsgd train {task}
  swarmsgd train {task} --nodes 8 --graph ring --local-steps geometric:4 --out runs/ring
  swarmsgd train {task} --algorithm allreduce --lr 0.05
"""
SIMULATE_EPILOG = """\
Times are virtual: what the nodes and links of the world would take. The run's folder gets
config.json, the curve of the mean model as curve.jsonl, exchanges and events of each of up to 256
swarm nodes as node-<i>.jsonl, the mean model as model.safetensors, summary.json, and report.html
with plots.

exit code: 0; 1 if training diverged; 2 for wrong usage or data; 130 for Ctrl-C (what was recorded
is kept)

examples:
  swarmsgd simulate {task} --nodes 64 --graph ring --bandwidth-mbit-s 100
  swarmsgd simulate {task} --stragglers 3:4@1-2 --events kill:2@1.5 cut:0-1@2-3
  swarmsgd simulate {task} --algorithm allreduce --stragglers 3:4
"""
COMPARE_EPILOG = """\
A recipe is a TOML file: what all runs share, the variants, the seeds, and the learning rates from
which each variant's is chosen on a seed of its own. `swarmsgd compare digits` runs one that comes
with the package. The folder gets a folder for each run, table.md, and report.html with plots.

exit code: 0; 1 if a variant diverged at all rates; 2 for wrong usage or data; 130 for Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    with unhindered():
        return _main(arguments)


def _main(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except (ConfigError, DataError) as error:
        return _complain(error, USAGE_ERROR)
    except SwarmError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        print("swarmsgd: interrupted", file=sys.stderr)
        return 130


def _complain(error: SwarmError, code: int) -> int:
    print(f"swarmsgd: error: {error}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="swarmsgd",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_launch(commands)
    _add_bench(commands)
    _add_compare(commands)
    for name, help_ in TASK_COMMANDS.items():
        commands.add_parser(name, help=help_, add_help=False)
    if arguments and arguments[0] in TASK_COMMANDS:
        return _task_command(arguments[0], arguments[1:])
    given = parser.parse_args(arguments)
    if given.version:
        import swarmsgd

        print(f"swarmsgd {swarmsgd.__version__}")
        return 0
    if given.command is None:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    return {"bench": _bench, "compare": _compare, "launch": _launch}[given.command](given)


# swarmsgd bench


def _add_bench(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="measure the wire code on this machine",
        description="Time encode (offer), answer and mix next to copying the vector: one process, "
        "one thread, interleaved, medians.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("what", choices=["codec"], metavar="codec", help="what to measure")
    add("--size", type=int, default=11_700_000, help="parameters (default: 11700000)")
    add("--bits", default="8", help="bits a parameter, or none for float32 (default: 8)")
    add(
        "--rotation",
        choices=flags.SWITCH,
        default="auto",
        help="rotate blocks first (default: auto)",
    )
    add("--repeats", type=int, default=15, help="repeats to take medians of (default: 15)")
    add("--json", action="store_true", help="print one JSON object")


def _bench(given: argparse.Namespace) -> int:
    import json

    from swarmsgd.codec.bench import bench
    from swarmsgd.config import Config

    text = given.bits.lower()
    if text != "none" and not text.isdecimal():
        raise ConfigError(f"--bits is {given.bits!r}, wanted a number of bits or none")
    for name in ("size", "repeats"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name} is {getattr(given, name)}, wanted at least 1")
    bits = Config(bits=None if text == "none" else int(text)).bits
    figures = bench(given.size, bits, given.repeats, rotation=flags.SWITCH[given.rotation])
    if given.json:
        print(json.dumps({"size": given.size, "bits": bits, **figures}))
        return 0
    code = "float32" if bits is None else f"{bits} bits"
    rotated = "rotated" if figures["rotation"] else "not rotated"
    print(f"{given.size:,} parameters, {code}, {rotated}, medians of {given.repeats}")
    print(f"  copy    {1e3 * figures['copy_s']:8.2f} ms")
    for name in ("offer", "answer", "mix"):
        print(f"  {name:<7} {1e3 * figures[f'{name}_s']:8.2f} ms  {figures[name]:6.2f} copies")
    print(f"  {figures['bytes']:.4f} bytes a parameter, each way")
    return 0


# swarmsgd launch


def _add_launch(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "launch",
        help="run your own script as several nodes",
        description="Run a Python script as several nodes on this host.",
        epilog=LAUNCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="swarmsgd launch [options] SCRIPT [ARGUMENTS ...]\n"
        "       swarmsgd launch [options] -m MODULE [ARGUMENTS ...]",
    )
    add = parser.add_argument
    add("-n", "--nodes", type=int, required=True, help="nodes on this host")
    add("--hosts", type=int, default=1, help="hosts of the run, with -n nodes each (default: 1)")
    add("--host-index", type=int, default=0, help="which host this is, from 0 (default: 0)")
    add("--master-addr", default="127.0.0.1", help="address of host 0 (default: 127.0.0.1)")
    add("--master-port", type=int, default=0, help="port of the store (default: a free one)")
    add("-m", dest="module", action="store_true", help="run a module, as python -m does")
    add("script", metavar="SCRIPT", help="the script, or with -m the module")
    add("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments, untouched")


def _launch(given: argparse.Namespace) -> int:
    from swarmsgd.train.launch import launch

    _check_exists(given.script, module=given.module)
    option = ["-m"] if given.module else []
    outcome = launch(
        [sys.executable, *option, given.script, *given.arguments],
        given.nodes,
        hosts=given.hosts,
        host_index=given.host_index,
        master_addr=given.master_addr,
        master_port=given.master_port,
    )
    return outcome.exit_code


def _check_exists(script: str, *, module: bool) -> None:
    if not module and not Path(script).exists():
        raise ConfigError(f"there is no script {script}: check the path, or use -m for a module")
    top = script.partition(".")[0]
    if module and importlib.machinery.PathFinder.find_spec(top, ["", *sys.path]) is None:
        raise ConfigError(f"there is no module {top} in {Path.cwd()} or among the installed ones")


# swarmsgd compare


def _add_compare(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="compare algorithms in one simulated world",
        description="Simulate several algorithms in the same world, at equal samples and equal "
        "effort of tuning.",
        epilog=COMPARE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a TOML file, or the name of one in the package")
    add("--out", type=Path, help="folder for all that it writes (default: a new one in runs/)")
    add("--overwrite", action="store_true", help="replace what is in the folder")
    add("--jobs", type=int, help="runs at a time (default: one a core)")


def _compare(given: argparse.Namespace) -> int:
    from swarmsgd.sim.compare import compare

    return compare(given.recipe, out=given.out, overwrite=given.overwrite, jobs=given.jobs)


# swarmsgd train, swarmsgd simulate

TASK_COMMANDS: Mapping[str, str] = {
    "train": "train a task that comes with the package",
    "simulate": "train it in virtual time, with as many nodes as you like",
}


def _task_command(command: str, arguments: list[str]) -> int:
    from swarmsgd.tasks import TASKS

    parser = argparse.ArgumentParser(
        prog=f"swarmsgd {command}",
        description=f"{TASK_COMMANDS[command]}.".capitalize(),
        epilog=f"`swarmsgd {command} TASK --help` lists its options.",
        allow_abbrev=False,
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, entry in TASKS.items():
        tasks.add_parser(name, help=entry.help, add_help=False)
    if arguments and arguments[0] in TASKS:
        return {"train": _train, "simulate": _simulate}[command](arguments[0], arguments[1:])
    parser.parse_args(arguments)
    return USAGE_ERROR


def _train(name: str, arguments: list[str]) -> int:
    from swarmsgd.tasks import TASKS
    from swarmsgd.train.algorithms import ALGORITHMS
    from swarmsgd.train.recipe import TrainConfig
    from swarmsgd.train.run import run

    options = TASKS[name].options
    choices = {"algorithm": [(name, entry.help) for name, entry in ALGORITHMS.items()]}
    epilog = f"{flags.choices(choices, TrainConfig, options)}\n{TRAIN_EPILOG.format(task=name)}"
    given = flags.parse(f"swarmsgd train {name}", arguments, epilog, TrainConfig, options)
    return run(
        TrainConfig(task=options(**flags.of(options, given)), **flags.of(TrainConfig, given))
    )


def _simulate(name: str, arguments: list[str]) -> int:
    from swarmsgd.sim.algorithms import ALGORITHMS
    from swarmsgd.sim.command import run
    from swarmsgd.sim.config import BUDGETS, SimConfig
    from swarmsgd.sim.world import EVENTS, World
    from swarmsgd.tasks import TASKS

    options = TASKS[name].options
    choices = {
        "algorithm": [(name, entry.help) for name, entry in ALGORITHMS.items()],
        "budget": list(BUDGETS.items()),
        "events": list(EVENTS.items()),
    }
    names = flags.choices(choices, SimConfig, World, options)
    epilog = f"{names}\n{SIMULATE_EPILOG.format(task=name)}"
    given = flags.parse(f"swarmsgd simulate {name}", arguments, epilog, SimConfig, World, options)
    task, world = options(**flags.of(options, given)), World(**flags.of(World, given))
    return run(SimConfig(task=task, world=world, **flags.of(SimConfig, given)))
