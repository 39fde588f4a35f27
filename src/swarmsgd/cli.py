"""The command `swarmsgd`: parse, call, print.

The options of `swarmsgd train` and `simulate` are the settings of a run: see `flags`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from swarmsgd.checks import one_of, whole
from swarmsgd.epilogs import (
    COMPARE_EPILOG,
    DESCRIPTION,
    DOCTOR_EPILOG,
    EXAMPLES,
    SIMULATE_EPILOG,
    TRAIN_EPILOG,
)
from swarmsgd.errors import ConfigError, DataError, SwarmError
from swarmsgd.launch_commands import keygen, launch_command, store
from swarmsgd.limits import explain
from swarmsgd.observe.output import unhindered

if TYPE_CHECKING:
    from swarmsgd.settings.run import RunConfig

C = TypeVar("C", bound="RunConfig")

USAGE_ERROR = 2


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
    except (OSError, RuntimeError) as error:
        if (limit := explain(error)) is None:
            raise
        return _complain(SwarmError(f"{error}: {limit}"), 1)


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
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]].run(arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        one_of("COMMAND", arguments[0], COMMANDS)
    given = parser.parse_args(arguments)
    if given.version:
        import swarmsgd

        print(f"swarmsgd {swarmsgd.__version__}")
        return 0
    parser.print_help(sys.stderr)
    return USAGE_ERROR


def _bench(arguments: list[str]) -> int:
    import json

    from swarmsgd.codec.bench import bench
    from swarmsgd.flags import Parser, add, read_options
    from swarmsgd.settings.options import options_of
    from swarmsgd.settings.swarm import SwarmSettings

    parser = Parser(
        "bench",
        arguments,
        description="Time encode (offer), answer and mix next to copying the vector: one process, "
        "one thread, interleaved, medians.",
    )
    known = {name: options_of(SwarmSettings)[name] for name in ("bits", "rotation")}
    parser.add_argument("what", choices=["codec"], metavar="codec", help="what to measure")
    parser.add_argument(
        "--size", type=int, default=11_700_000, help="parameters (default: 11700000)"
    )
    parser.add_argument(
        "--repeats", type=int, default=15, help="repeats to take medians of (default: 15)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add(parser, known.values())
    given = vars(parser.parse())
    size, repeats = whole("size", given["size"], 1), whole("repeats", given["repeats"], 1)
    settings = SwarmSettings.of(
        {n: read_options(o, given[n]) for n, o in known.items() if n in given}
    )
    figures = bench(size, settings.bits, repeats, rotation=settings.rotation)
    if given["json"]:
        print(json.dumps({"size": size, "bits": settings.bits, **figures}))
        return 0
    code = "float32" if settings.bits is None else f"{settings.bits} bits"
    rotated = "rotated" if figures["rotation"] else "not rotated"
    print(f"{size:,} parameters, {code}, {rotated}, medians of {repeats}")
    print(f"  copy    {1e3 * figures['copy_s']:8.2f} ms")
    for name in ("offer", "answer", "mix"):
        print(f"  {name:<7} {1e3 * figures[f'{name}_s']:8.2f} ms  {figures[name]:6.2f} copies")
    print(f"  {figures['bytes']:.4f} bytes a parameter, each way")
    return 0


def _compare(arguments: list[str]) -> int:
    from swarmsgd.flags import Parser

    parser = Parser(
        "compare",
        arguments,
        description="Simulate several algorithms in the same world, at equal samples and equal "
        "effort of tuning.",
        epilog=COMPARE_EPILOG,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a TOML file, or the name of one in the package")
    add("--out", type=Path, help="folder for all that it writes (default: a new one in runs/)")
    add("--overwrite", action="store_true", help="replace what is in the folder")
    add("--jobs", type=int, help="runs at a time (default: one a core)")
    given = parser.parse()
    from swarmsgd.sim.comparison.compare import compare

    return compare(given.recipe, out=given.out, overwrite=given.overwrite, jobs=given.jobs)


def _train(arguments: list[str]) -> int:
    from swarmsgd.train.command.config import TrainConfig
    from swarmsgd.train.command.run import resume_training, run_training

    if arguments[:1] == ["--resume"]:
        if len(arguments) != 2:
            raise ConfigError(
                "--resume takes a run's folder and nothing else: its settings are in there"
            )
        return resume_training(Path(arguments[1]))
    return run_training(_config("train", TrainConfig, arguments, TRAIN_EPILOG))


def _simulate(arguments: list[str]) -> int:
    from swarmsgd.sim.command.command import run_simulation
    from swarmsgd.sim.command.config import SimConfig

    return run_simulation(_config("simulate", SimConfig, arguments, SIMULATE_EPILOG))


def _config(command: str, cls: type[C], arguments: list[str], epilog: str) -> C:
    """What is asked for by the name of a task and options. Raises ConfigError."""
    import inspect

    from swarmsgd import flags
    from swarmsgd.observe.words import notice
    from swarmsgd.tasks import DATASETS, TASKS, find_task

    if not arguments or arguments[0].startswith("-"):
        parser = flags.Parser(
            command,
            arguments,
            description=f"{COMMANDS[command].help}.".capitalize(),
            epilog=f"`swarmsgd {command} TASK --help` lists its options. The name of a data set is "
            f"short for vision\non it: {', '.join(DATASETS)}.\n"
            "A task of your own is FILE.py:CLASS, see docs/tasks.md.",
        )
        tasks = parser.add_subparsers(
            metavar="TASK", required=True, parser_class=argparse.ArgumentParser
        )
        for name, entry in TASKS.items():
            tasks.add_parser(name, help=entry.help)
        parser.parse()
    name, *words = arguments
    task, _ = find_task(name)
    parts = cls.options(task)
    parser = flags.Parser(
        f"{command} {name}",
        words,
        description=inspect.getdoc(cls),
        epilog=f"{flags.choices(parts)}\n{epilog.format(task=name)}",
    )
    given = flags.parse_options(parser, parts)
    config = cls.of(task=name, **given)
    if unused := config.unused(given):
        names = ", ".join(flags.flag(option) for option in unused)
        notice(f"warning: {config.algorithm} has no {names}, which therefore changes nothing")
    return config


def _export(arguments: list[str]) -> int:
    from swarmsgd.flags import Parser

    parser = Parser(
        "export",
        arguments,
        description="Make one model of the nodes' checkpoints: their mean, as a safetensors file.",
        epilog="Batch norm is estimated anew for a run of `swarmsgd train`; for a script's see "
        "docs/checkpoints.md.\n\nexit code: 0; 2 if there is no checkpoint of every node",
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="what swarm.save() got, or the folder of a `swarmsgd train`")
    add("--out", type=Path, default=Path("model.safetensors"), help="file (default: %(default)s)")
    add("--step", type=int, help="a step that all nodes have saved (default: the last)")
    given = parser.parse()
    from swarmsgd.train.command.export import run_export

    return run_export(given.path, given.out, given.step)


def _report(arguments: list[str]) -> int:
    from swarmsgd.page_commands import report

    return report(arguments)


def _dashboard(arguments: list[str]) -> int:
    from swarmsgd.page_commands import dashboard

    return dashboard(arguments)


def _doctor(arguments: list[str]) -> int:
    from swarmsgd.flags import Parser

    parser = Parser(
        "doctor",
        arguments,
        description="Look at what would stand in the way of a run: on this machine, and on the way "
        "to another.",
        epilog=DOCTOR_EPILOG,
    )
    add = parser.add_argument
    add("--listen", action="store_true", help="answer the doctors of other machines")
    add("--with", dest="other", metavar="HOST:PORT", help="look at the way to one that listens")
    add("--parameters", type=int, default=25_000_000, help="of the model (default: 25000000)")
    add("-n", "--nodes", type=int, default=1, help="nodes on this machine (default: 1)")
    add("--key", type=Path, help="key file of the swarm, as SWARMSGD_KEY (default: none)")
    add("--address", metavar="ADDRESS|INTERFACE", help="where others reach this machine")
    given = parser.parse()
    from swarmsgd.train.doctor.command import Doctor

    doctor = Doctor(
        parameters=whole("parameters", given.parameters, 1),
        nodes=whole("nodes", given.nodes, 1),
        key=given.key,
        address=given.address,
        other=given.other,
    )
    return doctor.listen() if given.listen else doctor.run()


class Command(NamedTuple):
    """A line of `COMMANDS`."""

    help: str
    run: Callable[[list[str]], int]


COMMANDS: Mapping[str, Command] = {
    "launch": Command("run your own script as several nodes", launch_command),
    "store": Command("keep the meeting place of open swarms", store),
    "keygen": Command("draw the key of a swarm, for encrypted links", keygen),
    "doctor": Command("look for what would stand in the way of a run", _doctor),
    "bench": Command("measure the wire code on this machine", _bench),
    "compare": Command("compare algorithms in one simulated world", _compare),
    "report": Command("make a page of what runs did", _report),
    "dashboard": Command("show a run on a live page", _dashboard),
    "export": Command("make one model of the nodes' checkpoints", _export),
    "train": Command("train a task that comes with the package", _train),
    "simulate": Command("train it in virtual time, with as many nodes as you like", _simulate),
}
"""Name -> a line of help, what runs it with the arguments behind the name."""
