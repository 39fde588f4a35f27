"""Links in virtual time: a node's transfers share its capacity up and down, in equal parts.

A message from i to j moves at ``min(up_i / transfers out of i, down_j / transfers into j)``, which
changes as others begin and end: the fluid picture of fair links. Messages of one pair go one after
the other. The last byte arrives a latency after it was sent.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from swarmsgd.core.wire_code import Bytes
from swarmsgd.sim.engine.agenda import Agenda
from swarmsgd.sim.engine.world import Slowness, World

Deliver = Callable[[int, int, Bytes], None]
"""Called with (source, target, message) when a message has arrived."""
Pair = tuple[int, int]


class _Transfer:
    __slots__ = ("left", "message", "pair", "rate", "since", "version")

    def __init__(self, pair: Pair, message: Bytes, now: float) -> None:
        self.pair = pair
        self.message = message
        self.left = float(len(message))
        self.rate = 0.0
        self.since = now
        self.version = 0


class Network:
    """Moves messages between nodes over `agenda`'s time and hands them to `deliver`."""

    def __init__(self, world: World, agenda: Agenda, deliver: Deliver) -> None:
        self._agenda = agenda
        self._deliver = deliver
        self._latency_s = world.latency_ms / 1000
        self._capacity = world.bandwidth_mbit_s * 1e6 / 8
        self._slowness = Slowness(world.link_slowdowns)
        self._cuts = [(frozenset(h.nodes), h) for h in world.happenings if h.what == "cut"]
        self._out: dict[int, dict[Pair, _Transfer]] = {}
        self._into: dict[int, dict[Pair, _Transfer]] = {}
        self._waiting: dict[Pair, deque[Bytes]] = {}
        self._dead: set[int] = set()
        self._lives: dict[int, int] = {}
        """How often a node was revived: what was sent to or by an earlier life is lost."""
        self._links: dict[Pair, int] = {}
        """How often the link of two nodes, the lower first, was closed, if it was."""
        times = {t for f in world.link_slowdowns for t in (f.start_s, f.end_s)}
        times |= {t for _, h in self._cuts for t in (h.start_s, h.end_s)}
        for time_s in sorted(t for t in times if 0 < t < math.inf):
            agenda.at(time_s, self._rates_changed, None)

    @property
    def latency_s(self) -> float:
        """One way."""
        return self._latency_s

    def send(self, source: int, target: int, message: Bytes) -> None:
        """Begin to move `message`, or queue it behind an earlier one of the same pair."""
        if source in self._dead or target in self._dead:
            return
        if self._capacity == math.inf and not self._cuts:
            self._fly((source, target), message)
            return
        pair = (source, target)
        if pair in self._out.get(source, {}):
            self._waiting.setdefault(pair, deque()).append(message)
            return
        self._begin(pair, message)

    def kill(self, node: int) -> None:
        """Whatever moves to or from `node` is lost."""
        self._dead.add(node)
        pairs = [*self._out.get(node, {}), *self._into.get(node, {})]
        for pair in pairs:
            self._waiting.pop(pair, None)
            self._end(self._out[pair[0]][pair])

    def close(self, one: int, other: int) -> None:
        """The link between two nodes is closed: what is on its way there is lost."""
        for pair in ((one, other), (other, one)):
            self._waiting.pop(pair, None)
            transfer = self._out.get(pair[0], {}).get(pair)
            if transfer is not None:
                self._end(transfer)
        link = min(one, other), max(one, other)
        self._links[link] = self._links.get(link, 0) + 1

    def revive(self, node: int) -> None:
        """`node` may send and receive again."""
        self._dead.discard(node)
        self._lives[node] = self._lives.get(node, 0) + 1

    def _begin(self, pair: Pair, message: Bytes) -> None:
        transfer = _Transfer(pair, message, self._agenda.now)
        self._out.setdefault(pair[0], {})[pair] = transfer
        self._into.setdefault(pair[1], {})[pair] = transfer
        self._share(pair)

    def _end(self, transfer: _Transfer) -> None:
        pair = transfer.pair
        transfer.version += 1
        del self._out[pair[0]][pair], self._into[pair[1]][pair]
        self._share(pair)

    def _share(self, pair: Pair) -> None:
        """New rates for all transfers that share an end with this pair."""
        touched = dict(self._out.get(pair[0], {})) | self._into.get(pair[1], {})
        for transfer in touched.values():
            self._set_rate(transfer)

    def _set_rate(self, transfer: _Transfer) -> None:
        now = self._agenda.now
        rate = self._rate(transfer.pair)
        if rate == transfer.rate:
            return
        transfer.left = max(0.0, transfer.left - transfer.rate * (now - transfer.since))
        transfer.rate, transfer.since = rate, now
        transfer.version += 1
        if rate > 0:
            ends = now + transfer.left / rate
            self._agenda.at(ends, self._sent, (transfer, transfer.version))

    def _rate(self, pair: Pair) -> float:
        source, target = pair
        now = self._agenda.now
        if self._is_cut(pair):
            return 0.0
        up = self._capacity / self._slowness.at(source, now)
        down = self._capacity / self._slowness.at(target, now)
        return min(up / self._moving(self._out[source]), down / self._moving(self._into[target]))

    def _moving(self, transfers: dict[Pair, _Transfer]) -> int:
        if not self._cuts:
            return len(transfers)
        return sum(not self._is_cut(pair) for pair in transfers)

    def _is_cut(self, pair: Pair) -> bool:
        now = self._agenda.now
        return any(
            (pair[0] in nodes) != (pair[1] in nodes) and cut.start_s <= now < cut.end_s
            for nodes, cut in self._cuts
        )

    def _rates_changed(self, _: object) -> None:
        for transfers in list(self._out.values()):
            for transfer in list(transfers.values()):
                self._set_rate(transfer)

    def _sent(self, ticket: tuple[_Transfer, int]) -> None:
        transfer, version = ticket
        if transfer.version != version:
            return  # its rate has changed since
        self._end(transfer)
        pair = transfer.pair
        self._fly(pair, transfer.message)
        queue = self._waiting.get(pair)
        if queue:
            self._begin(pair, queue.popleft())
            if not queue:
                del self._waiting[pair]

    def _fly(self, pair: Pair, message: Bytes) -> None:
        """Its last byte has left."""
        ends = self._agenda.now + self._latency_s
        self._agenda.at(ends, self._arrive, (pair, message, self._life_of(pair)))

    def _arrive(self, what: tuple[Pair, Bytes, tuple[int, int, int]]) -> None:
        pair, message, life = what
        if self._dead.isdisjoint(pair) and self._life_of(pair) == life:
            self._deliver(*pair, message)

    def _life_of(self, pair: Pair) -> tuple[int, int, int]:
        """Of both ends and of their link: what left in another one does not arrive."""
        closed = self._links.get((min(pair), max(pair)), 0) if self._links else 0
        return self._lives.get(pair[0], 0), self._lives.get(pair[1], 0), closed
