"""What the records of a run tell, in aggregates of bounded size: for a report, or a live page."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from swarmsgd.observe.bins import Bins
from swarmsgd.observe.records import Record
from swarmsgd.observe.schema import KINDS
from swarmsgd.observe.view import NodeView

NODE_BINS = 120
LATELY_S = 10.0
_MOST_EVENTS = 300
MOST_EDGES = 200_000
FIRST_EXCHANGES = 240
"""So many exchanges are kept one by one, to be drawn as lines."""
_WORDS = 400
"""Letters of an event's text that are kept."""


@dataclass(slots=True)
class EdgeStory:
    """What the exchanges of one pair of nodes came to, as both ends saw it."""

    mixes: float = 0.0
    """Exchanges, those that both ends mixed counted once."""
    bytes: float = 0.0
    """Sent by the two together."""
    seconds: float = 0.0
    """Sum over the exchanges of the time from offer to mixed reply, of `timed` of them."""
    timed: float = 0.0
    longest_s: float = 0.0

    @property
    def mean_s(self) -> float | None:
        """From offer to mixed reply."""
        return self.seconds / self.timed if self.timed else None


class Happening(NamedTuple):
    """An event of a run."""

    t: float
    node: int
    what: str
    peer: int | None
    text: str


class Meeting(NamedTuple):
    """One exchange: begun by `node` at `t`, mixed after `seconds`."""

    t: float
    node: int
    peer: int
    seconds: float


class StepMs(NamedTuple):
    """Times of a node's local steps, in ms."""

    p50: float
    p99: float
    max: float


class NodeStory(NodeView):
    """What one node's records say, and how it went over time."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self.mixing = Bins(NODE_BINS)
        """Exchanges mixed here."""
        self.stepping = Bins(NODE_BINS)
        """Local steps."""
        self.losses = Bins(NODE_BINS)
        self.left_out = self.coded_off = 0.0
        """Blocks that were not mixed; that came in as float32."""
        self.last_t = 0.0
        """Of its newest record."""
        self.waited_s = 0.0
        """For means that others had still to ask for."""
        self._stepped_t: float | None = None
        """When steps were last told of, in this life of the node."""
        self._stepping_s = self._steps_since = 0.0
        """Time and number of steps between such times; without waits for a mean."""
        self._waits_since: float | None = None
        self.counted: dict[str, float] = {}
        """The last values of counts that only grow."""

    @property
    def step_times(self) -> StepMs | None:
        """If it has told: `train` does in its result, a script's node when it leaves."""
        result, end = self.last.get("result", {}), self.last.get("end", {})
        found = [finite(result.get(f"step_ms_{which}")) for which in StepMs._fields]
        if None in found:
            told = [finite(end.get(f"step_s_{which}")) for which in StepMs._fields]
            found = [None if seconds is None else 1000 * seconds for seconds in told]
        times = [time for time in found if time]
        return StepMs(*times) if len(times) == len(found) else None

    @property
    def longest_ms(self) -> float | None:
        """The longest local step, so far or of all."""
        if self.step_times is not None:
            return self.step_times.max
        return finite(self.last.get("progress", {}).get("step_ms_max"))

    def stepped(self, t: float, steps: float) -> None:
        """So many more local steps were told of at `t`."""
        if steps <= 0:
            return
        if self._stepped_t is not None:
            self._stepping_s += max(0.0, t - self._stepped_t)
            self._steps_since += steps
        self._stepped_t = t
        self.stepping.add(t, steps)

    def begun(self) -> None:
        """Its process has begun, perhaps in place of one that ended: no steps in between."""
        self._stepped_t = self._waits_since = None

    def waits(self, t: float, *, ends: bool) -> None:
        """It waits for the mean from `t` on, or until then."""
        if not ends:
            self._waits_since = t
        elif self._waits_since is not None:
            waited_s = max(0.0, t - self._waits_since)
            self.waited_s += waited_s
            if self._stepped_t is not None:
                self._stepped_t += waited_s
            self._waits_since = None

    @property
    def mean_ms(self) -> float | None:
        """Of a local step, over all of them: the time in which they were made, by their number.
        Waits for a mean are none of it.
        """
        return 1000 * self._stepping_s / self._steps_since if self._steps_since else None

    @property
    def steps_a_second(self) -> float | None:
        """Local steps a second: of the whole run if it is over, else lately."""
        wall_s = finite(self.last.get("result", {}).get("wall_s"))
        if wall_s and self.steps:
            return self.steps / wall_s
        bins = list(self.stepping)
        late = [one for one in bins if one.middle_s > bins[-1].middle_s - LATELY_S]
        late = late if len(late) > 1 else bins[-2:]
        if len(late) < 2:
            return None
        return sum(one.total for one in late[1:]) / (late[-1].middle_s - late[0].middle_s) or None

    @property
    def step_ms(self) -> float | None:
        """The median of the run if it is over, else the mean lately."""
        if self.step_times is not None:
            return self.step_times.p50
        return 1000 / self.steps_a_second if self.steps_a_second else None


@dataclass
class Story:
    """All nodes of a run together. `add` takes in records, in any order of nodes."""

    nodes: dict[int, NodeStory] = field(default_factory=dict)
    edges: dict[tuple[int, int], EdgeStory] = field(default_factory=dict)
    events: list[Happening] = field(default_factory=list)
    """The first and the last of them."""
    event_counts: Counter[str] = field(default_factory=Counter)
    first: list[Meeting] = field(default_factory=list)
    curve: list[Record] = field(default_factory=list)
    """Points of a simulated run."""
    records: int = 0
    end_s: float = 0.0
    """The time of the newest record."""
    losses: Bins = field(default_factory=Bins)
    """Training losses of nodes."""
    samples: Bins = field(default_factory=Bins)
    traffic: Bins = field(default_factory=Bins)
    """Bytes sent."""
    mixing: Bins = field(default_factory=Bins)
    """Exchanges, as both ends saw them."""
    estimates: Bins = field(default_factory=Bins)
    """Gamma as nodes estimate it."""
    distances: Bins = field(default_factory=Bins)
    latencies: Bins = field(default_factory=Bins)
    """Seconds from offer to mixed reply."""
    left_out: Bins = field(default_factory=Bins)

    def add(self, record: Record, t: float) -> None:
        """One record, at time `t` of the run. What makes no sense in it is left out."""
        kind = record["kind"]
        if type(kind) is not str:
            return
        self.records += 1
        if kind == "curve":
            self.curve.append(record)
            self.end_s = max(self.end_s, t)
            return
        node = self.node(record["node"])
        if kind == "event":
            self._event(record, t)
        if node is None or kind == "file":
            return
        self.end_s = max(self.end_s, t)
        node.last_t = max(node.last_t, t)
        if kind == "exchange":  # most lines are of this kind
            self._exchange(node, record, t)
            return
        record = cleaned(record)
        node.add(record)
        if kind == "start":
            node.begun()
        elif kind == "mean":
            node.waits(t, ends=record.get("of") is not None)
        if kind in ("progress", "result", "end"):
            self._progress(node, record, t)

    def node(self, finite: Any) -> NodeStory | None:
        """The story of a node, begun if there is none yet; None if that names no node."""
        if type(finite) is not int or finite < 0:
            return None
        found = self.nodes.get(finite)
        if found is None:
            found = self.nodes[finite] = NodeStory(finite)
        return found

    def _exchange(self, node: NodeStory, record: Record, t: float) -> None:
        every = finite(record.get("every")) or 1.0
        seconds, left_out = finite(record.get("seconds")), finite(record.get("left_out"))
        node.mixing.add(t, 1.0, every)
        self.mixing.add(t, 0.5, every)
        if (distance := finite(record.get("distance"))) is not None:
            self.distances.add(t, distance, every)
        if left_out:
            node.left_out += every * left_out
            self.left_out.add(t, left_out, every)
        node.coded_off += every * (finite(record.get("float32_blocks")) or 0.0)
        peer = record.get("peer")
        if type(peer) is not int or peer < 0:
            return
        pair = (node.node, peer) if node.node < peer else (peer, node.node)
        edge = self.edges.get(pair)
        if edge is None:
            if len(self.edges) >= MOST_EDGES:
                return
            edge = self.edges[pair] = EdgeStory()
        edge.mixes += every / 2
        edge.bytes += every * (finite(record.get("bytes_out")) or 0.0)
        if record.get("role") == "initiator" and seconds is not None:
            edge.seconds += every * seconds
            edge.timed += every
            edge.longest_s = max(edge.longest_s, seconds)
            self.latencies.add(t, seconds, every)
            if len(self.first) < FIRST_EXCHANGES:
                self.first.append(Meeting(t - seconds, node.node, peer, seconds))

    def _progress(self, node: NodeStory, record: Record, t: float) -> None:
        if (steps := self._grown(node, record, "steps")) is not None:
            node.stepped(t, steps)
        for name, bins in (("samples", self.samples), ("bytes_sent", self.traffic)):
            if (grown := self._grown(node, record, name)) is not None:
                bins.add(t, grown)
        if (loss := finite(record.get("loss"))) is not None:
            node.losses.add(t, loss)
            self.losses.add(t, loss)
        if (gamma := finite(record.get("gamma_estimate"))) is not None:
            self.estimates.add(t, gamma)

    def _grown(self, node: NodeStory, record: Record, name: str) -> float | None:
        """By how much a count has grown since the node's last record; it may have begun anew."""
        now = finite(record.get(name))
        if now is None:
            return None
        before = node.counted.get(name, 0.0)
        node.counted[name] = now
        return now - before if now >= before else now

    def _event(self, record: Record, t: float) -> None:
        what, peer = str(record.get("what"))[:40], record.get("peer")
        node = record["node"] if type(record["node"]) is int else -1
        self.event_counts[what] += 1
        if len(self.events) >= _MOST_EVENTS:
            del self.events[_MOST_EVENTS // 2]  # the first and the last are what one looks for
        text = str(record.get("text"))[:_WORDS]
        self.events.append(Happening(t, node, what, peer if type(peer) is int else None, text))


def cleaned(record: Record) -> Record:
    """The fields of a record that are what they should be; a file may hold anything."""
    kind = KINDS.get(record["kind"])
    units = kind.fields if kind is not None else {}
    found = {name: _as(units[name][0], value) for name, value in record.items() if name in units}
    known = {name: value for name, value in found.items() if value is not None}
    return {"t": record["t"], "node": record["node"], "kind": record["kind"], **known}


_TYPES = {"text": str, "flag": bool, "list": list, "object": dict}


def _as(unit: str, value: Any) -> Any:
    if unit in _TYPES:
        return value if isinstance(value, _TYPES[unit]) else None
    return finite(value)


def finite(value: Any) -> float | None:
    """A finite number, or None."""
    if type(value) is float or type(value) is int:
        return value if math.isfinite(value) else None
    return None
