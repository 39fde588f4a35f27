"""What the doctor says of one thing."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

from swarmsgd.errors import SwarmError

WIDTH = 100
INDENT = 22


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do about it."""

    what: str
    found: str
    move: str = ""
    """What to do; empty: nothing."""
    bad: bool = False
    """Whether a run would fail, or be far from what it could be, as it is."""

    @property
    def mark(self) -> str:
        """fine, note (worth knowing) or TO DO."""
        return "TO DO" if self.bad else "note" if self.move else "fine"

    def __str__(self) -> str:
        lines = textwrap.wrap(self.found, WIDTH - INDENT, break_long_words=False)
        if self.move:
            lines += textwrap.wrap(f"-> {self.move}", WIDTH - INDENT, break_long_words=False)
        return f"{self.mark:<7}{self.what:<14} " + f"\n{' ' * INDENT}".join(lines)


Check = Callable[[], Finding | Iterator[Finding]]


def findings(what: str, check: Check) -> Iterator[Finding]:
    """What a check finds; an error that it raises is a finding too."""
    try:
        found = check()
        yield from [found] if isinstance(found, Finding) else found
    except SwarmError as error:
        text, _, move = str(error).partition(". ")
        if not move:
            text, _, move = text.rpartition(": ")
        yield Finding(what, text or move, move, bad=True)
