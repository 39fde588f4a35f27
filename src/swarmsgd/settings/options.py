"""Dataclasses of settings read as data: the options they make, and values from texts and files.

A field's docstring is its help. Its metadata may say `offered` (False: no command or file has it),
`table` (what it is chosen from, see `swarmsgd.checks.choices_of`), `agreed` and `words` (see
`swarmsgd.settings.swarm`).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from swarmsgd.errors import ConfigError

SWITCH: Mapping[str, bool | None] = {"auto": None, "on": True, "off": False}
"""How a setting is written that is on, off, or left to the package (auto)."""

_KINDS: Mapping[Any, tuple[str, str]] = {
    bool: ("on|off", "true or false"),
    int: ("INT", "a whole number"),
    float: ("NUMBER", "a number"),
    Path: ("PATH", "a path in quotes"),
    str: ("TEXT", "a text in quotes"),
    tuple: ("TEXT ...", "a list of texts"),
    NoneType: ("none", '"none"'),
}
"""Kind of value -> what stands for it in help, and in errors; in the order in which a text is tried
as each.
"""


def setting(default: Any, **metadata: Any) -> Any:
    """A field with metadata."""
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Option:
    """One setting, as a command or a file has it."""

    name: str
    kinds: tuple[Any, ...]
    """Kinds of value it can hold: keys of `_KINDS`."""
    default: Any
    help: str
    offered: bool
    table: Mapping[str, Any] | None

    def read(self, value: Any) -> Any:
        """A value of a file as what the setting holds. Raises ConfigError for another kind."""
        if value == "none" and NoneType in self.kinds:
            return None
        if self.is_switch and isinstance(value, str) and value in SWITCH:
            return SWITCH[value]
        if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            value = tuple(value)
        if value == "inf" and float in self.kinds:
            return math.inf
        for kind in self.kinds:
            if kind is Path and isinstance(value, str):
                return Path(value)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                return float(value)
            if isinstance(value, kind) and isinstance(value, bool) <= (kind is bool):
                return value
        raise ConfigError(f"{self.name} is {value!r}, wanted {self._wanted}")

    def read_text(self, text: str) -> Any:
        """What a person wrote, as what the setting holds. Raises ConfigError."""
        for kind in (k for k in self.kinds if k in (int, float)):
            try:
                return kind(text)
            except ValueError:
                continue
        return self.read(text.lower() if text.lower() == "none" else text)

    @property
    def is_switch(self) -> bool:
        """Whether it is on, off, or left to the package (None)."""
        return set(self.kinds) == {bool, NoneType}

    @property
    def metavar(self) -> str:
        """What stands for its value in help."""
        if self.is_switch:
            return "|".join(SWITCH)
        return "|".join(_KINDS[kind][0] for kind in self.kinds)

    @property
    def shown_default(self) -> str:
        """Its default, as a person would write it."""
        if self.is_switch:
            return next(word for word, value in SWITCH.items() if value is self.default)
        if isinstance(self.default, tuple):
            return " ".join(self.default) or "none"
        return "none" if self.default is None else str(self.default)

    @property
    def _wanted(self) -> str:
        return " or ".join(_KINDS[kind][1] for kind in self.kinds)


@functools.cache
def options_of(cls: type) -> Mapping[str, Option]:
    """Name -> option: the fields of a dataclass that have a default and are no dataclass."""
    hints, docs = get_type_hints(cls), _docs(cls)
    return {
        field.name: Option(
            name=field.name,
            kinds=_kinds(hints[field.name]),
            default=field.default,
            help=docs[field.name],
            offered=field.metadata.get("offered", True),
            table=field.metadata.get("table"),
        )
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING and not dataclasses.is_dataclass(field.default)
    }


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The kinds of a type that a text can hold, in the order of `_KINDS`."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    plain_kinds = [get_origin(kind) or kind for kind in kinds]
    return tuple(kind for kind in _KINDS if kind in plain_kinds)


def _docs(cls: type) -> dict[str, str]:
    """Name and docstring of the fields of a dataclass and of those it extends, from the source."""
    docs: dict[str, str] = {}
    for owner in reversed([c for c in cls.__mro__ if dataclasses.is_dataclass(c)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, tree.body[1:], strict=False):
            match field, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docs[name] = " ".join(text.split())
    return docs


def plain(value: Any) -> Any:
    """The value as JSON can hold it: infinity as the text "inf", NaN as null."""
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return "inf" if isinstance(value, float) and value == math.inf else value
