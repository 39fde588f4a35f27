"""What all nodes do together: the common start, and the exact mean of the live nodes.

Neither may hang because a node died. A node that lives says so by a beat in the store. A node whose
beat has stood still too long (`LOST_S` if a neighbour lost its link to it, else `SILENT_S`) is left
out, by one decision for all.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import cast

import torch
from torch.distributed import DistError, ProcessGroup

from swarmsgd.errors import ModelError, PeerError
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.transport.gloo import open_group

BEAT_S = 1.0
LOST_S = 5.0
"""A node whose link a neighbour lost counts as dead once its beat has stood still this long."""
SILENT_S = 30.0
"""A node counts as dead once its beat has stood still this long, whatever its neighbours saw."""
UNSEEN_S = 5.0
"""How long the store's host waits for a node that never beat: it did not get through its start."""
GROUP_TIMEOUT_S = 60.0
TRIES = 3
"""A mean that the same nodes have tried this often is given up: no death explains it, since the
next try leaves the dead out.
"""
CHUNK = 1 << 20
"""Parameters averaged at a time, in float64."""


class Beat:
    """Tells the store every second that this node lives, and which peers it lost.

    If the store is gone the beat stops; training does not need it.
    """

    def __init__(self, rendezvous: Rendezvous, lost_peers: Iterable[int]) -> None:
        self._rendezvous = rendezvous
        self._lost_peers = lost_peers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swarmsgd-beat", daemon=True)

    def start(self) -> None:
        """Begin to beat; the first time before this returns."""
        self._store = self._rendezvous.connect()
        self._once()
        self._thread.start()

    def stop(self) -> None:
        """End the beat; no thread is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _once(self) -> None:
        self._store.add(self._rendezvous.key("beat", self._rendezvous.place.rank), 1)

    def _run(self) -> None:
        told: set[int] = set()
        key = self._rendezvous.key
        try:
            while True:
                self._once()
                for peer in set(self._lost_peers) - told:
                    self._store.add(key("lost", peer), 1)
                    told.add(peer)
                if self._stop.wait(BEAT_S):
                    return
        except RuntimeError:
            return


class Watch:
    """Who has stopped beating, as seen from here."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous
        self._seen: dict[int, tuple[int, float]] = {}

    def is_dead(self, rank: int) -> bool:
        """Whether to go on without `rank`. Looks into the store; call it again and again."""
        store, key = self._rendezvous.store, self._rendezvous.key
        if self._rendezvous.gone(rank):
            return True
        beat, now = store.add(key("beat", rank), 0), time.monotonic()
        last, since = self._seen.get(rank, (-1, now))
        if beat != last:
            self._seen[rank] = (beat, now)
            return False
        limit_s = LOST_S if store.check([key("lost", rank)]) else SILENT_S
        return now - since > limit_s

    def is_unseen(self, rank: int) -> bool:
        """Whether `rank`, looked at by `is_dead` for a while, has never beaten at all."""
        beat, since = self._seen.get(rank, (-1, 0.0))
        return beat == 0 and time.monotonic() - since > UNSEEN_S


def say_goodbye(rendezvous: Rendezvous) -> None:
    """The last call to the store. The node that hosts it stays until all have left or are dead."""
    try:
        rendezvous.leave()
        watch = Watch(rendezvous)
        waiting = set(range(rendezvous.place.num_nodes))
        while rendezvous.hosts and waiting:
            waiting = {r for r in waiting if not watch.is_dead(r) and not watch.is_unseen(r)}
            time.sleep(0.05 if waiting else 0)
    except RuntimeError:
        pass  # the store's host is gone before us: nobody is left to say goodbye to
    rendezvous.close()


def broadcast(rendezvous: Rendezvous, tensors: list[torch.Tensor], timeout_s: float) -> None:
    """Overwrite `tensors` with node 0's, on all nodes; returns when all have done so.

    Raises PeerError if not all take part, ModelError for a tensor that cannot be overwritten.
    """
    num_nodes = rendezvous.place.num_nodes
    rendezvous.get_all("starts", "", timeout_s)  # names who died since; a group would only wait
    received = [tensor.detach().to("cpu").contiguous() for tensor in tensors]
    try:
        group = _group(rendezvous, rendezvous.key("start"), range(num_nodes), timeout_s)
        for host in received:
            group.broadcast(host.reshape(-1).view(torch.uint8), root=0).wait()
    except RuntimeError as error:
        raise PeerError(f"a node was lost while all took over node 0's model: {error}") from None
    for tensor, host in zip(tensors, received, strict=True):
        _take_over(tensor, host)
    rendezvous.get_all("started", "", timeout_s)
    del group  # not before: a slow node may still have been about to connect to this one


def _take_over(tensor: torch.Tensor, values: torch.Tensor) -> None:
    try:
        with torch.no_grad():
            tensor.copy_(values)
    except RuntimeError as error:
        raise ModelError(
            f"a tensor of shape {list(tensor.shape)} and strides {list(tensor.stride())} "
            f"cannot take over node 0's values: {error}. If it was expanded, clone() it"
        ) from None


class Mean:
    """One exact mean of the models of all live nodes, the `number`-th of the run; used once."""

    def __init__(self, rendezvous: Rendezvous, number: int) -> None:
        self._rendezvous = rendezvous
        self._name = rendezvous.key("mean", number)

    def of(
        self, settled: Callable[[], list[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], float, list[int]]:
        """The mean of each vector, sum_i ||x_i - mu||^2 of the first one, and the nodes that took
        part.

        `settled` gives this node's vectors (1-d, floating). It is called when nobody exchanges any
        more, once for each try.

        Every node that took part gets the same bits. If one dies meanwhile the others begin again
        without it. Raises PeerError if this node was left out, if the store is gone, or after
        `TRIES` failures of the same nodes; what `settled` raises is passed on.
        """
        try:
            return self._of(settled)
        except DistError as error:
            raise PeerError(
                f"the store of this run cannot be reached any more ({error}), without which there "
                "is no mean. This node's own model is intact: save that"
            ) from None

    def _of(
        self, settled: Callable[[], list[torch.Tensor]]
    ) -> tuple[list[torch.Tensor], float, list[int]]:
        rank = self._rendezvous.place.rank
        watch = Watch(self._rendezvous)
        self._rendezvous.store.set(f"{self._name}/ready/{rank}", "1")
        attempt, tried, before = 0, 0, [-1]
        while True:
            members = self._members(attempt, watch)
            if rank not in members:
                raise PeerError(
                    f"node {rank} was silent for so long that the others took their mean without "
                    f"it "
                    f"(nodes {members}). Its own model is intact: save that, or use theirs"
                )
            name = f"{self._name}/{attempt}"
            vectors, why = settled(), "another node says why"
            group = None
            try:
                self._meet(name, members, watch)
                group = _group(self._rendezvous, name, members, GROUP_TIMEOUT_S)
                means, spread = _means(group, len(members), vectors)
            except RuntimeError as error:  # a member died meanwhile
                why = str(error)
                self._rendezvous.store.set(f"{name}/failed", "1")
            else:
                self._rendezvous.store.set(f"{name}/done/{rank}", "1")
                if self._all_succeeded(name, members, watch):
                    return means, spread, members
            del group  # not before: a slow member may not have heard all that this one sent
            attempt += 1
            tried, before = (tried + 1 if members == before else 1), members
            if tried == TRIES:
                raise PeerError(
                    f"the mean of nodes {members} failed {TRIES} times, though all of them live: "
                    f"{why}. This node's own model is intact: save that"
                )

    def _members(self, attempt: int, watch: Watch) -> list[int]:
        """Wait until every node is ready or dead; the first to see it decides for all."""
        store, count = self._rendezvous.store, self._rendezvous.place.num_nodes
        decided = f"{self._name}/{attempt}/members"
        # After a failed attempt a dead member's beat must be seen standing still first.
        begin = time.monotonic() + (LOST_S + 2 * BEAT_S if attempt else 0.0)
        while not store.check([decided]):
            dead = {r for r in range(count) if watch.is_dead(r)}
            ready = [r for r in range(count) if store.check([f"{self._name}/ready/{r}"])]
            if dead.union(ready) == set(range(count)) and time.monotonic() >= begin:
                alive = [r for r in ready if r not in dead]
                store.compare_set(decided, "", json.dumps(alive))
            else:
                time.sleep(0.05)
        return json.loads(store.get(decided))

    def _meet(self, name: str, members: list[int], watch: Watch) -> None:
        """Wait until all members are here. Raises RuntimeError if one died since, or never comes:
        a group would only wait.
        """
        store = self._rendezvous.store
        store.set(f"{name}/here/{self._rendezvous.place.rank}", "1")
        waiting = set(members)
        give_up = time.monotonic() + GROUP_TIMEOUT_S
        while waiting := {r for r in waiting if not store.check([f"{name}/here/{r}"])}:
            if time.monotonic() > give_up or any(watch.is_dead(r) for r in waiting):
                raise RuntimeError(f"nodes {sorted(waiting)} did not come")
            time.sleep(0.02)

    def _all_succeeded(self, name: str, members: list[int], watch: Watch) -> bool:
        """Wait; False if a member failed, True if each member has the result or is dead."""
        store = self._rendezvous.store
        while True:
            if store.check([f"{name}/failed"]):
                return False
            if all(store.check([f"{name}/done/{r}"]) or watch.is_dead(r) for r in members):
                return True
            time.sleep(0.02)


def _means(
    group: ProcessGroup, count: int, vectors: list[torch.Tensor]
) -> tuple[list[torch.Tensor], float]:
    means = [_mean(group, vector, count) for vector in vectors]
    spread = torch.zeros(1, dtype=torch.float64)
    for mine, mean in zip(vectors[0].split(CHUNK), means[0].split(CHUNK), strict=True):
        spread += (mine.double() - mean.double()).square().sum()
    _sum(group, spread)
    return means, float(spread)


def _mean(group: ProcessGroup, vector: torch.Tensor, count: int) -> torch.Tensor:
    mean = torch.empty(vector.shape, dtype=vector.dtype)
    for mine, out in zip(vector.split(CHUNK), mean.split(CHUNK), strict=True):
        total = mine.to("cpu", torch.float64, copy=True)  # may be a part of the node's own model
        _sum(group, total)
        out.copy_(total / count)
    return mean


def _sum(group: ProcessGroup, values: torch.Tensor) -> None:
    group.allreduce(values).wait()  # a sum, by default


def _group(
    rendezvous: Rendezvous, name: str, members: Iterable[int], timeout_s: float
) -> ProcessGroup:
    ranks = list(members)
    group = open_group(
        name,
        rendezvous.connect(),
        ranks.index(rendezvous.place.rank),
        len(ranks),
        address=rendezvous.address,
        timeout=timedelta(seconds=timeout_s),
    )
    return cast(ProcessGroup, group)  # torch's stubs say nothing of a backend's collectives
