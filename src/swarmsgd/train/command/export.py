"""`swarmsgd export`: the mean model of a run's checkpoints, as a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from swarmsgd.errors import ConfigError
from swarmsgd.observe.ending import write_whole
from swarmsgd.observe.folder import CHECKPOINTS, CONFIG
from swarmsgd.observe.words import notice
from swarmsgd.tasks import estimate_batch_norm
from swarmsgd.train.checkpoint.export import Exported, mean_of_run
from swarmsgd.train.command.config import TrainConfig


def run_export(path: str, out: Path, step: int | None = None) -> int:
    """Write the mean model of the checkpoints in `path` to `out`; 0.

    `path` is what `swarm.save()` got, or the folder of a run of `swarmsgd train`, whose task
    estimates batch norm anew. Raises ConfigError or DataError, with nothing written.
    """
    if out.exists():
        raise ConfigError(f"--out is {out}, which is there already: choose another file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out is {out}, but there is no folder {out.absolute().parent}")
    task_name = {}
    run = Path(path)
    if (run / CONFIG).exists():
        exported, name = _of_task(run, step)
        task_name = {"task": name}
    else:
        exported = mean_of_run(path, step)
        if any(name.endswith("running_mean") for name in exported.state):
            notice(
                "batch norm's statistics belong to the nodes' own weights: estimate them anew with "
                "swarmsgd.export(path, model, loader)"
            )
    about = {**task_name, "nodes": str(exported.nodes), "steps": exported.steps}
    write_model(out, exported.state, about)
    print(f"mean of {exported.nodes} nodes' models at step {exported.steps}: written to {out}")
    return 0


def write_model(path: Path, state: Mapping[str, Tensor], about: dict[str, str]) -> None:
    """Write a state dict with what it is of, whole or not at all."""
    try:
        write_whole(path, save(dict(state), metadata=about))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}. Choose another place"
        ) from None


def _of_task(run: Path, step: int | None) -> tuple[Exported, str]:
    config = TrainConfig.from_json((run / CONFIG).read_text())
    exported = mean_of_run(os.fspath(run / CHECKPOINTS), step)
    task = config.make_task(notice)
    model = task.make_model(config.seed)
    model.load_state_dict(exported.state)
    estimate_batch_norm(model, task)
    return exported._replace(state=model.state_dict()), task.name
