"""What a run is asked to do, real or simulated, as one frozen value; and that value as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from swarmsgd import graphs
from swarmsgd.config import Config, closest
from swarmsgd.errors import ConfigError
from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.tasks import TASKS, SyntheticOptions, VisionOptions

TaskOptions = VisionOptions | SyntheticOptions

_FROM_FLAT = OptimizerSettings()


class _Schedule(NamedTuple):
    factor: Callable[[float], float]
    help: str


SCHEDULES: Mapping[str, _Schedule] = {
    "cosine": _Schedule(
        lambda done: 0.5 * (1 + math.cos(math.pi * done)), "from lr to 0 along half a cosine"
    ),
    "constant": _Schedule(lambda done: 1.0, "lr all the time"),
}
"""Name -> share of the run done -> factor of the learning rate, and a line of help."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A task, and how the nodes train on it together.

    Checked when made: raises ConfigError for anything that would stop the run later. What
    `algorithm` may be is for the driver to say: each has a table of its own.
    """

    PARTS: ClassVar[Mapping[str, type]] = {"optimizer": OptimizerSettings}
    """Fields that are dataclasses themselves, besides the task's options."""

    task: TaskOptions
    """The options of the task; it gets this run's seed."""

    nodes: int = 4
    """Nodes, each with a model and a share of the data of its own."""

    epochs: float = 4.0
    """Passes over the training data, by all nodes together."""

    algorithm: str = "swarm"
    """How the nodes keep their models together: swarm, or what it is compared with."""

    graph: str = "complete"
    """Who may exchange with whom, for instance complete, ring or random-regular:4."""

    local_steps: int | str = 4
    """Optimizer steps between two exchanges; geometric:4 draws their number, with mean 4."""

    mode: str = "non-blocking"
    """non-blocking never waits for a peer; blocking and matching do."""

    bits: int | None = 8
    """Bits a parameter on the wire; none sends float32."""

    rotation: bool | None = None
    """Rotate blocks before they are coded: more time, less noise where few parameters change
    much; auto does at 6 bits and less."""

    exchange_state: tuple[str, ...] = ()
    """Optimizer state that is averaged with the model, for instance momentum_buffer."""

    lr: float = 0.1
    """Learning rate of every node's SGD; tune it for each algorithm."""

    schedule: str = "cosine"
    """How the learning rate goes over the run: cosine or constant."""

    momentum: float = 0.9
    """Momentum of every node's SGD; it stays on the node."""

    weight_decay: float = 0.0
    """Weight decay of every node's SGD."""

    optimizer: OptimizerSettings = field(default_factory=lambda: _FROM_FLAT)
    """What every node steps with. For now made of the four fields above unless it is given, which
    then are what it says."""

    seed: int = 0
    """Seeds everything: first model, split of the data, order of samples, partners."""

    out: Path | None = None
    """Folder for all that the run writes; default: a new one in runs/, named after the time."""

    overwrite: bool = False
    """Replace what an earlier run left in the folder."""

    def __post_init__(self) -> None:
        whole("nodes", self.nodes, 1)
        whole("seed", self.seed, 0)
        for name, fits, wanted in (
            ("epochs", 0 < self.epochs < math.inf, "above 0"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
            ("momentum", 0 <= self.momentum < 1, "of at least 0 and below 1"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "of at least 0"),
        ):
            if not fits:
                got = getattr(self, name)
                raise ConfigError(f"{name} is {got!r}, wanted a number {wanted}")
        one_of("schedule", self.schedule, SCHEDULES)
        flat = ("lr", "schedule", "momentum", "weight_decay")
        if self.optimizer is _FROM_FLAT:
            made = OptimizerSettings(**{name: getattr(self, name) for name in flat})
            object.__setattr__(self, "optimizer", made)
        for name in flat:
            object.__setattr__(self, name, getattr(self.optimizer, name))
        Config(
            local_steps=self.local_steps,
            mode=self.mode,
            bits=self.bits,
            rotation=self.rotation,
            seed=self.seed,
        )
        graphs.parse(self.graph, self.nodes, self.seed)
        object.__setattr__(self, "task", replace(self.task, seed=self.seed))

    @property
    def task_name(self) -> str:
        """The task's name in `TASKS`."""
        return next(name for name, entry in TASKS.items() if isinstance(self.task, entry.options))

    def total_steps(self, samples_per_epoch: int, batch_size: int) -> int:
        """Local steps of each node: an epoch is a pass over the data by all nodes together."""
        return max(1, round(self.epochs * samples_per_epoch / (self.nodes * batch_size)))

    def lr_at(self, done: float) -> float:
        """The learning rate when a share `done` of the run is over."""
        return self.lr * SCHEDULES[self.schedule].factor(done)

    def to_json(self) -> str:
        """As the text of `config.json`."""
        values = {name: value for name, value in asdict(self).items() if name != "task"}
        found = plain({"task": self.task_name, "options": asdict(self.task), **values})
        return json.dumps(found, indent=2, default=str, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what `to_json` wrote."""
        read: dict[str, Any] = json.loads(text)
        paths = read.get("out"), read["options"].get("data")  # a folder may be called inf
        values: dict[str, Any] = _revived(read)
        for name, part in cls.PARTS.items():
            values[name] = part(**values[name])
        options: dict[str, Any] = values.pop("options")
        for owner, name, path in zip((values, options), ("out", "data"), paths, strict=True):
            if path is not None:
                owner[name] = Path(path)
        task = TASKS[values.pop("task")].options(**options)
        known = {field.name for field in fields(cls)}
        return cls(task=task, **{name: value for name, value in values.items() if name in known})


def plain(value: Any) -> Any:
    """As JSON can hold it: it has no infinity, and null for what is no number."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return "inf" if value == math.inf else value


def _revived(value: Any) -> Any:
    """What `plain` and JSON were given; their lists were tuples."""
    if isinstance(value, dict):
        return {name: _revived(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return tuple(value)
    return math.inf if value == "inf" else value


def whole(name: str, got: int, least: int) -> None:
    """Raise ConfigError unless `got` is a whole number of at least `least`."""
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise ConfigError(f"{name} is {got!r}, wanted a whole number of at least {least}")


def one_of(name: str, got: str, table: Mapping[str, Any]) -> None:
    """Raise ConfigError unless `got` is a key of `table`."""
    if got not in table:
        raise ConfigError(
            f"{name} is {got!r}, wanted one of {', '.join(table)}{closest(got, list(table))}"
        )
