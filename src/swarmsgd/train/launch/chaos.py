"""Failures on purpose: what happens to which node of a launch, and when.

::

    kill:3@20            SIGKILL of node 3, 20 s after the launch
    restart:3@45         node 3 is started again
    stop:2@30-40         SIGSTOP of node 2, and SIGCONT ten seconds later
    slow:1:4@50-60       node 1 runs for a quarter of the time
    random:7             drawn from a seed: kills, stops and restarts, as long as the run lasts
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from swarmsgd.errors import ConfigError
from swarmsgd.seeds import stream
from swarmsgd.settings.happenings import NODES, NUMBER, SPAN, nodes_of, span_of

_EVENT = re.compile(rf"(?P<what>[a-z]+)[: ](?P<nodes>{NODES})(?::(?P<factor>{NUMBER}))?{SPAN}$")
_WORDS = {
    "kill": "kill:NODES@S",
    "restart": "restart:NODES@S",
    "stop": "stop:NODES@START-END",
    "slow": "slow:NODES:FACTOR@START-END",
}
PERIOD_S = 0.2
"""A slow node is let run and held within each period."""
_MEAN_PAUSE_S = 5.0
_LONGEST_STOP_S = 8.0


class Act(NamedTuple):
    """One thing to do to one node, `at_s` seconds after the launch."""

    at_s: float
    what: str
    """kill, start, hold or go."""
    node: int
    told: str = ""
    """What to say of it; "" for a step of something that was told of."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """Read from text; raises ConfigError."""

    acts: tuple[Act, ...]
    seed: int | None = None
    nodes: int = 0

    @classmethod
    def read(cls, text: str, nodes: int) -> Chaos:
        """For nodes 0 to `nodes` - 1."""
        seed = re.fullmatch(r"random:(\d{1,18})", text.strip())
        if seed:
            return cls((), int(seed[1]), nodes)
        acts: list[Act] = []
        words = re.findall(r"[a-z]+[: ]\s*\S+|\S+", text)
        for word in words:
            acts += _acts(word, nodes)
        if not acts:
            raise ConfigError("chaos is empty, wanted for instance kill:3@20, or random:7")
        return cls(tuple(sorted(acts)))

    def __iter__(self) -> Iterator[Act]:
        """In order of time; for ever if drawn."""
        return iter(self.acts) if self.seed is None else _drawn(self.seed, self.nodes)


def _acts(text: str, nodes: int) -> list[Act]:
    match = _EVENT.match(re.sub(r"\s+", ":", text))
    if match is None or match["what"] not in _WORDS:
        raise ConfigError(
            f"chaos: cannot read {text!r}, wanted {', '.join(_WORDS.values())} in seconds, or "
            "random:SEED"
        )
    what, named = match["what"], nodes_of("chaos", match["nodes"])
    start, end = span_of("chaos", text, match)
    spans = what in ("stop", "slow")
    if spans != (match["end"] is not None) or (what == "slow") != (match["factor"] is not None):
        raise ConfigError(f"chaos: {text!r} is not whole, wanted {_WORDS[what]}")
    if max(named) >= nodes:
        raise ConfigError(
            f"chaos speaks of node {max(named)}, but this launch has nodes 0 to {nodes - 1}: name "
            "one of these, or raise -n"
        )
    acts: list[Act] = []
    for node in named:
        if what == "kill":
            acts.append(Act(start, "kill", node, "killed"))
        elif what == "restart":
            acts.append(Act(start, "start", node, "started again"))
        elif what == "stop":
            acts.append(Act(start, "hold", node, f"stopped for {end - start:g} s"))
            acts.append(Act(end, "go", node, "goes on"))
        else:
            acts += _slow(node, float(match["factor"]), start, end)
    return acts


def _slow(node: int, factor: float, start: float, end: float) -> list[Act]:
    if not factor > 1:
        raise ConfigError(f"chaos: node {node} slowed by {factor:g}, wanted a factor above 1")
    acts = [Act(start, "hold", node, f"{factor:g} times slower for {end - start:g} s")]
    at = start
    while at + PERIOD_S < end:
        acts.append(Act(at + PERIOD_S * (1 - 1 / factor), "go", node))
        acts.append(Act(at + PERIOD_S, "hold", node))
        at += PERIOD_S
    return [*acts, Act(end, "go", node, "at its own speed again")]


def _drawn(seed: int, nodes: int) -> Iterator[Act]:
    """Kills with a restart some seconds later, and stops; node by node at most one at a time."""
    rng = stream("chaos", seed)
    now, busy_until = 0.0, np.zeros(nodes)
    later: list[Act] = []
    while True:
        now += float(rng.exponential(_MEAN_PAUSE_S))
        while later and later[0].at_s <= now:
            yield heappop(later)
        node, length = int(rng.integers(nodes)), float(rng.uniform(0.5, _LONGEST_STOP_S))
        kills = bool(rng.random() < 0.5)
        if busy_until[node] > now:
            continue
        busy_until[node] = now + length + 5.0
        if kills:
            yield Act(now, "kill", node, "killed")
            heappush(later, Act(now + length, "start", node, "started again"))
        else:
            yield Act(now, "hold", node, f"stopped for {length:.1f} s")
            heappush(later, Act(now + length, "go", node, "goes on"))
