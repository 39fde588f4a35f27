"""What all nodes do together: the common start, and to know who is alive.

Neither may hang because a node died. A node that lives says so by a beat in the store. A node whose
beat has stood still too long (`LOST_S` if a neighbour lost its link to it, else `SILENT_S`) is left
out, by one decision for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import torch

from swarmsgd.errors import ModelError, PeerError
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.meet.tree import MESSAGE_BYTES, Tree, TreeBroken

BEAT_S = 1.0
LOST_S = 5.0
"""A node whose link a neighbour lost counts as dead once its beat has stood still this long."""
SILENT_S = 30.0
"""A node counts as dead once its beat has stood still this long, whatever its neighbours saw."""
UNSEEN_S = 5.0
"""How long the store's host waits for a node that never beat: it did not get through its start."""


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


def broadcast(
    rendezvous: Rendezvous,
    tensors: list[torch.Tensor],
    timeout_s: float,
    *,
    root: int = 0,
    take: bool = True,
) -> None:
    """Overwrite `tensors` with node `root`'s, on all nodes that `take` them; returns when all have
    done so.

    Raises PeerError if not all take part, ModelError for a tensor that cannot be overwritten.
    """
    order = [root, *(r for r in range(rendezvous.place.num_nodes) if r != root)]

    def meet(endpoint: str) -> list[str]:
        told = rendezvous.get_all("starts", endpoint, timeout_s)
        return [told[rank] for rank in order]

    received = [tensor.detach().to("cpu").contiguous() for tensor in tensors]
    if not take and rendezvous.place.rank != root:  # these may be the node's own memory
        received = [torch.empty_like(host) for host in received]
    try:
        tree = Tree.open(
            rendezvous.key("start"),
            order,
            rendezvous.listen(MESSAGE_BYTES),
            meet=meet,
            gone=rendezvous.gone,
            timeout_s=timeout_s,
        )
    except TreeBroken as error:
        raise _lost(root, error) from None
    try:
        for host in received:
            tree.broadcast(host.reshape(-1).view(torch.uint8).numpy())
        for tensor, host in zip(tensors, received, strict=True):
            if take:
                _take_over(tensor, host)
        rendezvous.get_all("started", "", timeout_s)
    except TreeBroken as error:
        raise _lost(root, error) from None
    finally:
        tree.close()  # when all have all of it, or nobody will


def _lost(root: int, error: TreeBroken) -> PeerError:
    return PeerError(f"a node was lost while others took over node {root}'s model: {error}")


def _take_over(tensor: torch.Tensor, values: torch.Tensor) -> None:
    try:
        with torch.no_grad():
            tensor.copy_(values)
    except RuntimeError as error:
        raise ModelError(
            f"a tensor of shape {list(tensor.shape)} and strides {list(tensor.stride())} "
            f"cannot take over node 0's values: {error}. If it was expanded, clone() it"
        ) from None
