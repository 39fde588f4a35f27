"""Checks of single settings, and the one `did you mean`.

`name` is the setting's as its user wrote it; a check raises ConfigError, or returns.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from swarmsgd.errors import ConfigError

Chosen = TypeVar("Chosen")


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` for the known name most like `name`, or ""."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f'; did you mean "{match[0]}"?' if match else ""


def choices_of(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each key of a table of choices its spelling and its line of help.

    A value of the table is that line, or has it as `help`. A key is spelled as it is, unless its
    value has another spelling as `usage`, for instance "torus[:ROWSxCOLS]".
    """
    return [
        (getattr(entry, "usage", name), entry if isinstance(entry, str) else entry.help)
        for name, entry in table.items()
    ]


def one_of(name: str, got: Any, table: Mapping[str, Chosen], *, text: str | None = None) -> Chosen:
    """`table[got]`, if there is one; `text` is what `got` was a part of.

    >>> one_of("mode", "bloking", {"blocking": "waits", "matching": "waits too"})
    Traceback (most recent call last):
    swarmsgd.errors.ConfigError: mode is 'bloking', wanted one of blocking, matching; did you mean \
"blocking"?
    """
    if isinstance(got, str) and got in table:
        return table[got]
    spelled = ", ".join(usage for usage, _ in choices_of(table))
    raise ConfigError(
        f"{name} is {got if text is None else text!r}, wanted one of {spelled}"
        f"{closest(str(got), table)}"
    )


def known(what: str, got: Iterable[str], names: Iterable[str], move: str = "") -> None:
    """Raise ConfigError for the first of `got` that is none of `names`."""
    names = list(names)
    for name in got:
        if name not in names:
            raise ConfigError(f"there is no {what} {name!r}{closest(name, names)}{move}")


def whole(name: str, got: Any, least: int, most: int | None = None, *, move: str = "") -> int:
    """`got`, if it is a whole number (numpy's too) of at least `least` and at most `most`.

    `move` is what to do otherwise.
    """
    try:
        number = operator.index(got)
    except TypeError:
        number = least - 1
    if not isinstance(got, bool) and number >= least and (most is None or number <= most):
        return number
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ConfigError(f"{name} is {got!r}, wanted a whole number {wanted}{move and f'; {move}'}")


def number(
    name: str,
    got: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raise ConfigError unless `got` is a finite number > `above`, >= `least`, < `below` and
    <= `most`.
    """
    fits = isinstance(got, int | float) and not isinstance(got, bool) and math.isfinite(got)
    if fits and above < got < below and least <= got <= most:
        return
    bounds = {"above": above, "of at least": least, "below": below, "of at most": most}
    wanted = " and ".join(f"{word} {b:g}" for word, b in bounds.items() if math.isfinite(b))
    if math.isfinite(least) and math.isfinite(most):
        wanted = f"from {least:g} to {most:g}"
    raise ConfigError(f"{name} is {got!r}, wanted a number {wanted}".rstrip())
