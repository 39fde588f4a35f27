"""Checks of single settings, and the one `did you mean`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from swarmsgd.errors import ConfigError


def closest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` for the known name most like `name`, or ""."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f'; did you mean "{match[0]}"?' if match else ""


def one_of(name: str, got: str, table: Iterable[str]) -> None:
    """Raise ConfigError unless `got` is one of `table`, which may be a mapping."""
    known = list(table)
    if got not in known:
        raise ConfigError(
            f"{name} is {got!r}, wanted one of {', '.join(known)}{closest(got, known)}"
        )


def whole(name: str, got: Any, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless `got` is a whole number of at least `least`, at most `most`."""
    fits = isinstance(got, int) and not isinstance(got, bool) and got >= least
    if fits and (most is None or got <= most):
        return
    to = "of at least" if most is None else "from"
    end = "" if most is None else f" to {most}"
    raise ConfigError(f"{name} is {got!r}, wanted a whole number {to} {least}{end}")


def number(
    name: str,
    got: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raise ConfigError unless `got` is a finite number > `above`, >= `least` and < `below`."""
    fits = isinstance(got, int | float) and not isinstance(got, bool) and math.isfinite(got)
    if fits and above < got < below and got >= least:
        return
    bounds: Mapping[str, float] = {"above": above, "of at least": least, "below": below}
    wanted = " and ".join(
        f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)
    )
    raise ConfigError(f"{name} is {got!r}, wanted a number {wanted}".rstrip())
