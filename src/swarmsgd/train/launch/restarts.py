"""What a launcher does to nodes later: starts failed ones again, and makes some fail on purpose."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from swarmsgd.train.launch.chaos import Act, Chaos
from swarmsgd.train.launch.processes import NodeEnd, Note

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
CHAOS_SIGNALS = {"kill": signal.SIGKILL, "hold": signal.SIGSTOP, "go": signal.SIGCONT}


class Restarts:
    """Starts each node that failed again, at most `most` times, after pauses that double."""

    def __init__(self, most: int) -> None:
        self.waiting: dict[int, float] = {}
        """Nodes to start again, and when."""
        self.ordered: set[int] = set()
        """Killed on purpose: they stay dead until they are ordered to start."""
        self._then: set[int] = set()
        """Of these, who was ordered to start before it was seen to be dead."""
        self._most = most
        self._made: dict[int, int] = {}

    def ended(self, end: NodeEnd, now: float, *, over: bool) -> Iterator[Note]:
        """A node has ended; `over`: so has the run, or it shall."""
        if end.node in self.ordered:
            self.ordered.discard(end.node)
            if end.node in self._then:
                self._then.discard(end.node)
                self.waiting[end.node] = now
            return
        made = self._made.get(end.node, 0)
        if not end.failed or over or not self._most:
            return
        if made == self._most:
            yield Note(f"node {end.node} failed {made + 1} times: given up", end.node)
            return
        pause_s = min(_FIRST_PAUSE_S * 2**made, _LONGEST_PAUSE_S)
        self._made[end.node] = made + 1
        self.waiting[end.node] = now + pause_s
        yield Note(
            f"node {end.node} is started again in {pause_s:g} s ({made + 1} of {self._most})",
            end.node,
        )

    def once_dead(self, node: int) -> bool:
        """Start a node that was killed on purpose as soon as it has ended; False: it was not."""
        if node in self.ordered:
            self._then.add(node)
        return node in self.ordered

    def due(self, now: float) -> list[int]:
        """Whom to start now."""
        due = [node for node, when in self.waiting.items() if when <= now]
        for node in due:
            del self.waiting[node]
        return due

    def cancel(self, node: int) -> None:
        """It was started for another reason."""
        self.waiting.pop(node, None)


class Acts:
    """The acts of a `chaos`, as their time comes; it begins when first asked."""

    def __init__(self, chaos: Chaos) -> None:
        self._acts = iter(chaos)
        self._next: Act | None = next(self._acts, None)
        self._begin: float | None = None

    def due(self, now: float) -> list[Act]:
        """What to do now."""
        self._begin = now if self._begin is None else self._begin
        due: list[Act] = []
        while self._next is not None and self._begin + self._next.at_s <= now:
            due.append(self._next)
            self._next = next(self._acts, None)
        return due
