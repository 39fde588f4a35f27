"""Things to train: real data, models, how both are split over nodes, and scores.

`make_task` gives a `Task`; `TASKS`, `DATASETS`, `MODELS` and `PARTITIONS` are the tables of what
there is (`registry`, `vision`, `partition`). To add something: a function or class, and a line in
its table. Where data come from is told in `lookup`.
"""

from swarmsgd.scores import METRICS, Metric, Score
from swarmsgd.tasks.base import Batch, Notify, Recipe, Task
from swarmsgd.tasks.batch_norm import estimate_batch_norm
from swarmsgd.tasks.own import OwnOptions
from swarmsgd.tasks.partition import PARTITIONS, parse_partition
from swarmsgd.tasks.registry import TASKS, TaskOptions, entry_of, find_task, make_task, name_of
from swarmsgd.tasks.stream import node_generator
from swarmsgd.tasks.synthetic import SyntheticOptions, SyntheticTask
from swarmsgd.tasks.text.language import LanguageOptions, LanguageTask
from swarmsgd.tasks.vision.datasets import DATASETS, load_images
from swarmsgd.tasks.vision.models import MODELS
from swarmsgd.tasks.vision.task import VisionOptions, VisionTask

__all__ = [
    "DATASETS",
    "METRICS",
    "MODELS",
    "PARTITIONS",
    "TASKS",
    "Batch",
    "LanguageOptions",
    "LanguageTask",
    "Metric",
    "Notify",
    "OwnOptions",
    "Recipe",
    "Score",
    "SyntheticOptions",
    "SyntheticTask",
    "Task",
    "TaskOptions",
    "VisionOptions",
    "VisionTask",
    "entry_of",
    "estimate_batch_norm",
    "find_task",
    "load_images",
    "make_task",
    "name_of",
    "node_generator",
    "parse_partition",
]
