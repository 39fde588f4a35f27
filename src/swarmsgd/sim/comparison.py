"""A comparison as a value: variants in one world, over seeds, each at the best rate of one grid.

Read from TOML::

    title = "What a slow link does"
    seeds = [0, 1, 2]
    rates = [0.05, 0.1, 0.2]     # each variant's is the best of these on tuning_seed, which is
    tuning_seed = 1000           # in no figure: the lowest training loss of the mean model
    [all]                        # options of `swarmsgd simulate`, for all variants
    task = "vision"
    nodes = 8
    bandwidth_mbit_s = 100
    [variants."swarm, 8 bits"]   # and those of one
    algorithm = "swarm"
    [variants.all-reduce]
    algorithm = "allreduce"
    lr = 0.2                     # this one is not tuned
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from swarmsgd.config import closest
from swarmsgd.errors import ConfigError
from swarmsgd.recipe import one_of
from swarmsgd.sim.config import SimConfig
from swarmsgd.sim.run import check
from swarmsgd.sim.world import World
from swarmsgd.tasks import TASKS

KEYS = ("title", "seeds", "rates", "tuning_seed", "all", "variants")
RECIPES = "swarmsgd.sim.recipes"
"""Package of the recipes that come with this one."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Checked when made: every run of it could start."""

    title: str
    variants: Mapping[str, Mapping[str, Any]]
    """Label -> options of one run, with `task`; `lr` where it is not to be tuned."""
    seeds: Sequence[int]
    rates: Sequence[float]
    tuning_seed: int

    def __post_init__(self) -> None:
        if not self.variants:
            raise ConfigError("the recipe has no [variants.NAME]: give one at least")
        if not self.seeds:
            raise ConfigError("seeds is empty: give one at least")
        for name, values in (("seeds", self.seeds), ("rates", self.rates)):
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} is {list(values)!r}: give each number once")
        _check_labels(list(self.variants))
        if self.tuning_seed in self.seeds:
            raise ConfigError(f"tuning_seed {self.tuning_seed} is one of seeds: take another")
        for label, options in self.variants.items():
            try:
                if "lr" not in options and not self.rates:
                    raise ConfigError("it has no lr, and the recipe no rates to choose from")
                for lr in self.rates or (None,):
                    for seed in (*self.seeds, self.tuning_seed):
                        check(self.config(label, seed, lr))
            except ConfigError as error:
                raise ConfigError(f"variant {label!r}: {error}") from None

    def config(self, label: str, seed: int, lr: float | None) -> SimConfig:
        """One run; `lr` counts where the variant has none of its own."""
        options = dict(self.variants[label])
        task = options.pop("task")
        options.setdefault("lr", lr)
        task_options = TASKS[task].options
        settings: dict[str, Any] = _take(options, SimConfig) | {"seed": seed}
        return SimConfig(
            task=task_options(**_take(options, task_options)),
            world=World(**_take(options, World)),
            **settings,
        )

    def is_tuned(self, label: str) -> bool:
        """Whether its rate is to be chosen."""
        return "lr" not in self.variants[label]


def read_comparison(name: str) -> Comparison:
    """The recipe in this file, or the one of this name in the package. Raises ConfigError."""
    text, origin = _text(name)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{origin} is not TOML: {error}") from None
    try:
        return parse(found)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files(RECIPES)
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name[-5:] == ".toml")


def folder_of(label: str) -> str:
    """Name of the folder with the runs of a variant."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", label).lstrip(".") or "variant"


def _check_labels(labels: list[str]) -> None:
    taken: dict[str, str] = {}
    for label in labels:
        other = taken.setdefault(folder_of(label).lower(), label)
        if other != label:
            raise ConfigError(
                f"variants {other!r} and {label!r} would share the folder {folder_of(label)}: "
                "tell them apart by letters, digits or dots"
            )


def _text(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from None
    known = recipe_names()
    if name in known:
        return (resources.files(RECIPES) / f"{name}.toml").read_text(), f"recipe {name}"
    raise ConfigError(
        f"there is no recipe {name}: neither a file nor one of {', '.join(known)}"
        f"{closest(name, known)}"
    )


def parse(found: Mapping[str, Any]) -> Comparison:
    """A comparison from a parsed TOML file. Raises ConfigError for a key or value it cannot use."""
    for key in found:
        if key not in KEYS:
            raise ConfigError(
                f"there is no key {key!r}, wanted {', '.join(KEYS)}{closest(key, list(KEYS))}"
            )
    common = _table("all", found.get("all", {}))
    variants = {
        label: common | _table(f"variants.{label}", options)
        for label, options in _table("variants", found.get("variants", {})).items()
    }
    for label, options in variants.items():
        _check_options(label, options)
    return Comparison(
        title=str(found.get("title", "Comparison")),
        variants=variants,
        seeds=_numbers("seeds", found.get("seeds", [0]), int),
        rates=_numbers("rates", found.get("rates", []), float),
        tuning_seed=_numbers("tuning_seed", [found.get("tuning_seed", 1000)], int)[0],
    )


def _check_options(label: str, options: dict[str, Any]) -> None:
    if "task" not in options:
        raise ConfigError(f"variant {label!r} has no task: give one of {', '.join(TASKS)} in [all]")
    one_of("task", _typed(f"variant {label!r}: task", options["task"], str), TASKS)
    known = {
        f.name: get_type_hints(cls)[f.name]
        for cls in (TASKS[options["task"]].options, World, SimConfig)
        for f in fields(cls)
        if f.default is not MISSING and f.name not in ("seed", "out", "overwrite")
    }
    for name, value in options.items():
        if name != "task" and name not in known:
            raise ConfigError(
                f"variant {label!r}: there is no option {name!r}{closest(name, list(known))}; "
                "`swarmsgd simulate TASK --help` lists them, with _ for -"
            )
        if name != "task":
            options[name] = _typed(f"variant {label!r}: {name}", value, known[name])


def _typed(what: str, value: Any, hint: Any) -> Any:
    """A value of the file as what the option holds. Raises ConfigError if it is of another kind."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value == "none" and NoneType in kinds:
        return None
    if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds):
        value = tuple(value) if all(isinstance(v, str) for v in value) else value
    for kind in kinds:
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, get_origin(kind) or kind) and isinstance(value, bool) <= (
            kind is bool
        ):
            return value
    wanted = " or ".join(_KINDS.get(get_origin(kind) or kind, str(kind)) for kind in kinds)
    raise ConfigError(f"{what} is {value!r}, wanted {wanted}")


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    bool: "true or false",
    tuple: "a list of texts",
    Path: "a path in quotes",
    NoneType: '"none"',
}


def _take(options: dict[str, Any], cls: type) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in options.items() if name in names}


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}, wanted a table: [{name}]")
    return dict(value)


def _numbers(name: str, value: Any, kind: type[int] | type[float]) -> list[Any]:
    allowed = (int,) if kind is int else (int, float)
    values = value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, allowed):
            raise ConfigError(f"{name} is {value!r}, wanted numbers, for instance [0, 1, 2]")
    return [kind(number) for number in values]
