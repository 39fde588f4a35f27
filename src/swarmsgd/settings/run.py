"""What a run is asked to do, real or simulated, as one frozen value; and that value as a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Self

from swarmsgd.checks import closest, known, number, one_of, whole
from swarmsgd.errors import ConfigError
from swarmsgd.settings.algorithms import ALGORITHMS
from swarmsgd.settings.optimizer import OPTIMIZERS, OptimizerSettings, strange_to
from swarmsgd.settings.options import Option, options_of, plain, setting
from swarmsgd.settings.precision import PRECISIONS
from swarmsgd.settings.swarm import LARGEST_SEED, SwarmSettings, doubt_of_averaging
from swarmsgd.tasks import Notify, Task, TaskOptions, entry_of, find_task, name_of
from swarmsgd.tasks.base import silent

OF_RUN = "run"
"""Stands for the run's own options among those of its parts."""

RECIPE = "recipe"
_RECIPE_HELP = (
    "Other defaults that go together, those of the task by name; every one may be given beside it."
)

BUDGETS: Mapping[str, str] = {
    "each": "every node makes its share of the steps",
    "together": "the run ends when all nodes together have seen the samples: the fast make more",
}
"""How a run of equal samples is counted, and a line of help."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A task, and how the nodes train on it together.

    Checked when made: raises ConfigError for anything that would stop the run later. Fields that
    are dataclasses are its parts; `of` makes it from the options of all of them. The seed is every
    part's.
    """

    task: TaskOptions
    """The options of the task."""

    swarm: SwarmSettings = SwarmSettings()
    """How a node takes part in a swarm; other algorithms have some of it."""

    optimizer: OptimizerSettings = OptimizerSettings()
    """What every node steps with."""

    nodes: int = 4
    """Nodes, each with a model and a share of the data of its own."""

    epochs: float = 4.0
    """Passes over the training data, by all nodes together."""

    budget: str = setting("each", table=BUDGETS)
    """each: every node makes its share of steps; together: the fast ones make more."""

    algorithm: str = setting("swarm", table=ALGORITHMS)
    """How the nodes keep their models together: swarm, or what it is compared with."""

    precision: str = setting("float32", table=PRECISIONS)
    """In which numbers a training step computes: float32 or bfloat16."""

    seed: int = 0
    """Seeds everything: first model, split of the data, order of samples, partners."""

    out: Path | None = None
    """Folder for all that the run writes; none: a new one in runs/, named after the time."""

    overwrite: bool = False
    """Replace what an earlier run left in the folder."""

    quiet: bool = False
    """Say nothing while it runs but what went wrong."""

    json: bool = False
    """Print the summary on stdout as one JSON object, and all else on stderr."""

    def __post_init__(self) -> None:
        whole("nodes", self.nodes, 1)
        whole("seed", self.seed, 0, LARGEST_SEED)
        number("epochs", self.epochs, above=0)
        one_of("budget", self.budget, BUDGETS)
        one_of("precision", self.precision, PRECISIONS)
        algorithms = options_of(type(self))["algorithm"].table
        assert algorithms is not None
        one_of("algorithm", self.algorithm, algorithms)
        if not isinstance(self.swarm.graph, str):
            raise ConfigError("graph is a Graph, wanted its name: a run is written to a file")
        object.__setattr__(self, "task", replace(self.task, seed=self.seed))
        object.__setattr__(self, "swarm", replace(self.swarm, seed=self.seed))
        self._exchange_what_is_reported()
        self.swarm.graph_of(self.nodes)
        self._check_states()

    def _exchange_what_is_reported(self) -> None:
        """Nodes that average what they step on and not what they report would drift apart in it,
        unless that forgets what was long ago.
        """
        if self.optimizer.least_share:
            return
        name, asked = self.optimizer.reports, [name for name, _ in self.swarm.states()]
        if name is not None and name not in asked and self.algorithm == "swarm":
            states = (*self.swarm.exchange_state, name)
            object.__setattr__(self, "swarm", replace(self.swarm, exchange_state=states))

    def doubts(self) -> list[str]:
        """What is allowed, and hardly meant."""
        averaged = None
        if self.algorithm == "swarm":
            names = [name for name, _ in self.swarm.states()]
            averaged = doubt_of_averaging(names, self.optimizer.states, self.optimizer.eps)
        found = (self.optimizer.doubt(), averaged and f"warning: {averaged}")
        return [doubt for doubt in found if doubt]

    def unused(self, given: Iterable[str]) -> list[str]:
        """Those of the `given` options that change nothing: settings of a swarm which the algorithm
        has not.
        """
        mine = {n for n, option in options_of(SwarmSettings).items() if option.offered}
        others = mine - set(options_of(type(self))) - set(ALGORITHMS[self.algorithm].uses)
        return sorted(others.intersection(given))

    def _check_states(self) -> None:
        """What is exchanged is something that the optimizer remembers."""
        for name, _ in self.swarm.states():
            if name not in self.optimizer.states:
                has = ", ".join(self.optimizer.states) or "none: its momentum is 0"
                raise ConfigError(
                    f"exchange_state has {name!r}, but of {self.optimizer.optimizer} there is "
                    f"{has}{closest(name, self.optimizer.states)}"
                )

    @classmethod
    def of(cls, *, task: str | TaskOptions, **given: Any) -> Self:
        """From flat options, as the command line and recipes have them: each goes to the part that
        has it. `task` is a name of `find_task`. A part may also be given whole.

        Raises ConfigError for an option that no part has.

        >>> RunConfig.of(task="digits", nodes=8, graph="ring", lr=0.2).swarm.graph
        'ring'
        """
        name, preset = find_task(task) if isinstance(task, str) else (name_of(task), {})
        parts = {part: kind() for part, kind in cls._parts(name).items()}
        parts["task"] = replace(parts["task"], **preset) if isinstance(task, str) else task
        options = cls.options(name)
        chosen = one_of(RECIPE, given.pop(RECIPE, "default"), entry_of(name).recipes)
        entire = {part for part in options if is_dataclass(given.get(part))}
        entire |= set() if isinstance(task, str) else {"task"}
        defaults = _fitting(chosen.options, given, {part: options[part] for part in entire})
        parts |= {part: given.pop(part) for part in parts if is_dataclass(given.get(part))}
        known("option", given, [option for part in options.values() for option in part])
        given = defaults | given
        for part, mine in options.items():
            read = {n: option.read(given.pop(n)) for n, option in mine.items() if n in given}
            if part == OF_RUN:
                given |= read
            else:
                parts[part] = replace(parts[part], **read)
        return cls(**parts, **given)

    @classmethod
    def options(cls, task: str) -> dict[str, dict[str, Option]]:
        """Part -> its options, for a run of this task (as in `entry_of`); the run's own are under
        `OF_RUN`, with the choice of a recipe. An option that several parts have is the run's.
        """
        own, recipes = options_of(cls), entry_of(task).recipes
        defaults = recipes["default"].options
        found = {OF_RUN: {name: option for name, option in own.items() if option.offered}}
        found[OF_RUN][RECIPE] = Option(RECIPE, (str,), "default", _RECIPE_HELP, True, recipes)
        for part, kind in cls._parts(task).items():
            found[part] = {
                name: option
                for name, option in options_of(kind).items()
                if option.offered and name not in own
            }
        return {
            part: {n: replace(o, default=defaults.get(n, o.default)) for n, o in mine.items()}
            for part, mine in found.items()
        }

    @classmethod
    def _parts(cls, task: str) -> dict[str, type]:
        parts = {field.name: type(field.default) for field in fields(cls)}
        return {"task": entry_of(task).options} | {
            part: kind for part, kind in parts.items() if is_dataclass(kind)
        }

    @property
    def task_name(self) -> str:
        """The task's name in `TASKS`."""
        return name_of(self.task)

    def make_task(self, notify: Notify = silent) -> Task:
        """The task with its data. Raises DataError."""
        return entry_of(self.task_name).make(self.task, self.nodes, notify)

    def total_steps(self, samples_per_epoch: int, batch_size: int) -> int:
        """Local steps of each node: an epoch is a pass over the data by all nodes together."""
        return max(1, round(self.epochs * samples_per_epoch / (self.nodes * batch_size)))

    def title(self) -> str:
        """One line: what is trained by whom in which way."""
        parts = [self.task.name, f"{self.nodes:,} node{'s' * (self.nodes != 1)}", self.algorithm]
        parts += self.swarm.words(ALGORITHMS[self.algorithm].uses)
        if self.optimizer.optimizer != OptimizerSettings.optimizer:
            parts.append(self.optimizer.optimizer)
        if self.precision != RunConfig.precision:
            parts.append(self.precision)
        partition = getattr(self.task, "partition", "iid")
        return ", ".join(parts if partition == "iid" else [*parts, partition])

    def to_json(self) -> str:
        """As the text of `config.json`: an object, with one for each part."""
        values = asdict(self)
        values["task"] = {"name": self.task_name, **values["task"]}
        return json.dumps(plain(values), indent=2, default=str, allow_nan=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """By value: the options of a task of one's own are of a class that another process has yet
        to find.
        """
        return type(self).from_json, (self.to_json(),)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what `to_json` wrote."""
        found: dict[str, Any] = json.loads(text)
        parts = cls._parts(found["task"].pop("name"))
        made = {part: kind(**_read(kind, found.pop(part))) for part, kind in parts.items()}
        return cls(**made, **_read(cls, found))


def _fitting(
    recipe: Mapping[str, Any], given: Mapping[str, Any], whole: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Those options of a recipe that fit what is `given`: none of a part that is given `whole`, and
    none of its optimizer's if another one is given, whose usual rate then stands for the recipe's,
    or no momentum to look ahead along.
    """
    left_out = {name for part in whole.values() for name in part}
    its = recipe.get("optimizer", OptimizerSettings.optimizer)
    if "optimizer" in recipe.keys() - given.keys() and (strange := strange_to(its, given)):
        raise ConfigError(
            f"{strange[0]} is given, but the recipe's optimizer is {its}, which has no "
            f"{strange[0]}: leave it out, or name another optimizer or recipe too"
        )
    if given.get("optimizer", its) != its:
        left_out |= set(options_of(OptimizerSettings))
    if given.get("momentum") == 0:
        left_out.add("nesterov")
    found = {name: value for name, value in recipe.items() if name not in left_out}
    kind = OPTIMIZERS.get(given.get("optimizer", its))
    if kind is not None and kind.lr is not None and "lr" not in found:
        found["lr"] = kind.lr
    return found


def _read(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    options = options_of(kind)
    known("setting", values, options)
    return {name: options[name].read(value) for name, value in values.items()}
