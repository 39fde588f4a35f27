"""Things to train: real data, models, how both are split over nodes, and scores.

`make_task` gives a `Task`; `TASKS`, `DATASETS`, `MODELS` and `PARTITIONS` are the tables of what
there is (`registry`, `datasets`, `models`, `partition`). To add something: a function or class, and
a line in its table. Where data come from is told in `lookup`.
"""

from swarmsgd.tasks.base import Batch, Notify, Score, Task
from swarmsgd.tasks.datasets import DATASETS, load_images
from swarmsgd.tasks.models import MODELS
from swarmsgd.tasks.norms import estimate_batch_norm
from swarmsgd.tasks.partition import PARTITIONS, parse_partition
from swarmsgd.tasks.registry import TASKS, TaskOptions, find_task, make_task, name_of
from swarmsgd.tasks.stream import node_generator
from swarmsgd.tasks.synthetic import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.text.language import LanguageOptions, LanguageTask
from swarmsgd.tasks.vision import VisionOptions, VisionTask

__all__ = [
    "DATASETS",
    "MODELS",
    "PARTITIONS",
    "TASKS",
    "Batch",
    "LanguageOptions",
    "LanguageTask",
    "Notify",
    "Score",
    "SyntheticOptions",
    "SyntheticTask",
    "Task",
    "TaskOptions",
    "VisionOptions",
    "VisionTask",
    "estimate_batch_norm",
    "find_task",
    "load_images",
    "make_task",
    "name_of",
    "node_generator",
    "parse_partition",
]
