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
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from swarmsgd.checks import closest, known
from swarmsgd.errors import ConfigError
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import check_run
from swarmsgd.tasks import TASKS, find_task

KEYS = ("title", "seeds", "rates", "tuning_seed", "all", "variants")
NOT_OF_A_VARIANT = ("seed", "out", "overwrite")
"""Options of a run that the comparison decides itself."""
RECIPES = "swarmsgd.sim.comparison.recipes"
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
                for lr in self.rates or (options["lr"],):
                    for seed in (*self.seeds, self.tuning_seed):
                        check_run(self.config(label, seed, lr))
            except ConfigError as error:
                raise ConfigError(f"variant {label!r}: {error}") from None

    def config(self, label: str, seed: int, lr: float) -> SimConfig:
        """One run; `lr` counts where the variant has none of its own."""
        options: dict[str, Any] = {"lr": lr, **self.variants[label], "seed": seed}
        return SimConfig.of(**options)

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
        return parse_recipe(found)
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
    names = recipe_names()
    if name in names:
        return (resources.files(RECIPES) / f"{name}.toml").read_text(), f"recipe {name}"
    raise ConfigError(
        f"there is no recipe {name}: neither a file nor one of {', '.join(names)}"
        f"{closest(name, names)}"
    )


def parse_recipe(found: Mapping[str, Any]) -> Comparison:
    """A comparison from a parsed TOML file. Raises ConfigError for a key or value it cannot use."""
    known("key", found, KEYS, f"; there are {', '.join(KEYS)}")
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


def _check_options(label: str, options: Mapping[str, Any]) -> None:
    """That it has a task, and no option that is none or not a variant's to choose."""
    if "task" not in options:
        raise ConfigError(f"variant {label!r} has no task: give one of {', '.join(TASKS)} in [all]")
    try:
        task, _ = find_task(options["task"])
        parts = SimConfig.options(task).values()
        names = [name for part in parts for name in part if name not in NOT_OF_A_VARIANT]
        move = "; `swarmsgd simulate TASK --help` lists them, with _ for -"
        known("option", (name for name in options if name != "task"), names, move)
    except ConfigError as error:
        raise ConfigError(f"variant {label!r}: {error}") from None


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
