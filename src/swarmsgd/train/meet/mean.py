"""The exact mean of the models of all live nodes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from swarmsgd.errors import PeerError
from swarmsgd.train.meet.news import LineLost
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.meet.tree import TREE_MESSAGE_BYTES, Tree, none_listens

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


class Alone:
    """`Mean` for a node that has nobody to average with."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def of(
        self,
        settled: Callable[[], torch.Tensor],
        buffers: Mapping[str, Float] | None = None,
        *,
        again: bool = False,
    ) -> Means:
        """Its own values."""
        own = {name: buffer.value for name, buffer in (buffers or {}).items()}
        return Means(settled(), 0.0, own, [self._rank])


class Mean:
    """Exact means of the models of all live nodes."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous
        self._among: list[int] = []
        self._again = ""

    def of(
        self,
        settled: Callable[[], torch.Tensor],
        buffers: Mapping[str, Float] | None = None,
        *,
        again: bool = False,
    ) -> Means:
        """The mean of the nodes' models and buffers.

        `settled` gives this node's vector, [D] floating. It is called when nobody exchanges any
        more, once for each try. If a node dies meanwhile the others begin again without it. With
        `again` it is among those of the last one. Raises PeerError if this node was left out, if
        the meeting place is gone, or after `TRIES` failures of the same nodes; what `settled`
        raises is passed on.
        """
        try:
            means = self._of(settled, buffers or {}, again)
        except LineLost as error:
            raise PeerError(
                f"{error}, without which there is no mean. This node's own model is intact: save "
                "that"
            ) from None
        absent = sorted(set(self._rendezvous.line.gone) - set(means.nodes))
        if absent and not again:
            _log.warning(
                "this mean is of nodes %s alone: node %s has left or is dead",
                means.nodes,
                ", ".join(map(str, absent)),
            )
        return means

    def _of(
        self,
        settled: Callable[[], torch.Tensor],
        buffers: Mapping[str, Float],
        again: bool,
    ) -> Means:
        tried, before = 0, [-1]
        while True:
            number, told = self._meet(buffers, again)
            members = sorted(told)
            try:
                model = settled()
            except BaseException:
                self._transport.close()
                raise
            means, why = None, "another node says why"
            try:
                tree, alike = self._tree(number, told, buffers)
                mean, gamma = _mean_and_spread(tree, len(members), model)
                means = Means(mean, gamma, {}, members)
                for each in alike:
                    means.buffers[each] = _of_buffer(
                        tree, members, self._rendezvous.node, buffers[each]
                    )
            except RuntimeError as error:  # a member died meanwhile
                means, why = None, str(error)
            finally:
                try:
                    succeeded = self._all_succeeded(number, members, means is not None)
                finally:
                    self._transport.close()  # when all have all of it, or this attempt has failed
            if means is not None and succeeded:
                self._among, self._again = members, f"{number}/again"
                return means
            tried, before = (tried + 1 if members == before else 1), members
            if tried == TRIES:
                raise PeerError(
                    f"the mean of nodes {members} failed {TRIES} times, though all of them live: "
                    f"{why}. This node's own model is intact: save that"
                )

    def _meet(
        self, buffers: Mapping[str, Float], again: bool
    ) -> tuple[int, dict[int, tuple[str, dict[str, str]]]]:
        """Wait until every live node is here. The number of this attempt, and what each says."""
        self._transport = self._rendezvous.listen(TREE_MESSAGE_BYTES)
        try:
            mine = [self._transport.endpoint, {n: b.kind for n, b in buffers.items()}]
            answer = self._rendezvous.line.gather(
                self._again if again else "mean",
                mine,
                self._among if again else "live",
                timeout_s=math.inf,
                tell_s=TELL_S,
                tell=_tell,
            )
            if "missed" in answer:
                others = ", ".join(map(str, answer["missed"]))
                raise PeerError(
                    f"node {self._rendezvous.node} was silent for so long that the others took "
                    f"their mean without it{f' (nodes {others})' * bool(others)}. Its own model is "
                    "intact: save that, or use theirs"
                )
            told = {int(node): tuple(v) for node, v in answer["values"].items()}
            if len(told) > 1 and not any(endpoint for endpoint, _ in told.values()):
                raise PeerError(
                    f"there is no mean: {none_listens(sorted(told))}. This node's own model is "
                    "intact: save that"
                )
        except BaseException:
            self._transport.close()
            raise
        return answer["serial"], told

    def _tree(
        self,
        number: int,
        told: Mapping[int, tuple[str, dict[str, str]]],
        buffers: Mapping[str, Float],
    ) -> tuple[Tree, list[str]]:
        """A tree of all members, and the names of the buffers that are alike on all of them.
        Raises RuntimeError if one died since.
        """
        tree = Tree.open(
            f"{self._rendezvous.token}/mean/{number}",
            sorted(told),
            self._transport,
            meet=lambda _: [told[node][0] for node in sorted(told)],
            gone=self._rendezvous.gone,
            timeout_s=TREE_TIMEOUT_S,
        )
        kinds = [kinds for _, kinds in told.values()]
        mine = {name: buffer.kind for name, buffer in buffers.items()}
        return tree, [name for name in mine if all(k.get(name) == mine[name] for k in kinds)]

    def _all_succeeded(self, number: int, members: list[int], mine: bool) -> bool:
        """Whether all members have it; none has it for good before that."""
        try:
            answer = self._rendezvous.line.gather(
                f"{number}/done", mine, members, timeout_s=2 * TREE_TIMEOUT_S
            )
        except TimeoutError:
            return False
        return [int(n) for n in answer["values"]] == members and all(answer["values"].values())


def _tell(absent: list[int]) -> None:
    if absent:
        _log.warning(
            "mean_model() waits for node %s, which trains on: all nodes call it, equally often "
            "(where they are uneven, swarm.until() lets all stop together)",
            ", ".join(map(str, absent)),
        )


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
