"""The tasks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from swarmsgd.checks import known, one_of
from swarmsgd.tasks.base import PLAIN, Notify, Recipe, Task, silent
from swarmsgd.tasks.own import OwnOptions, OwnTask, find_own, full_name, is_own
from swarmsgd.tasks.synthetic import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.text.language import LanguageOptions, LanguageTask
from swarmsgd.tasks.text.parallel import CORPORA
from swarmsgd.tasks.text.translation import TranslationOptions, TranslationTask
from swarmsgd.tasks.vision.datasets import DATASETS
from swarmsgd.tasks.vision.task import VisionOptions, VisionTask

TaskOptions = VisionOptions | TranslationOptions | LanguageOptions | SyntheticOptions | OwnOptions


class _Entry(NamedTuple):
    options: type[Any]
    make: Callable[[Any, int, Notify], Task]
    help: str
    recipes: Mapping[str, Recipe] = {"default": PLAIN}
    """Name -> options of a run and of this task that go together; there is always a "default"."""


_OF_TEXT = "an average of iterates, clipped, a warm-up, rate held to the end"
_AVERAGE: Mapping[str, Any] = {
    "optimizer": "schedulefree-adamw",
    "lr": 8e-3,
    "least_share": 0.02,
    "clip_norm": 1.0,
    "schedule": "wsd",
    "warmup": 0.05,
}

TASKS: Mapping[str, _Entry] = {
    "vision": _Entry(
        VisionOptions,
        VisionTask,
        "image classification on real data",
        {
            "default": Recipe(
                "an average of iterates, clipped, rate held to the end, small batches, 4 bits",
                {
                    "optimizer": "schedulefree-adamw",
                    "lr": 0.016,
                    "least_share": 0.02,
                    "clip_norm": 1.0,
                    "schedule": "wsd",
                    "batch_size": 16,
                    "bits": 4,
                },
            ),
            "sgd": Recipe(
                "the same with Nesterov's momentum in place of the average",
                {
                    "nesterov": True,
                    "clip_norm": 1.0,
                    "schedule": "wsd",
                    "batch_size": 16,
                    "bits": 4,
                },
            ),
            "plain": Recipe("heavy-ball momentum, a cosine, 32 samples a step, 8 bits", {}),
        },
    ),
    "translation": _Entry(
        TranslationOptions,
        TranslationTask,
        "a Transformer that translates, on two files of matching lines",
        {
            "default": Recipe(_OF_TEXT, {**_AVERAGE, "beta2": 0.98, "epochs": 6.0}),
            "plain": Recipe(
                "Adam, a warm-up, a cosine",
                {"optimizer": "adam", "lr": 4e-3, "beta2": 0.98, "warmup": 0.05, "epochs": 6.0},
            ),
        },
    ),
    "language": _Entry(
        LanguageOptions,
        LanguageTask,
        "a GPT that predicts the next byte of a text",
        {
            "default": Recipe(
                f"{_OF_TEXT}, 4 bits every 2 steps",
                {
                    **_AVERAGE,
                    "beta2": 0.99,
                    "weight_decay": 0.1,
                    "epochs": 0.5,
                    "bits": 4,
                    "local_steps": 2,
                },
            ),
            "plain": Recipe(
                "AdamW, a warm-up, a cosine, 8 bits every 4 steps",
                {
                    "optimizer": "adamw",
                    "lr": 3e-3,
                    "beta2": 0.99,
                    "weight_decay": 0.1,
                    "warmup": 0.05,
                    "clip_norm": 1.0,
                    "epochs": 0.5,
                },
            ),
        },
    ),
    "synthetic": _Entry(SyntheticOptions, SyntheticTask, "quadratics with a known optimum"),
}
"""Name -> class of its options, ``make(options, num_nodes, notify)``, a line of help."""


def find_task(name: str) -> tuple[str, dict[str, Any]]:
    """The task that is meant, and options that go with the name: that of a data set (with what
    belongs to it after a colon) is short for the vision task on it, that of a corpus for
    translation, and one of one's own is ``FILE.py:CLASS``. Raises ConfigError.

    >>> find_task("digits")
    ('vision', {'dataset': 'digits'})
    """
    if is_own(name):
        name = full_name(name)
        find_own(name)
        return name, {"own": name}
    kind = name.partition(":")[0] if isinstance(name, str) else name
    one_of("task", kind, {**TASKS, **DATASETS, **CORPORA}, text=name)
    if name in TASKS:
        return name, {}
    return ("translation", {"corpus": name}) if name in CORPORA else ("vision", {"dataset": name})


def entry_of(name: str) -> _Entry | OwnTask:
    """The line of `TASKS`, or a task of one's own by its full name."""
    return find_own(name) if is_own(name) else TASKS[name]


def name_of(options: TaskOptions) -> str:
    """The name in `TASKS` of the task with these options, or of one's own."""
    if isinstance(options, OwnOptions):
        return options.own
    return next(name for name, entry in TASKS.items() if isinstance(options, entry.options))


def make_task(name: str, *, num_nodes: int, notify: Notify = silent, **options: Any) -> Task:
    """Task `name` (as for `find_task`) on `num_nodes` nodes; options by the names of its dataclass.

    >>> make_task("vision", num_nodes=4, dataset="digits").samples_per_epoch
    1436
    """
    task, preset = find_task(name)
    entry = entry_of(task)
    known(f"option of task {task}:", options, entry.options.__dataclass_fields__)
    return entry.make(entry.options(**preset | options), num_nodes, notify)
