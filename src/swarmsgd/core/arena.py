"""All trainable parameters of a module in one contiguous float32 vector; the parameters become
views of it.

Parameter objects, `state_dict` keys and what the optimizer holds stay the same: only where the
numbers lie changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from swarmsgd.errors import ModelError


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one parameter lies: `live[start : start + numel]`, read with `shape` and `stride`."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    numel: int


class Arena:
    """The live vector x of one module, shape [D], float32, on the parameters' device.

    Taken are the parameters with `requires_grad` at this moment, each once however often it is
    tied, in `named_parameters` order; frozen ones do not change and stay where they are. Raises
    ModelError for a module that has none, or has some that are not float32, not dense, or not all
    on one device.
    """

    def __init__(self, module: nn.Module) -> None:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        _refuse_unsupported(named)
        self._parameters: list[nn.Parameter] = [p for _, p in named]
        self.slots: tuple[Slot, ...] = tuple(_layout(named))
        self.dim: int = sum(slot.numel for slot in self.slots)
        self.live: torch.Tensor = torch.empty(self.dim, device=named[0][1].device)
        with torch.no_grad():
            for slot, parameter in zip(self.slots, self._parameters, strict=True):
                view = self._view(self.live, slot)
                view.copy_(parameter)
                parameter.data = view
        self._addresses: tuple[int, ...] = tuple(p.data_ptr() for p in self._parameters)

    @staticmethod
    def _view(vector: torch.Tensor, slot: Slot) -> torch.Tensor:
        return vector.as_strided(slot.shape, slot.stride, vector.storage_offset() + slot.start)

    def describe(self) -> list[list[object]]:
        """Name and shape of each parameter, in order: what two nodes must agree on."""
        return [[slot.name, list(slot.shape)] for slot in self.slots]

    def named(self, vector: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Read a vector [D] as named tensors of the parameters' shapes (views of `vector`)."""
        for slot in self.slots:
            yield slot.name, self._view(vector, slot)

    def parts(self, vector: torch.Tensor) -> Iterator[tuple[nn.Parameter, torch.Tensor]]:
        """Each parameter, and its part of a vector [D] in its shape (a view)."""
        for parameter, slot in zip(self._parameters, self.slots, strict=True):
            yield parameter, self._view(vector, slot)

    def by_identity(self, vector: torch.Tensor) -> dict[int, torch.Tensor]:
        """Read a vector [D] as tensors keyed by the `id` of the parameter each belongs to."""
        return {id(parameter): value for parameter, value in self.parts(vector)}

    def check(self) -> None:
        """Raise ModelError if a parameter no longer lies in the arena. Costs a pointer read
        each.
        """
        for slot, parameter, address in zip(
            self.slots, self._parameters, self._addresses, strict=True
        ):
            if parameter.data_ptr() != address:
                raise ModelError(
                    f"parameter {slot.name} was moved after join() (model.to(), or an assignment "
                    "to .data): the swarm would average a vector nobody trains on. "
                    "Move the model first, then join"
                )

    def first_bad(self, vector: torch.Tensor | None = None) -> str:
        """Name a parameter that holds NaN or Inf in the live vector, or in the one given, and how
        many; for error texts.
        """
        for name, value in self.named(self.live if vector is None else vector):
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                return f"{name} has {bad} non-finite of {value.numel()} values"
        return "all parameters are finite"

    def release(self) -> None:
        """Give each parameter its own storage again, with the values it has now."""
        for parameter, address in zip(self._parameters, self._addresses, strict=True):
            if parameter.data_ptr() == address:
                parameter.data = parameter.data.clone(memory_format=torch.preserve_format)


def _refuse_unsupported(named: list[tuple[str, nn.Parameter]]) -> None:
    if not named:
        raise ModelError(
            "the model has no parameter with requires_grad=True: there is nothing to average. "
            "Unfreeze what shall be trained, then join"
        )
    first_name, first = named[0]
    for name, parameter in named:
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"parameter {name} is {parameter.dtype}, wanted torch.float32: averages in fewer "
                "bits drift. Keep the parameters in float32 and compute in less with torch.autocast"
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


def _layout(named: list[tuple[str, nn.Parameter]]) -> Iterator[Slot]:
    start = 0
    for name, parameter in named:
        stride = torch.empty_like(parameter, device="meta").stride()  # dense, order of axes kept
        yield Slot(name, tuple(parameter.shape), tuple(stride), start, parameter.numel())
        start += parameter.numel()
