"""The trainable parameters of a module as one vector x: which of its places are whose.

Parameters stay where they are and keep their own storage; `core.segments` reads and writes them
there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from swarmsgd.errors import ModelError


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor's places in a vector: `vector[start : start + numel]`, read with `shape` and
    `stride`.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    numel: int

    def of(self, vector: torch.Tensor) -> torch.Tensor:
        """The part of a vector [D] that is this tensor's, in its shape (a view)."""
        return vector.as_strided(self.shape, self.stride, vector.storage_offset() + self.start)


class Layout:
    """Where each trainable parameter of one module lies in a vector [D].

    Taken are the parameters with `requires_grad` at this moment in `named_parameters` order, each
    once however often it is tied, be it as an object or as memory that two share. Raises ModelError
    for a module that has none, or has some that are not float32, not dense, not all on one device,
    or that share a part of their memory.
    """

    def __init__(self, module: nn.Module) -> None:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        _refuse_unsupported(named)
        self.tied: tuple[tuple[str, nn.Parameter, nn.Parameter], ...]
        """Names of parameters that are other objects on the same memory as one that has a slot,
        they, and that one."""
        named, self.tied = _apart(named)
        self.parameters: tuple[nn.Parameter, ...] = tuple(p for _, p in named)
        self.slots: tuple[Slot, ...] = tuple(_slots(named))
        self.dim: int = sum(slot.numel for slot in self.slots)

    def describe(self) -> list[str]:
        """Name, dtype and shape of each parameter, in order: what two nodes must agree on."""
        return [
            in_words(slot.name, parameter)
            for slot, parameter in zip(self.slots, self.parameters, strict=True)
        ]

    def order(self, strides: Iterable[Sequence[int]]) -> None:
        """Let the values of each parameter lie in the vector as these strides say (node 0's), so
        that nodes with other memory formats mean the same by a place.
        """
        pairs = zip(self.slots, strides, strict=True)
        self.slots = tuple(replace(slot, stride=tuple(stride)) for slot, stride in pairs)

    def named(self, vector: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Read a vector [D] as named tensors of the parameters' shapes (views of `vector`)."""
        for slot in self.slots:
            yield slot.name, slot.of(vector)

    def parts(self, vector: torch.Tensor) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
        """Each parameter, and its part of a vector [D] in its shape (a view)."""
        for parameter, slot in zip(self.parameters, self.slots, strict=True):
            yield parameter, slot.of(vector)

    def by_identity(self, vector: torch.Tensor) -> dict[int, torch.Tensor]:
        """Read a vector [D] as tensors keyed by the `id` of each parameter they belong to."""
        found = {id(parameter): value for parameter, value in self.parts(vector)}
        return found | {id(parameter): found[id(first)] for _, parameter, first in self.tied}


def in_words(name: str, tensor: torch.Tensor) -> str:
    """As ``weight float32 [3, 4]``."""
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


Named = list[tuple[str, nn.Parameter]]

_FEWER = (
    "averages in fewer bits drift. Keep the parameters in float32 and compute in less with "
    "torch.autocast"
)
_WHY = {
    torch.bfloat16: _FEWER,
    torch.float16: _FEWER,
    torch.float64: "the other bits would be lost in every exchange. Call model.float(), then make "
    "the optimizer and join",
}


def _refuse_unsupported(named: Named) -> None:
    if not named:
        raise ModelError(
            "the model has no parameter with requires_grad=True: there is nothing to average. "
            "Unfreeze what shall be trained, then join"
        )
    first_name, first = named[0]
    for name, parameter in named:
        if is_lazy(parameter):
            raise ModelError(f"parameter {name} has no shape yet: run one batch, then join")
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"parameter {name} is {parameter.dtype}, wanted torch.float32: "
                + _WHY.get(parameter.dtype, "only these are averaged")
            )
        if parameter.layout != torch.strided:
            raise ModelError(f"parameter {name} has layout {parameter.layout}, wanted a dense one")
        if parameter.is_meta:
            raise ModelError(f"parameter {name} is on the meta device: materialise it, then join")
        if parameter.device != first.device:
            raise ModelError(
                f"parameter {name} is on {parameter.device}, {first_name} on {first.device}: "
                "one node's parameters must lie on one device"
            )


def _apart(named: Named) -> tuple[Named, tuple[tuple[str, nn.Parameter, nn.Parameter], ...]]:
    """Those parameters that have memory of their own, and those that lie exactly on one of these.

    Raises ModelError for one that shares a part of its memory: it would be changed twice.
    """
    first_on: dict[object, nn.Parameter] = {}
    tied: list[tuple[str, nn.Parameter, nn.Parameter]] = []
    on_storage: dict[int, Named] = {}
    for name, parameter in named:
        place = (parameter.data_ptr(), parameter.shape, parameter.stride())
        first = first_on.setdefault(place, parameter) if parameter.numel() else parameter
        if first is parameter:
            on_storage.setdefault(parameter.untyped_storage().data_ptr(), []).append(
                (name, parameter)
            )
        else:
            tied.append((name, parameter, first))
    for together in on_storage.values():
        if len(together) > 1 or not _is_dense(together[0][1]):
            _refuse_overlaps(together)
    others = {id(parameter) for _, parameter, _ in tied}
    return [(n, p) for n, p in named if id(p) not in others], tuple(tied)


def _refuse_overlaps(together: Named) -> None:
    """Mark the places that each of these has of their common storage: none twice."""
    size = together[0][1].untyped_storage().nbytes() // 4
    marks = torch.zeros(size, dtype=torch.uint8)
    for name, parameter in together:
        _mark(name, parameter, marks)


def _mark(name: str, parameter: torch.Tensor, marks: torch.Tensor) -> None:
    mine = marks.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())
    try:
        mine.add_(1)
    except RuntimeError:  # torch writes to no tensor that has a place twice
        shared = True
    else:
        shared = bool((mine > 1).any())
    if shared:
        raise ModelError(
            f"parameter {name} cannot be averaged: values of it share memory with each other or "
            "with a part of another parameter (an expanded tensor, a slice). clone() it, or tie "
            "the parameters as one object, then join"
        )


def dense_stride(tensor: torch.Tensor) -> tuple[int, ...]:
    """Strides of a tensor without gaps whose axes have the same order in memory."""
    return tuple(torch.empty_like(tensor, device="meta").stride())


def _is_dense(tensor: torch.Tensor) -> bool:
    return dense_stride(tensor) == tensor.stride()


def _slots(named: Named) -> Iterator[Slot]:
    start = 0
    for name, parameter in named:
        stride = dense_stride(parameter.detach())
        yield Slot(name, tuple(parameter.shape), stride, start, parameter.numel())
        start += parameter.numel()
