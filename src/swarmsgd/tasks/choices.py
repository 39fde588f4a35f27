"""Choosing from a table by name, with an error that helps."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from swarmsgd.errors import ConfigError

T = TypeVar("T")


def choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    """``table[name]``, or a ConfigError that names the nearest key and all the others.

    >>> choose("fruit", "appel", {"apple": 1, "pear": 2})
    Traceback (most recent call last):
    swarmsgd.errors.ConfigError: unknown fruit 'appel', did you mean 'apple'? There are: apple, pear
    """
    if name not in table:
        raise unknown(kind, name, table)
    return table[name]


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not one of `known`."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return ConfigError(f"unknown {kind} {name!r}{hint} There are: {', '.join(names)}")
