"""Who can be asked for an exchange now, and how long to wait for the answer. Pure: time is an
argument.

A peer is *open* (its link works), *silent* (an answer was overdue: it is left alone for a while
that doubles each time, until it is heard from) or *gone* (link lost, or it left).

Patience is learned, link by link, from the exchange times seen there, as TCP learns its
retransmission timeout (Jacobson 1988): a multiple of the running mean plus deviations. Nobody has
to guess a timeout.
"""

from __future__ import annotations

from collections.abc import Iterable

FIRST_PATIENCE_S = 30.0
"""Before any exchange time was seen anywhere. A dead peer shows earlier, by its lost link."""
LEAST_PATIENCE_S = 1.0
"""A process may be descheduled that long on a busy machine without being at fault."""
MOST_PATIENCE_S = 600.0
_MULTIPLE = 8.0
_FIRST_SILENCE_S = 1.0
_LONGEST_SILENCE_S = 60.0


class LinkTimes:
    """Running mean and deviation of one link's exchange times, in seconds."""

    __slots__ = ("deviation_s", "mean_s")

    def __init__(self, first_s: float) -> None:
        self.mean_s = first_s
        self.deviation_s = first_s / 2

    def add(self, seconds: float) -> None:
        """One more exchange took `seconds`."""
        error = seconds - self.mean_s
        self.mean_s += error / 8
        self.deviation_s += (abs(error) - self.deviation_s) / 4

    @property
    def patience_s(self) -> float:
        """How long an answer may take before it counts as overdue."""
        wanted = _MULTIPLE * (self.mean_s + 2 * self.deviation_s)
        return min(max(wanted, LEAST_PATIENCE_S), MOST_PATIENCE_S)


class Membership:
    """The neighbours of one node."""

    __slots__ = ("_gone", "_incarnations", "_misses", "_silent_until", "_times", "open")

    def __init__(self, neighbours: Iterable[int]) -> None:
        self.open: tuple[int, ...] = tuple(neighbours)
        """Neighbours that are not gone."""
        self._gone: set[int] = set()
        self._incarnations: dict[int, int] = {}
        self._silent_until: dict[int, float] = {}
        self._misses: dict[int, int] = {}
        self._times: dict[int, LinkTimes] = {}

    @property
    def gone(self) -> frozenset[int]:
        """Neighbours whose link was lost or who left."""
        return frozenset(self._gone)

    def candidates(self, now: float) -> tuple[int, ...]:
        """Neighbours worth asking at `now`: open, and not silent."""
        if not self._silent_until:
            return self.open
        return tuple(p for p in self.open if self._silent_until.get(p, now) <= now)

    def patience_s(self, peer: int) -> float:
        """How long to wait for an answer of `peer`; doubled for each time it kept silent lately."""
        times = self._times.get(peer)
        if times is not None:
            base = times.patience_s
        elif self._times:
            base = max(t.patience_s for t in self._times.values())
        else:
            base = FIRST_PATIENCE_S
        return min(base * 2 ** self._misses.get(peer, 0), MOST_PATIENCE_S)

    def heard(self, peer: int) -> None:
        """A message of `peer` came in: it is not silent."""
        if self._silent_until:
            self._silent_until.pop(peer, None)

    def answered(self, peer: int, seconds: float) -> None:
        """An exchange with `peer` was answered after `seconds`, in time or late."""
        self._misses.pop(peer, None)
        times = self._times.get(peer)
        if times is None:
            self._times[peer] = LinkTimes(seconds)
        else:
            times.add(seconds)

    def overdue(self, peer: int, now: float) -> None:
        """`peer` did not answer in time: leave it alone for a while."""
        misses = min(self._misses.get(peer, 0) + 1, 6)
        self._misses[peer] = misses
        silence_s = min(_FIRST_SILENCE_S * 2**misses, _LONGEST_SILENCE_S)
        self._silent_until[peer] = now + silence_s

    def incarnation(self, peer: int) -> int:
        """The latest life of `peer` that is known."""
        return self._incarnations.get(peer, 0)

    def lives(self, peer: int, incarnation: int) -> None:
        """`peer` was started for the `incarnation`-th time after its first."""
        self._incarnations[peer] = max(incarnation, self.incarnation(peer))

    def joined(self, peer: int) -> None:
        """A link to `peer` is open (again)."""
        if peer not in self.open:
            self.open = tuple(sorted((*self.open, peer)))
            self._gone.discard(peer)

    def lost(self, peer: int) -> None:
        """`peer` is gone."""
        if peer in self.open:
            self.open = tuple(p for p in self.open if p != peer)
            self._gone.add(peer)
        self._silent_until.pop(peer, None)
        self._times.pop(peer, None)
        self._misses.pop(peer, None)
