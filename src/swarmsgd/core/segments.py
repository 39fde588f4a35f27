"""Tensors that lie anywhere, read and written as one vector x [D]: a table of segments."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import increment_version

from swarmsgd.core.lattice import PUBLISHED
from swarmsgd.core.layout import Slot
from swarmsgd.core.wire_code import Places, Vector
from swarmsgd.errors import ModelError

_data_ptr = torch.Tensor.data_ptr
_ALL = slice(None)
_forms = torch.Tensor.stride, attrgetter("shape"), attrgetter("dtype")


class Segments:
    """x = the values of `tensors`, in the places that `slots` say; float32, all on one device.

    In host memory compiled passes work on them where they are, by `addresses` [n] and `starts`
    [n + 1]: segment k of the vector begins at place starts[k] and at byte addresses[k] of memory.
    `moved` says whether a tensor lies elsewhere by now, `locate` looks where. Their storages are
    held until then, so that no address becomes another's.

    A tensor whose strides are not its slot's goes through a `_detour` of the right order: `pull`
    before a pass, `push` after it.
    """

    def __init__(self, what: str, slots: Sequence[Slot], tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = list(tensors)
        """May be replaced by others; `locate` is to follow."""
        self.slots = tuple(slots)
        sizes = [slot.numel for slot in slots]
        self.dim = sum(sizes)
        self.device = self.tensors[0].device
        self.starts: Places = np.cumsum([0, *sizes], dtype=np.int64)
        self.addresses: Places = np.zeros(len(sizes), np.int64)
        self._what = what
        self._seen: list[int] = []
        self._seen_forms: list[list[Any]] = []
        self._storages: list[torch.UntypedStorage] = []
        self._detours: dict[int, torch.Tensor] = {}
        self.locate()

    @classmethod
    def row(cls, vector: Vector) -> Segments:
        """One segment: a vector that is contiguous already."""
        slot = Slot("x", (vector.size,), (1,), 0, vector.size)
        return cls("x", [slot], [_tensor(vector)])

    def order(self, slots: Sequence[Slot]) -> None:
        """Let the values lie in the vector as these slots say, which differ in strides alone."""
        self.slots = tuple(slots)
        self._detours.clear()
        self._seen_forms.clear()
        self.locate()

    def moved(self, part: slice = _ALL) -> bool:
        """Whether one of these tensors lies elsewhere now. Costs a pointer read each."""
        return list(map(_data_ptr, self.tensors[part])) != self._seen[part]

    def locate(self) -> None:
        """Look where each tensor is, and in what order its values lie.

        Raises ModelError, with all as it was, for one of another shape, dtype or device.
        """
        forms = [list(map(form, self.tensors)) for form in _forms]
        if forms == self._seen_forms and not self.moved():
            return
        for slot, tensor in zip(self.slots, self.tensors, strict=True):
            if tensor.shape != slot.shape or tensor.dtype != torch.float32:
                self._refuse(slot, f"is now {tensor.dtype} of shape {list(tensor.shape)}")
            if tensor.device != self.device:
                self._refuse(slot, f"is now on {tensor.device}")
            if slot.numel and not tensor.data_ptr():
                self._refuse(slot, "has no memory any more")
        seen = list(map(_data_ptr, self.tensors))
        if seen != self._seen:
            self._storages = [tensor.untyped_storage() for tensor in self.tensors]
        self._seen, self._seen_forms = seen, forms
        self.addresses[:] = seen
        self._detours = self._new_detours()
        for index, detour in self._detours.items():
            self.addresses[index] = detour.data_ptr()

    def _new_detours(self) -> dict[int, torch.Tensor]:
        if self.device.type != "cpu":  # there torch's own copies look at strides
            return {}
        return {
            index: self._detours.get(index, torch.empty_strided(slot.shape, slot.stride))
            for index, (slot, tensor) in enumerate(zip(self.slots, self.tensors, strict=True))
            if tensor.stride() != slot.stride and not _same_order(slot, tensor)
        }

    def _refuse(self, slot: Slot, change: str) -> None:
        raise ModelError(
            f"{self._what} {slot.name} {change}, but joined as torch.float32 of shape "
            f"{list(slot.shape)} on {self.device}: the swarm cannot go on averaging it. "
            "Change the model first, then join; or leave() and join() again on all nodes"
        )

    # In host memory, before and after a compiled pass.

    def pull(self) -> None:
        """Let what lies at `addresses` have the values of now."""
        for index, detour in self._detours.items():
            detour.copy_(self.tensors[index].detach())

    def push(self) -> None:
        """The tensors have what a pass has written; autograd is told, as of any change in place."""
        for index, detour in self._detours.items():
            self.tensors[index].detach().copy_(detour)
        increment_version(self.tensors)

    # Anywhere.

    def read(self, vector: Vector) -> None:
        """vector = x, by value. Waits for a device."""
        whole = _tensor(vector)
        for slot, tensor in zip(self.slots, self.tensors, strict=True):
            slot.of(whole).copy_(tensor.detach())

    def write(self, vector: Vector) -> None:
        """x = vector, by value. Waits for a device."""
        whole = _tensor(vector)
        with torch.no_grad():
            for slot, tensor in zip(self.slots, self.tensors, strict=True):
                tensor.copy_(slot.of(whole))

    def first_bad(self, vector: Vector) -> str:
        """Name a tensor whose part of a vector holds what cannot be published, and how many such
        values; for error texts.
        """
        whole = _tensor(vector)
        for slot in self.slots:
            part = slot.of(whole)
            bad = int((~(part.abs() <= PUBLISHED)).sum())
            if bad:
                kind = f"beyond {PUBLISHED:.0e}" if torch.isfinite(part).all() else "non-finite"
                return f"{slot.name} has {bad} {kind} of {slot.numel} values"
        return "all parameters are finite"


def _tensor(vector: Vector) -> torch.Tensor:
    return torch.from_numpy(vector)  # pyright: ignore[reportUnknownMemberType]


def _same_order(slot: Slot, tensor: torch.Tensor) -> bool:
    """Whether strides differ only in axes along which there is nothing to step."""
    axes = zip(slot.shape, slot.stride, tensor.stride(), strict=True)
    return slot.numel == 0 or all(size == 1 or mine == its for size, mine, its in axes)
