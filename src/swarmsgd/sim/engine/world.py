"""The world a simulated run happens in: how fast nodes compute, what links carry, what goes wrong.

Frozen values with units in their names, checked when made; `swarmsgd.sim.engine.speeds` and
`network` act on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from swarmsgd.checks import number
from swarmsgd.errors import ConfigError
from swarmsgd.settings.happenings import NODES, NUMBER, SPAN, nodes_of, span_of

_FACTOR = re.compile(rf"(?P<nodes>{NODES}):(?P<factor>{NUMBER}){SPAN}?$")
_EVENT = re.compile(rf"(?P<what>[a-z]+):(?P<nodes>{NODES}){SPAN}$")

EVENTS = {
    "kill": "NODES stop at that second; their neighbours notice by their lost links",
    "join": "NODES come at that second and begin with a live neighbour's model",
    "cut": "between two seconds nothing passes between NODES and all others",
}
"""What an event of the world may be, and a line of help."""


class Factor(NamedTuple):
    """`nodes` are `factor` times slower from `start_s` to `end_s` of virtual time."""

    nodes: tuple[int, ...]
    factor: float
    start_s: float = 0.0
    end_s: float = math.inf

    def at(self, now: float) -> bool:
        return self.start_s <= now < self.end_s


class Slowness:
    """How many times slower a node is at a moment: the product of all `factors` for it then."""

    def __init__(self, factors: Iterable[Factor]) -> None:
        self._of: dict[int, list[Factor]] = {}
        for factor in factors:
            for node in factor.nodes:
                self._of.setdefault(node, []).append(factor)

    def at(self, node: int, now: float) -> float:
        factors = self._of.get(node)
        return math.prod(f.factor for f in factors if f.at(now)) if factors else 1.0


class WorldEvent(NamedTuple):
    """`what` (a key of EVENTS) happens to `nodes` at `start_s`; a cut lasts until `end_s`."""

    what: str
    nodes: tuple[int, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class World:
    """Where a simulated run happens. Raises ConfigError for what makes no sense."""

    step_time_ms: float = 10.0
    """Time of a local step on a usual node."""

    step_jitter: float = 0.0
    """Spread of the time of single steps: sigma of a log-normal factor of median 1."""

    speed_spread: float = 0.0
    """Spread of the nodes' speeds: sigma of a log-normal factor of median 1, drawn once a node."""

    bandwidth_mbit_s: float = 1000.0
    """What a node can send, and receive, in a second; its transfers share it. inf: no limit."""

    latency_ms: float = 0.1
    """Time from one end of a link to the other, one way."""

    stragglers: tuple[str, ...] = ()
    """Slower nodes: NODES:FACTOR or NODES:FACTOR@START-END in seconds; 3:4 or 0-7:2@10-20."""

    slow_links: tuple[str, ...] = ()
    """Nodes whose bandwidth is a FACTOR smaller, written as stragglers are."""

    events: tuple[str, ...] = field(default=(), metadata={"table": EVENTS})
    """What happens when: kill:NODES@S, join:NODES@S or cut:NODES@START-END, in seconds."""

    def __post_init__(self) -> None:
        number("step_time_ms", self.step_time_ms, above=0)
        number("step_jitter", self.step_jitter, least=0, most=3)
        number("speed_spread", self.speed_spread, least=0, most=3)
        number("latency_ms", self.latency_ms, least=0)
        if not self.bandwidth_mbit_s > 0:
            raise ConfigError(
                f"bandwidth_mbit_s is {self.bandwidth_mbit_s!r}, wanted a number above 0, or inf"
            )
        # Read once here, so that a mistake shows before anything runs.
        _ = self.slowdowns, self.link_slowdowns, self.happenings

    @property
    def slowdowns(self) -> tuple[Factor, ...]:
        """`stragglers`, read."""
        return tuple(_factor("stragglers", text) for text in self.stragglers)

    @property
    def link_slowdowns(self) -> tuple[Factor, ...]:
        """`slow_links`, read."""
        return tuple(_factor("slow_links", text) for text in self.slow_links)

    @property
    def happenings(self) -> tuple[WorldEvent, ...]:
        """`events`, read."""
        return tuple(_happening(text) for text in self.events)

    @property
    def absent_at_start(self) -> frozenset[int]:
        """The nodes that come later: the first of their kills and joins is a join."""
        first: dict[int, str] = {}
        for happening in sorted(self.happenings, key=lambda h: h.start_s):
            if happening.what != "cut":
                for node in happening.nodes:
                    first.setdefault(node, happening.what)
        return frozenset(node for node, what in first.items() if what == "join")

    def title(self) -> str:
        """Its times, and what goes wrong in it, for the title of a run."""
        parts = [f"steps of {self.step_time_ms:g} ms, {self.bandwidth_mbit_s:g} Mbit/s"]
        for name in ("stragglers", "slow_links", "events"):
            values = getattr(self, name)
            if values:
                parts.append(f"{name.replace('_', ' ')} {' '.join(values)}")
        return ", ".join(parts)

    def check(self, num_nodes: int) -> None:
        """Raise ConfigError if the world speaks of nodes that do not exist."""
        named = [("stragglers", f.nodes) for f in self.slowdowns]
        named += [("slow_links", f.nodes) for f in self.link_slowdowns]
        named += [("events", h.nodes) for h in self.happenings]
        for option, nodes in named:
            if max(nodes) >= num_nodes:
                raise ConfigError(
                    f"{option} speaks of node {max(nodes)}, but the run has nodes 0 to "
                    f"{num_nodes - 1}: name one of these, or raise --nodes"
                )
        if len(self.absent_at_start) == num_nodes:
            raise ConfigError("events: all nodes join later, wanted one at least from the start")
        live = set(range(num_nodes)) - self.absent_at_start
        for happening in sorted(self.happenings, key=lambda h: h.start_s):
            if happening.what == "join":
                live.update(happening.nodes)
            elif happening.what == "kill":
                live.difference_update(happening.nodes)
            if not live:
                raise ConfigError(
                    f"events: no node is left from second {happening.start_s:g} on: spare one"
                )


def _factor(option: str, text: str) -> Factor:
    match = _FACTOR.match(text.strip())
    if match is None:
        raise ConfigError(
            f"{option}: cannot read {text!r}, wanted NODES:FACTOR or NODES:FACTOR@START-END in "
            "seconds, for instance 3:4, 0-7:2 or 3:4@10-20"
        )
    start, end = span_of(option, text, match)
    factor = float(match["factor"])
    if not 0 < factor < math.inf:
        raise ConfigError(
            f"{option}: the factor of {text!r} is {factor:g}, wanted a finite one above 0"
        )
    return Factor(nodes_of(option, match["nodes"]), factor, start, end)


def _happening(text: str) -> WorldEvent:
    match = _EVENT.match(text.strip())
    if match is None or match["what"] not in EVENTS:
        raise ConfigError(
            f"events: cannot read {text!r}, wanted kill:NODES@S, join:NODES@S or "
            "cut:NODES@START-END in seconds, for instance kill:3@10"
        )
    start, end = span_of("events", text, match)
    if (match["what"] == "cut") != (match["end"] is not None):
        move = "give START-END" if match["what"] == "cut" else "give one second"
        raise ConfigError(f"events: {text!r} has the wrong kind of time: {move}")
    return WorldEvent(match["what"], nodes_of("events", match["nodes"]), start, end)
