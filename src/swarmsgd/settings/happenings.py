"""Things that happen to nodes at given times, as options spell them: `3-5,7` and `@10-20`."""

from __future__ import annotations

import math
import re

from swarmsgd.errors import ConfigError

_LARGEST = 9_999_999
"""The largest node number that is read: a slip of the finger must not fill the memory."""
NODES = r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*"
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
SPAN = rf"(?:@(?P<start>{NUMBER})(?:-(?P<end>{NUMBER}))?)"


def nodes_of(option: str, text: str) -> tuple[int, ...]:
    """`0-2,7` as (0, 1, 2, 7). Raises ConfigError."""
    nodes: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise ConfigError(f"{option}: {part!r} runs backwards: write {last}-{first}")
        if int(last or first) > _LARGEST:
            raise ConfigError(f"{option}: {part!r} speaks of a node above {_LARGEST:,}")
        nodes.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(nodes))


def span_of(option: str, text: str, match: re.Match[str]) -> tuple[float, float]:
    """Start and end in seconds of a match with SPAN; the end is inf where there is none. Raises
    ConfigError.
    """
    start = float(match["start"]) if match["start"] else 0.0
    end = float(match["end"]) if match["end"] else math.inf
    if not start < end:
        raise ConfigError(f"{option}: {text!r} ends before it begins: give START-END")
    if match["end"] and end == math.inf:
        raise ConfigError(f"{option}: {text!r} has no finite end: give START-END in seconds")
    return start, end
