"""The tasks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from swarmsgd.checks import known, one_of
from swarmsgd.tasks.base import Notify, Task, silent
from swarmsgd.tasks.datasets import DATASETS
from swarmsgd.tasks.synthetic import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.text.parallel import CORPORA
from swarmsgd.tasks.text.translation import TranslationOptions, TranslationTask
from swarmsgd.tasks.vision import VisionOptions, VisionTask

TaskOptions = VisionOptions | TranslationOptions | SyntheticOptions


class _Entry(NamedTuple):
    options: type[Any]
    make: Callable[[Any, int, Notify], Task]
    help: str
    run: Mapping[str, Any] = {}
    """Options of a run that have other defaults for this task, e.g. its optimizer and rate."""


TASKS: Mapping[str, _Entry] = {
    "vision": _Entry(VisionOptions, VisionTask, "image classification on real data"),
    "synthetic": _Entry(SyntheticOptions, SyntheticTask, "quadratics with a known optimum"),
    "translation": _Entry(
        TranslationOptions,
        TranslationTask,
        "a Transformer that translates, on two files of matching lines",
        run={"optimizer": "adam", "lr": 4e-3, "beta2": 0.98, "warmup": 0.05, "epochs": 6.0},
    ),
}
"""Name -> class of its options, ``make(options, num_nodes, notify)``, a line of help."""


def find_task(name: str) -> tuple[str, dict[str, Any]]:
    """The task that is meant, and options that go with the name: that of a data set is short for
    the vision task on it, that of a corpus for translation. Raises ConfigError.

    >>> find_task("digits")
    ('vision', {'dataset': 'digits'})
    """
    one_of("task", name, {**TASKS, **DATASETS, **CORPORA})
    if name in TASKS:
        return name, {}
    return ("vision", {"dataset": name}) if name in DATASETS else ("translation", {"corpus": name})


def name_of(options: TaskOptions) -> str:
    """The name in `TASKS` of the task with these options."""
    return next(name for name, entry in TASKS.items() if isinstance(options, entry.options))


def make_task(name: str, *, num_nodes: int, notify: Notify = silent, **options: Any) -> Task:
    """Task `name` (as for `find_task`) on `num_nodes` nodes; options by the names of its dataclass.

    >>> make_task("vision", num_nodes=4, dataset="digits").samples_per_epoch
    1436
    """
    task, preset = find_task(name)
    entry = TASKS[task]
    known(f"option of task {task}:", options, entry.options.__dataclass_fields__)
    return entry.make(entry.options(**preset | options), num_nodes, notify)
