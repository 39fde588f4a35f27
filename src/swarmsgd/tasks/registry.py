"""The tasks, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from swarmsgd.tasks.base import Notify, Task, silent
from swarmsgd.tasks.choices import choose, unknown
from swarmsgd.tasks.synthetic import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.vision import VisionOptions, VisionTask


class _Entry(NamedTuple):
    options: type[Any]
    make: Callable[[Any, int, Notify], Task]
    help: str


TASKS = {
    "vision": _Entry(VisionOptions, VisionTask, "image classification on real data"),
    "synthetic": _Entry(SyntheticOptions, SyntheticTask, "quadratics with a known optimum"),
}
"""Name -> class of its options, ``make(options, num_nodes, notify)``, a line of help."""


def make_task(name: str, *, num_nodes: int, notify: Notify = silent, **options: Any) -> Task:
    """Task `name` of the table on `num_nodes` nodes; options by the names of its dataclass.

    >>> make_task("vision", num_nodes=4, dataset="digits").samples_per_epoch
    1436
    """
    entry = choose("task", name, TASKS)
    known = [option.name for option in fields(entry.options)]
    for option in options:
        if option not in known:
            raise unknown(f"option of task {name!r}", option, known)
    return entry.make(entry.options(**options), num_nodes, notify)
