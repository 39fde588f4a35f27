"""How far the whole swarm is, known by each node without asking anybody.

Every node keeps an estimate T of the steps (and samples) that all nodes together have made. Its own
step counts as one of each of the n live nodes, T += n; and two nodes that exchange average their
estimates, exactly, in the headers of the messages that go anyway. So the mean of all T grows by
what is made, whoever makes it: it is right however unevenly nodes work. One node's T is off by what
was made since word of it could come round, a few bursts of each node. A node that dies takes its
deviation from the mean along; who arrives begins with a neighbour's T. While nodes think n another
number than it is, their own steps count by that much too much or too little.
"""

from __future__ import annotations

from typing import NamedTuple

MOST = (1 << 48) - 1
"""What fits into a message."""


class Total(NamedTuple):
    """What all nodes together have made."""

    steps: int = 0
    samples: int = 0


class _State(NamedTuple):
    """Exchanged as one, so that any thread reads what belongs together."""

    total: Total
    folded: Total
    live: int


class Progress:
    """One node's knowledge. `made` is called by the training thread alone, what begins with an
    exchange by the exchange side alone; neither waits for the other.
    """

    __slots__ = ("_made", "_offered", "_shown", "_state")

    def __init__(self, live: int = 1, total: Total = Total()) -> None:  # noqa: B008
        self._made = Total()
        self._state = _State(total, Total(), live)
        self._offered = total
        self._shown = total

    @property
    def own(self) -> Total:
        """What this node made."""
        return self._made

    def made(self, steps: int, samples: int) -> None:
        """This node made so much more."""
        before = self._made
        self._made = Total(before.steps + steps, before.samples + samples)

    def total(self) -> Total:
        """The swarm's total, as far as it is known here; it never falls. For one thread."""
        now = _folded(self._state, self._made).total
        shown = self._shown
        self._shown = Total(max(now.steps, shown.steps), max(now.samples, shown.samples))
        return self._shown

    # The exchange side.

    def live(self, nodes: int) -> None:
        """So many nodes live, this one included."""
        self._state = _folded(self._state, self._made)._replace(live=max(1, nodes))

    def offered(self) -> Total:
        """What an offer tells; remembered for its reply."""
        self._offered = self.now()
        return self._offered

    def answered(self, theirs: Total) -> Total:
        """An offer was mixed; what the reply tells."""
        mine = self.now()
        self._move(theirs, mine)
        return mine

    def mixed(self, theirs: Total) -> None:
        """A reply was mixed."""
        self.now()
        self._move(theirs, self._offered)

    def take_over(self, total: Total) -> None:
        """Begin where a neighbour is."""
        self._state = self._state._replace(total=total, folded=self._made)
        self._offered = total

    def now(self) -> Total:
        """This node's T, as it is told: what others brought since an offer may put it below 0 for
        a while, where nodes are of very different speed.
        """
        self._state = _folded(self._state, self._made)
        total = self._state.total
        return Total(max(0, total.steps), max(0, total.samples))

    def _move(self, theirs: Total, mine: Total) -> None:
        """Half the difference; towards zero at both ends, so that the sum stays as it is."""
        steps, samples = self._state.total
        by_steps, by_samples = theirs.steps - mine.steps, theirs.samples - mine.samples
        changed = Total(
            steps + (by_steps + (by_steps < 0)) // 2,
            samples + (by_samples + (by_samples < 0)) // 2,
        )
        self._state = self._state._replace(total=changed)


def _folded(state: _State, made: Total) -> _State:
    """With what this node made since counted."""
    total, folded, live = state
    return _State(
        Total(
            total.steps + live * (made.steps - folded.steps),
            total.samples + live * (made.samples - folded.samples),
        ),
        made,
        live,
    )
