"""The common start: all nodes begin with what one of them has."""

from __future__ import annotations

import torch

from swarmsgd.errors import ModelError, PeerError
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.meet.tree import TREE_MESSAGE_BYTES, Tree, TreeBroken


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
            f"{rendezvous.token}/start",
            order,
            rendezvous.listen(TREE_MESSAGE_BYTES),
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
