"""How long lock-step algorithms' messages take, in seconds of virtual time.

Units: bytes, seconds, bytes a second. A node's capacity is the world's bandwidth, up and down each,
divided by the factors of its slow links at that moment; nothing passes a cut until it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from swarmsgd.sim.engine.world import World

Times = npt.NDArray[np.float64]
Nodes = npt.NDArray[np.int64]

FLOAT_BYTES = 4


class TransferTimes:
    """Times of transfers; capacities change only at the moments that the world names."""

    def __init__(self, world: World, num_nodes: int) -> None:
        self.latency_s = world.latency_ms / 1000
        self._num_nodes = num_nodes
        self._capacity = world.bandwidth_mbit_s * 1e6 / 8
        self._slow = world.link_slowdowns
        self._cuts = [h for h in world.happenings if h.what == "cut"]
        moments = {t for span in (*self._slow, *self._cuts) for t in (span.start_s, span.end_s)}
        inside = sorted(t for t in moments if 0 < t < math.inf)
        self._spans = list(zip([0.0, *inside], [*inside, math.inf], strict=True))

    def capacity_N(self, now: float) -> Times:
        """[N] what each node can send, and receive, in a second."""
        capacity = np.full(self._num_nodes, self._capacity)
        for factor in self._slow:
            if factor.at(now):
                capacity[list(factor.nodes)] /= factor.factor
        return capacity

    def sent(
        self, sources_E: Nodes, targets_E: Nodes, starts_E: Times, nbytes: float, share_E: Times
    ) -> Times:
        """[E] when the last byte of each transfer has left; it arrives `latency_s` later.

        A transfer moves at `share` of the smaller of what its source can send and its target
        receive.
        """

        def rates(now: float) -> Times:
            capacity = self.capacity_N(now)
            rate = share_E * np.minimum(capacity[sources_E], capacity[targets_E])
            for inside in self._cut_off(now):
                rate[inside[sources_E] != inside[targets_E]] = 0
            return rate

        return self._finish(starts_E, nbytes, rates)

    def allreduce_end(self, start_s: float, nbytes: float) -> float:
        """When an all-reduce of vectors of `nbytes` that begins at `start_s` is over.

        2 (n - 1)/n `nbytes` through the slowest node's link, as around a ring, and 2 log2(n)
        latencies, as by recursive halving and doubling (Thakur, Rabenseifner, Gropp 2005), which
        has both if n is a power of two: a favour to other n.
        """
        n = self._num_nodes
        if n == 1:
            return start_s

        def rates(now: float) -> Times:
            cut = any(0 < inside.sum() < n for inside in self._cut_off(now))
            return np.array([0.0 if cut else self.capacity_N(now).min()])

        sent = self._finish(np.array([start_s]), allreduce_bytes(n, nbytes), rates)
        return float(sent[0]) + allreduce_rounds(n) * self.latency_s

    def _cut_off(self, now: float) -> list[npt.NDArray[np.bool_]]:
        """[N] for each cut that lasts now: which nodes are on its inside."""
        return [
            np.isin(np.arange(self._num_nodes), cut.nodes)
            for cut in self._cuts
            if cut.start_s <= now < cut.end_s
        ]

    def _finish(self, starts_E: Times, nbytes: float, rates: Callable[[float], Times]) -> Times:
        ends = starts_E.astype(np.float64)
        left = np.full(len(starts_E), float(nbytes))
        for begin, end in self._spans:
            if not left.any():
                break
            rate = rates(begin)
            at = np.maximum(ends, begin)
            active = (left > 0) & (at < end)
            with np.errstate(divide="ignore", invalid="ignore"):
                over = at + left / rate
            finished = active & (over <= end)
            going = active & ~finished
            ends[finished], left[finished] = over[finished], 0
            left[going] -= (rate * (end - at))[going]
            ends[going] = end
        return ends


def allreduce_rounds(num_nodes: int) -> int:
    """How many latencies an all-reduce has, one after another."""
    return 2 * (num_nodes - 1).bit_length()


def allreduce_bytes(num_nodes: int, nbytes: float) -> float:
    """What each node sends in an all-reduce of vectors of `nbytes`."""
    return 2 * (num_nodes - 1) / num_nodes * nbytes


class Collective:
    """All nodes wait for the slowest, then for an all-reduce of one vector [D]."""

    def __init__(self, world: World, num_nodes: int, dim: int, *, overlap: bool = False) -> None:
        self._links = TransferTimes(world, num_nodes)
        self._nbytes = FLOAT_BYTES * dim
        self._overlap = overlap
        self.sent_bytes = allreduce_bytes(num_nodes, self._nbytes)
        """By each node in a round."""

    def ends(self, begin_N: Times, computed_N: Times) -> Times:
        """[N] when it is over, the same for all.

        With `overlap` it begins when the slowest node is half through, and is over no sooner than
        the slowest node: compute + max(0, all-reduce - compute / 2) among equals.
        """
        ready = float(computed_N.max())
        start = float((begin_N + computed_N).max()) / 2 if self._overlap else ready
        end = max(ready, self._links.allreduce_end(start, self._nbytes))
        return np.full(len(computed_N), end)
