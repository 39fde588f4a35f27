"""Buffers, frozen parameters: what is not exchanged, but a node that arrives needs of a neighbour.

They are the training thread's, and half changed while a forward pass runs. So that thread lays them
out at a step boundary, once somebody has asked; it waits for nothing. Before the first step they
are as they were at the start; and where no step ends for long, they are read as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from swarmsgd.core.wire_code import Bytes

KEPT_S = 30.0
"""How long they serve the newcomers that ask."""


def not_exchanged(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Frozen parameters and buffers, by name."""
    frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    return sorted((frozen | dict(model.named_buffers())).items())


PATIENCE_S = 5.0
"""A training thread that comes to no step boundary for so long does something else."""


_SMALL = 1 << 26
"""So many bytes are laid out before anybody asks."""


class NotExchanged:
    """`wanted` is looked at by the training thread after each step, which then calls `lay_out`;
    called itself, by the exchange thread, it gives the bytes or None.
    """

    def __init__(self, model: nn.Module) -> None:
        self.wanted = False
        self._model = model
        small = bytes_of(self._tensors()) <= _SMALL
        self._bytes: Bytes | None = laid_out(self._tensors()) if small else None
        self._until = math.inf
        self._asked = 0.0

    def __call__(self) -> Bytes | None:
        """All of them, one behind the other; None if they must be laid out first."""
        now = time.monotonic()
        if self._bytes is not None and now < self._until:
            return self._bytes
        self._bytes = None
        if self.wanted and now - self._asked > PATIENCE_S:
            return laid_out(self._tensors())
        if not self.wanted:
            self._asked = now
            self.wanted = True
        return None

    def stepped(self) -> None:
        """A step was made: those of the start are of the past."""
        self._until = 0.0

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor.detach() for _, tensor in not_exchanged(self._model)]

    def lay_out(self, do: Callable[[Callable[[], None]], None], ready: Callable[[], None]) -> None:
        """Copy what changes where it is; the exchange thread, by `do`, does the rest and is
        `ready`.
        """
        self.wanted = False
        changing = set(map(id, self._model.buffers()))
        kept = [tensor for _, tensor in not_exchanged(self._model)]
        clones = [t.detach().clone() if id(t) in changing else t for t in kept]

        def gather() -> None:
            self._bytes = laid_out(clones)
            self._until = time.monotonic() + KEPT_S
            ready()

        do(gather)


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """How many bytes they are, laid out."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def laid_out(tensors: list[torch.Tensor]) -> Bytes:
    """Their bytes, one behind the other, in host memory."""
    parts = [t.cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for t in tensors]
    return np.concatenate([np.zeros(0, np.uint8), *parts])


def taken_in(data: Bytes, tensors: list[torch.Tensor]) -> None:
    """The way back."""
    at = 0
    with torch.no_grad():
        for tensor in tensors:
            nbytes = tensor.numel() * tensor.element_size()
            values = torch.from_numpy(data[at : at + nbytes].copy()).view(tensor.dtype)
            tensor.copy_(values.view(tensor.shape))
            at += nbytes
