"""Tasks of one's own: a class in a file or module of the user's, named ``FILE.py:CLASS``.

The class is made as ``CLASS(options, num_nodes, notify)`` and is then a `Task`. It may have

* ``Options``, a frozen dataclass that extends `OwnOptions`: its fields are options of the command,
  their docstrings the help;
* ``run``, a mapping: options of a run (lr, optimizer, epochs, ...) with other defaults;
* ``files``, see `swarmsgd.tasks.base.files_of`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard, cast

from swarmsgd.checks import closest
from swarmsgd.errors import ConfigError
from swarmsgd.tasks.base import Notify, Recipe, Task

HOW = "docs/tasks.md says what a task of one's own has"


@dataclass(frozen=True, kw_only=True)
class OwnOptions:
    """What every task of one's own has as options; extend it to add some."""

    own: str = field(default="", metadata={"offered": False})
    """The task, as FILE.py:CLASS."""

    seed: int = 0
    """Seed of the data."""

    @property
    def name(self) -> str:
        """The task's name in titles."""
        return self.own.rpartition(":")[2]


class OwnTask(NamedTuple):
    """What `find_own` finds; fields as in `registry.TASKS`."""

    options: type[Any]
    make: Any
    help: str
    recipes: Mapping[str, Recipe]


def is_own(name: object) -> TypeGuard[str]:
    """Whether it is spelled as a task of one's own is, not as a data set in a folder."""
    place, colon, cls = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    return bool(colon) and cls.isidentifier() and place != "folder"


def full_name(name: str) -> str:
    """The name, good in every folder."""
    place, _, cls = name.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{cls}" if place.endswith(".py") else name


@cache
def find_own(name: str) -> OwnTask:
    """The task ``FILE.py:CLASS`` or ``MODULE:CLASS``. Raises ConfigError."""
    place, _, cls_name = name.rpartition(":")
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    found: Any = getattr(module, cls_name, None)
    if not inspect.isclass(found):
        classes = [n for n, c in vars(module).items() if inspect.isclass(c)]
        raise ConfigError(
            f"{place} has no class {cls_name!r}, it has {', '.join(classes) or 'none'}"
            f"{closest(cls_name, classes)}"
        )
    options = getattr(found, "Options", OwnOptions)
    if not (inspect.isclass(options) and is_dataclass(options) and issubclass(options, OwnOptions)):
        raise ConfigError(
            f"{name}: Options is {options!r}, wanted a frozen dataclass that extends "
            f"swarmsgd.tasks.OwnOptions; {HOW}"
        )

    def make(chosen: OwnOptions, num_nodes: int, notify: Notify) -> Task:
        task = cast(Any, found)(chosen, num_nodes, notify)
        if lacking := [part for part in _parts() if not hasattr(task, part)]:
            raise ConfigError(f"{name} has no {', '.join(lacking)}; {HOW}")
        return task

    text = inspect.getdoc(found) or ""
    recipes = {"default": Recipe("what the task says", getattr(found, "run", {}))}
    return OwnTask(options, make, text.partition("\n")[0], recipes)


def _parts() -> list[str]:
    return [name for name in vars(Task) if not name.startswith("_")]


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}: a task of one's own is FILE.py:CLASS")
    name = f"swarmsgd_own_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _find_neighbours_in(path.parent)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _cannot_load(path, error) from error
    return module


def _find_neighbours_in(folder: Path) -> None:
    """Let what lies there be imported, as a script finds its neighbours; but behind Python's own
    modules, which a token.py or queue.py there would replace for all that is imported later.
    """
    if str(folder) in sys.path:
        return
    own = Path(sysconfig.get_path("stdlib"))
    places = [number for number, path in enumerate(sys.path) if Path(path).is_relative_to(own)]
    installed = [n for n in places if "site-packages" in sys.path[n]]
    behind = max(set(places) - set(installed), default=-1)
    sys.path.insert(behind + 1, str(folder))


def _module(name: str) -> ModuleType:
    _find_neighbours_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise _cannot_load(name, error) from error


def _cannot_load(what: object, error: Exception) -> ConfigError:
    """With the innermost line of the user's own that is to blame."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == str(what) else line
    at = "" if line is None else f", line {line}"
    return ConfigError(f"{what}{at} cannot be loaded: {type(error).__name__}: {error}")
