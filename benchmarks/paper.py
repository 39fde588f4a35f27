"""The experiments of the SwarmSGD paper, with what we know of their settings and results.

    python benchmarks/paper.py list
    python benchmarks/paper.py run resnet20-cifar10 --nodes 8 --device cuda
    python benchmarks/paper.py run resnet50-imagenet --data /data/imagenet --device cuda \\
        --precision bfloat16 --loaders 8
    python benchmarks/paper.py run resnet20-cifar10 --nodes 2 --scale 0.01 --simulate
    python benchmarks/paper.py run transformer-wmt17 --nodes 16 --scale 0.1 -- --train-src ...

Nadiradze et al., "Asynchronous Decentralized SGD with Quantized and Local Updates", NeurIPS 2021
(arXiv 1910.12308), section on experiments. Its figures are held here as we recall them, and were
not compared with the print again; what we do not know is left out, the numbers of nodes among it.
Epochs are passes over the data by all nodes together. What follows `--` goes to `swarmsgd` as it
is, and comes last: it wins over what is here.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import table


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One row of the paper."""

    help: str
    task: str
    """Name of the task, with {data} where the folder of --data goes."""
    options: Mapping[str, object]
    """Of `swarmsgd train`. The recipe of the model's own paper where SwarmSGD's is not known."""
    local_steps: int | None = None
    sgd_epochs: float | None = None
    swarm_epochs: float | None = None
    reported: Mapping[str, float] | None = None
    """Method -> top-1 accuracy in percent."""


_RESIDUAL = {
    "recipe": "plain",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr": 0.1,
    "schedule": "step",
}

EXPERIMENTS: Mapping[str, Experiment] = {
    "resnet20-cifar10": Experiment(
        help="ResNet-20 on CIFAR-10",
        task="cifar10",
        options={"model": "resnet20", "augment": True, "batch_size": 128, **_RESIDUAL},
        local_steps=4,
        sgd_epochs=200,
        swarm_epochs=280,
        reported={"SGD": 91.7, "large-batch SGD": 91.5, "SwarmSGD": 91.79},
    ),
    "resnet18-imagenet": Experiment(
        help="ResNet-18 on ImageNet",
        task="folder:{data}",
        options={"model": "resnet18", "batch_size": 256, **_RESIDUAL},
        local_steps=3,
        sgd_epochs=90,
        swarm_epochs=240,
        reported={"SGD": 69.76, "large-batch SGD": 69.17, "SwarmSGD": 69.79},
    ),
    "resnet50-imagenet": Experiment(
        help="ResNet-50 on ImageNet",
        task="folder:{data}",
        options={"model": "resnet50", "batch_size": 256, **_RESIDUAL},
        local_steps=2,
        sgd_epochs=90,
        swarm_epochs=240,
        reported={"SGD": 76.14, "large-batch SGD": 75.43, "SwarmSGD": 75.68},
    ),
    "transformer-wmt17": Experiment(
        help="Transformer on WMT17 English-German: 1.5 times as fast as large-batch SGD, BLEU "
        "slightly higher",
        task="translation",
        options={"model": "base", "recipe": "plain"},
    ),
}


def main() -> None:
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is")
    run = commands.add_parser("run", help="train one, and print our row beside the paper's")
    run.add_argument("name", choices=list(EXPERIMENTS))
    run.add_argument("--nodes", type=int, default=8)
    run.add_argument("--scale", type=float, default=1.0, help="epochs are multiplied by this")
    run.add_argument("--data", type=Path, help="folder of the data set")
    run.add_argument("--simulate", action="store_true", help="in virtual time, in one process")
    run.add_argument("--device", help="where the nodes train")
    run.add_argument("--precision")
    run.add_argument("--loaders", type=int)
    run.add_argument("--out", type=Path, help="folder that the run writes (default: none is kept)")
    options = parser.parse_args(words[:end])
    if options.command == "list":
        print(listed())
        return
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "run"
        command = [*command_of(options, out), *words[end + 1 :]]
        print("swarmsgd", shlex.join(command), flush=True)
        code = subprocess.run([sys.executable, "-m", "swarmsgd", *command], check=False).returncode
        if code:
            raise SystemExit(code)
        print(beside(options.name, json.loads((out / "summary.json").read_text())))


def command_of(options: argparse.Namespace, out: Path) -> list[str]:
    """The words of the `swarmsgd` command that runs an experiment."""
    experiment = EXPERIMENTS[options.name]
    if "{data}" in experiment.task and options.data is None:
        raise SystemExit(f"{options.name} needs --data PATH, with PATH/train and PATH/val in it")
    settings: dict[str, object] = {"nodes": options.nodes, **experiment.options}
    if experiment.local_steps is not None:
        settings["local_steps"] = experiment.local_steps
    if experiment.swarm_epochs is not None:
        settings["epochs"] = experiment.swarm_epochs * options.scale
    if "{data}" not in experiment.task and options.data is not None:
        settings["data"] = options.data
    for name in ("device", "precision", "loaders"):
        if (given := getattr(options, name)) is not None:
            settings[name] = given
    words = ["simulate" if options.simulate else "train", experiment.task.format(data=options.data)]
    for name, value in {**settings, "out": out}.items():
        words.append(f"--{name.replace('_', '-')}")
        words += [] if value is True else [f"{value}"]
    return words


def listed() -> str:
    """All experiments as a table."""
    rows: list[list[object]] = [
        ["name", "what", "H", "epochs (SGD)", "SGD", "large batch", "swarm"]
    ]
    for name, experiment in EXPERIMENTS.items():
        epochs = "-"
        if experiment.swarm_epochs is not None:
            epochs = f"{experiment.swarm_epochs:g} ({experiment.sgd_epochs:g})"
        reported = experiment.reported or {}
        scores = [reported.get(m, "-") for m in ("SGD", "large-batch SGD", "SwarmSGD")]
        rows.append([name, experiment.help, experiment.local_steps or "-", epochs, *scores])
    return table(rows)


def beside(name: str, summary: Mapping[str, Any]) -> str:
    """Our row below the paper's."""
    experiment = EXPERIMENTS[name]
    percent, got = 100 if summary["score"] == "accuracy" else 1, summary["mean_score"]
    mine = "-" if got is None else f"{percent * got:.2f}"
    rows: list[list[object]] = [["method", "nodes", "H", "epochs", summary["score"]]]
    for method, score in (experiment.reported or {}).items():
        swarm = method == "SwarmSGD"
        epochs = experiment.swarm_epochs if swarm else experiment.sgd_epochs
        steps = experiment.local_steps if swarm else "-"
        rows.append([f"{method} (paper)", "-", steps or "-", f"{epochs:g}", f"{score:.2f}"])
    epochs = f"{summary['epochs']:.3g}"
    rows.append(["swarmsgd, this run", summary["nodes"], summary["local_steps"], epochs, mine])
    return table(rows)


if __name__ == "__main__":
    main()
