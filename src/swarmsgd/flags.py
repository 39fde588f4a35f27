"""Command-line options made from config dataclasses.

An option is a field, its help the docstring there, and what it can be comes from the tables of the
package: nothing is listed twice.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

SWITCH = {"auto": None, "on": True, "off": False}


def parse(prog: str, arguments: list[str], epilog: str, *classes: type) -> dict[str, Any]:
    """The values of the options that are the fields of `classes`; `epilog` follows their help."""
    import tyro

    try:
        flags = tyro.cli(
            flags_of(*classes),
            prog=prog,
            description=inspect.getdoc(classes[0]),
            args=arguments,
            registry=_registry(),
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as end:
        if not end.code:  # the help was printed
            print(epilog)
        raise
    return vars(flags)


def of(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in given.items() if name in names}


def flags_of(*classes: type) -> type:
    """One flat dataclass of all fields of `classes` that have a default, the first of a name
    counts, with their docstrings as help. It checks nothing: that is left to the classes.
    """
    import tyro

    flags: dict[str, tuple[str, Any, dataclasses.Field[Any]]] = {}
    for cls in classes:
        docs, hints = _field_docs(cls), get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.default is not dataclasses.MISSING and field.name not in flags:
                help_ = tyro.conf.arg(help=docs[field.name])
                annotation = Annotated[hints[field.name], help_]
                default = dataclasses.field(default=field.default)
                flags[field.name] = (field.name, annotation, default)
    return dataclasses.make_dataclass("Flags", list(flags.values()), kw_only=True)


def _field_docs(cls: type) -> dict[str, str]:
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


def _registry() -> Any:
    """How tyro reads and shows what may be left out (`none`, or a value) or left to us (`auto`)."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    from swarmsgd.config import BITS

    bits = "|".join("none" if bits is None else str(bits) for bits in BITS)
    kinds: dict[Any, tuple[type, str]] = {
        int | None: (int, bits),
        float | None: (float, "NUMBER"),
        Path | None: (Path, "PATH"),
    }
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type not in kinds:
            return None
        kind, metavar = kinds[info.type]
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: None if words[0].lower() == "none" else kind(words[0]),
            is_instance=lambda value: value is None or isinstance(value, kind),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    @registry.primitive_rule
    def _(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if info.type != bool | None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="auto|on|off",
            instance_from_str=lambda words: SWITCH[words[0]],
            is_instance=lambda value: value is None or isinstance(value, bool),
            str_from_instance=lambda value: [word for word, of in SWITCH.items() if of is value],
            choices=tuple(SWITCH),
        )

    return registry


def choices(more: Mapping[str, Iterable[tuple[str, str]]], *classes: type) -> str:
    """What the options that name something can be, from the tables."""
    from swarmsgd import config, graphs, recipe, tasks

    tables: dict[str, Iterable[tuple[str, str]]] = {
        "dataset": ((name, entry.help) for name, entry in tasks.DATASETS.items()),
        "model": ((name, entry.help) for name, entry in tasks.MODELS.items()),
        "partition": (
            (usage, text)
            for usage, text in (e.help.split(": ", 1) for e in tasks.PARTITIONS.values())
        ),
        "graph": ((kind.usage, kind.help) for kind in graphs.GRAPHS.values()),
        "mode": config.MODES.items(),
        "schedule": ((name, entry.help) for name, entry in recipe.SCHEDULES.items()),
        **more,
    }
    known = {f.name for cls in classes for f in dataclasses.fields(cls)}
    blocks: list[str] = []
    for option, rows in tables.items():
        if option in known:
            rows = list(rows)
            width = max(len(name) for name, _ in rows)
            lines = [f"  {name:<{width}}  {text}" for name, text in rows]
            blocks.append("\n".join([f"--{option}:", *lines]))
    return "\n".join(blocks) + "\n"
