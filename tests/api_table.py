"""The names of docs/api.md with a sentence each, for who reads the plain file."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swarmsgd.settings.options import options_of
from swarmsgd.settings.swarm import SwarmSettings

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
HEAD = "| name | in short |\n| --- | --- |"
_DIRECTIVE = re.compile(r"^\.\. auto(\w+):: ([\w.]+)(?:\(\))?((?:\n   :.*)*)", re.MULTILINE)
_MEMBERS = re.compile(r":members:(.*)")


def table() -> str:
    """One row a name that the page has a directive for, and a row for each of its members."""
    rows = [HEAD]
    for kind, name, options in _DIRECTIVE.findall(PAGE.read_text()):
        found = importlib.import_module(name) if kind == "module" else _find(name)
        rows.append(_row(name.removeprefix("swarmsgd."), found))
        members = _MEMBERS.search(options)
        if members is not None:
            listed = re.findall(r"\w+", members[1])
            short = "errors" if kind == "module" else found.__name__
            rows += [_row(f"{short}.{n}", m) for n, m in _members(found, listed)]
    return "\n".join(rows)


def _find(name: str) -> Any:
    path, _, last = name.rpartition(".")
    return getattr(importlib.import_module(path), last)


def _members(of: Any, listed: list[str]) -> Iterator[tuple[str, Any]]:
    if of is SwarmSettings:
        yield from ((name, options_of(of)[name].help) for name in listed)
        return
    for name, found in vars(of).items():
        documented = callable(found) or isinstance(found, property | classmethod)
        if inspect.ismodule(of):  # not what it imports
            documented = documented and found.__module__ == of.__name__
        if documented and not name.startswith("_") and (not listed or name in listed):
            yield name, found


def _row(name: str, found: Any) -> str:
    text = found if isinstance(found, str) else inspect.getdoc(found) or ""
    text = text.partition("\n\n")[0]
    sentence = re.split(r"(?<!\.\.)(?<=\.)\s(?=[A-Z`])", " ".join(text.split()), maxsplit=1)[0]
    return f"| `{name}` | {sentence.replace('|', chr(92) + '|')} |"
