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
from swarmsgd.train.checkpoint.choice import whole_run
from swarmsgd.train.checkpoint.export import Exported, mean_of_run
from swarmsgd.train.checkpoint.folder import Folder
from swarmsgd.train.command.config import TrainConfig


def run_export(path: str, out: Path, step: int | None = None) -> int:
    """Write the mean model of the checkpoints in `path` to `out`; 0.

    `path` is what `swarm.save()` got, or the folder of a run of `swarmsgd train`, whose task
    estimates batch norm anew. Raises ConfigError or DataError, with nothing written.
    """
    run = Path(path)
    of_task = (run / CONFIG).exists()
    where = os.fspath(run / CHECKPOINTS) if of_task else path
    whole_run(Folder(where), step)  # what cannot be read is said before where it would go
    if out.exists():
        raise ConfigError(f"--out is {out}, which is there already: choose another file")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out is {out}, but there is no folder {out.absolute().parent}")
    task_name = {}
    exported = mean_of_run(where, step)
    if of_task:
        exported, name = _by_task(exported, run)
        task_name = {"task": name}
    elif any(name.endswith("running_mean") for name in exported.state):
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


def _by_task(exported: Exported, run: Path) -> tuple[Exported, str]:
    """With batch norm estimated anew on the run's task; and its name."""
    config = TrainConfig.from_json((run / CONFIG).read_text())
    task = config.make_task(notice)
    model = task.make_model(config.seed)
    model.load_state_dict(exported.state)
    estimate_batch_norm(model, task)
    return exported._replace(state=model.state_dict()), task.name
