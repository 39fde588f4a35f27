"""The exact mean of the models of all live nodes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch.distributed import DistError

from swarmsgd.errors import PeerError
from swarmsgd.train.meet.collective import BEAT_S, LOST_S, Watch
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.meet.tree import MESSAGE_BYTES, Tree

TREE_TIMEOUT_S = 60.0
TRIES = 3
"""A mean that the same nodes have tried this often is given up: no death explains it, since the
next try leaves the dead out.
"""
CHUNK = 1 << 20
"""Parameters averaged at a time, in float64."""
TELL_S = 5.0
"""A mean that has waited this long for nodes says for whom."""

_log = logging.getLogger("swarmsgd")


class Float(NamedTuple):
    """A floating-point buffer of a node's model, for a mean."""

    value: torch.Tensor
    averaged: bool = True
    """Else all take over that of the first node: a mean of such values would mean nothing."""

    @property
    def kind(self) -> str:
        """What all nodes must have alike."""
        return f"{self.value.dtype} {list(self.value.shape)} {self.averaged}"


class Means(NamedTuple):
    """What each node that takes part in a mean gets, with the same bits."""

    model: torch.Tensor
    """[D] the mean mu of the nodes' vectors x_i, in host memory."""
    gamma: float
    """sum_i ||x_i - mu||^2."""
    buffers: dict[str, torch.Tensor]
    """By name, in host memory; without those that are not alike on all these nodes."""
    nodes: list[int]
    """Who took part."""


class Mean:
    """One exact mean of the models of all live nodes, the `number`-th of the run; used once."""

    def __init__(self, rendezvous: Rendezvous, number: int) -> None:
        self._rendezvous = rendezvous
        self._name = rendezvous.key("mean", number)

    def of(
        self, settled: Callable[[], torch.Tensor], buffers: Mapping[str, Float] | None = None
    ) -> Means:
        """The mean of the nodes' models and buffers.

        `settled` gives this node's vector, [D] floating. It is called when nobody exchanges any
        more, once for each try. If a node dies meanwhile the others begin again without it. Raises
        PeerError if this node was left out, if the store is gone, or after `TRIES` failures of the
        same nodes; what `settled` raises is passed on.
        """
        try:
            means = self._of(settled, buffers or {})
        except DistError as error:
            raise PeerError(
                f"the store of this run cannot be reached any more ({error}), without which there "
                "is no mean. This node's own model is intact: save that"
            ) from None
        absent = sorted(set(range(self._rendezvous.place.num_nodes)) - set(means.nodes))
        if absent:
            _log.warning(
                "this mean is of nodes %s alone: node %s has left or is dead",
                means.nodes,
                ", ".join(map(str, absent)),
            )
        return means

    def _of(self, settled: Callable[[], torch.Tensor], buffers: Mapping[str, Float]) -> Means:
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
            model, why = settled(), "another node says why"
            tree = None
            try:
                tree, alike = self._tree(name, members, watch, buffers)
                mean, gamma = _mean_and_spread(tree, len(members), model)
                means = Means(mean, gamma, {}, members)
                for each in alike:
                    means.buffers[each] = _of_buffer(tree, members, rank, buffers[each])
            except RuntimeError as error:  # a member died meanwhile
                why = str(error)
                self._rendezvous.store.set(f"{name}/failed", "1")
            else:
                self._rendezvous.store.set(f"{name}/done/{rank}", "1")
                if self._all_succeeded(name, members, watch):
                    return means
            finally:
                if tree is not None:
                    tree.close()  # when all have all of it, or this attempt has failed
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
        tell = time.monotonic() + TELL_S
        while not store.check([decided]):
            dead = {r for r in range(count) if watch.is_dead(r)}
            ready = [r for r in range(count) if store.check([f"{self._name}/ready/{r}"])]
            if dead.union(ready) == set(range(count)) and time.monotonic() >= begin:
                alive = [r for r in ready if r not in dead]
                store.compare_set(decided, "", json.dumps(alive))
                continue
            absent = sorted(set(range(count)) - dead.union(ready))
            if absent and time.monotonic() >= tell:
                tell = math.inf
                _log.warning(
                    "mean_model() waits for node %s, which trains on: all nodes must call it, "
                    "equally often",
                    ", ".join(map(str, absent)),
                )
            time.sleep(0.05)
        return json.loads(store.get(decided))

    def _tree(
        self, name: str, members: list[int], watch: Watch, buffers: Mapping[str, Float]
    ) -> tuple[Tree, list[str]]:
        """A tree of all members, and the names of the buffers that are alike on all of them.
        Raises RuntimeError if one died since, or never comes.
        """
        store = self._rendezvous.store
        mine = {each: buffer.kind for each, buffer in buffers.items()}
        alike: list[str] = []

        def meet(endpoint: str) -> list[str]:
            here = f"{name}/here/{self._rendezvous.place.rank}"
            store.set(here, json.dumps([endpoint, mine]))
            waiting = set(members)
            give_up = time.monotonic() + TREE_TIMEOUT_S
            while waiting := {r for r in waiting if not store.check([f"{name}/here/{r}"])}:
                if time.monotonic() > give_up or any(watch.is_dead(r) for r in waiting):
                    raise RuntimeError(f"nodes {sorted(waiting)} did not come")
                time.sleep(0.02)
            told = [json.loads(store.get(f"{name}/here/{r}")) for r in members]
            alike[:] = sorted(
                n for n, kind in mine.items() if all(kinds.get(n) == kind for _, kinds in told)
            )
            return [at for at, _ in told]

        tree = Tree.open(
            name,
            members,
            self._rendezvous.listen(MESSAGE_BYTES),
            meet=meet,
            gone=watch.is_dead,
            timeout_s=TREE_TIMEOUT_S,
        )
        return tree, alike

    def _all_succeeded(self, name: str, members: list[int], watch: Watch) -> bool:
        """Wait; False if a member failed, True if each member has the result or is dead."""
        store = self._rendezvous.store
        while True:
            if store.check([f"{name}/failed"]):
                return False
            if all(store.check([f"{name}/done/{r}"]) or watch.is_dead(r) for r in members):
                return True
            time.sleep(0.02)


def _mean_and_spread(tree: Tree, count: int, vector: torch.Tensor) -> tuple[torch.Tensor, float]:
    whole = _mean(tree, count, vector)
    spread = torch.zeros(1, dtype=torch.float64)
    for mine, mean in zip(vector.split(CHUNK), whole.split(CHUNK), strict=True):
        spread += (mine.double() - mean.double()).square().sum()
    tree.sum(spread.numpy())
    return whole, float(spread)


def _of_buffer(tree: Tree, members: list[int], rank: int, buffer: Float) -> torch.Tensor:
    value = buffer.value.detach().flatten()
    if not buffer.averaged and rank != members[0]:
        value = torch.zeros_like(value)
    mean = _mean(tree, len(members) if buffer.averaged else 1, value)
    return mean.view(buffer.value.shape)


def _mean(tree: Tree, count: int, vector: torch.Tensor) -> torch.Tensor:
    mean = torch.empty(vector.shape, dtype=vector.dtype)
    for mine, out in zip(vector.split(CHUNK), mean.split(CHUNK), strict=True):
        total = mine.to("cpu", torch.float64, copy=True)  # may be a part of the node's own model
        tree.sum(total.numpy())
        out.copy_(total / count)
    return mean
