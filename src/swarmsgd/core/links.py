"""Which links a node wants to its neighbours, and when to dial those it has not. Pure: time is an
argument.

Either end may dial. When both learn of each other at once the lower number does so at once, the
other a little later, should it be needed; a node that does not listen always does so at once, as
nobody can dial it. What cannot be reached is tried again with pauses that
grow, for as long as it is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
"""After a network was cut for long the halves find each other within so long."""
SECOND_S = 1.0
"""How long the higher of two nodes leaves it to the other to dial."""
KEEP_S = 5.0
"""A link that is not wanted any more is kept so long: the other end may want it."""


class WantedLinks:
    """The links of node `rank`."""

    __slots__ = ("_again", "_listens", "_open", "_pauses", "_rank", "_unwanted", "_wanted")

    def __init__(self, rank: int, *, listens: bool = True) -> None:
        self._rank = rank
        self._listens = listens
        self._wanted: frozenset[int] = frozenset()
        self._open: set[int] = set()
        self._again: dict[int, float] = {}
        """When to dial."""
        self._pauses: dict[int, float] = {}
        self._unwanted: dict[int, float] = {}
        """Since when an open link is not wanted."""

    @property
    def wanted(self) -> frozenset[int]:
        """Peers to which there shall be a link."""
        return self._wanted

    @property
    def deadline(self) -> float:
        """When `due` or `surplus` has something at the earliest."""
        if not self._again and not self._unwanted:  # the usual case, asked all the time
            return math.inf
        closing = (since + KEEP_S for since in self._unwanted.values())
        return min((*self._again.values(), *closing), default=math.inf)

    def want(self, peers: Iterable[int], now: float) -> None:
        """From now on links to these, and no others, are wanted."""
        before, self._wanted = self._wanted, frozenset(peers)
        for peer in self._wanted - before:
            self._unwanted.pop(peer, None)
            if peer not in self._open:
                self._again[peer] = now + self._leaves_s(peer)
        for peer in before - self._wanted:
            self._again.pop(peer, None)
            self._pauses.pop(peer, None)
            if peer in self._open:
                self._unwanted[peer] = now

    def fresh(self, peer: int, now: float) -> None:
        """`peer` was started again, or is heard of again: try it soon."""
        self._pauses.pop(peer, None)
        if peer in self._again:
            self._again[peer] = now + self._leaves_s(peer)

    def _leaves_s(self, peer: int) -> float:
        """How long it is left to `peer` to dial."""
        return 0.0 if self._rank < peer or not self._listens else SECOND_S

    def opened(self, peer: int, now: float) -> None:
        """There is a link."""
        self._open.add(peer)
        self._again.pop(peer, None)
        self._pauses.pop(peer, None)
        if peer not in self._wanted:
            self._unwanted[peer] = now

    def lost(self, peer: int, now: float) -> None:
        """There is none any more, or it could not be opened."""
        self._open.discard(peer)
        self._unwanted.pop(peer, None)
        if peer in self._wanted:
            pause_s = self._pauses.get(peer, FIRST_PAUSE_S)
            self._pauses[peer] = min(2 * pause_s, LONGEST_PAUSE_S)
            self._again[peer] = now + pause_s + self._leaves_s(peer)

    def due(self, now: float) -> list[int]:
        """Whom to dial now; `opened` or `lost` tells what came of it."""
        due = [peer for peer, when in self._again.items() if when <= now]
        for peer in due:
            del self._again[peer]
        return due

    def keep(self, peer: int, now: float) -> None:
        """Something is under way on a link that is not wanted: ask again later."""
        self._unwanted[peer] = now

    def surplus(self, now: float) -> list[int]:
        """Whose link to close, if nothing is under way on it."""
        return [peer for peer, since in self._unwanted.items() if since + KEEP_S <= now]
