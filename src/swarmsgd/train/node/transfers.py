"""How vectors get from host memory to a device and back, without a thread that waits for them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

import torch

from swarmsgd.core.segments import Segments

_log = logging.getLogger("swarmsgd")


class DeviceEvent(Protocol):
    """Something a device does at a time of its own; torch's events of any device are such."""

    def query(self) -> bool:
        """Whether it has happened. Returns at once."""
        ...

    def synchronize(self) -> None:
        """Return when it has happened."""
        ...


class Adding(NamedTuple):
    """A vector on its way into a model."""

    sent: DeviceEvent
    """The host's vector has been read, and may be written to again."""
    added: DeviceEvent
    """It is in the model."""


class Transfers(Protocol):
    """The way between one vector x on a device, in segments, and vectors in host memory.

    Each call takes effect, sooner or later, as if it had been done at once: after all earlier calls
    and all work that was put on the current stream before, and before all that is put there later.
    """

    def host_vector(self) -> torch.Tensor:
        """Zeros, shape [D], in host memory that the device reads and writes by itself."""
        ...

    def add(self, host: torch.Tensor) -> Adding:
        """x += host."""
        ...

    def fetch(self, host: torch.Tensor) -> DeviceEvent:
        """host = x, as it is now; the event says when it is there."""
        ...


class Streams:
    """For devices with streams (CUDA, ROCm, XPU, ...): no call waits, neither for them nor for
    memory.

    Copies run on a stream of their own, beside what is computed. The device holds one vector
    besides x, in one piece; whatever comes in or goes out passes through it.
    """

    def __init__(self, live: Segments, module: Any = None) -> None:
        self._live = live
        self._module = module or torch.get_device_module(live.device)
        self._side = self._module.Stream(live.device)
        self._extra = torch.empty(live.dim, dtype=torch.float32, device=live.device)
        self._parts = [slot.of(self._extra) for slot in live.slots]
        # What used this memory before, on the current stream, may not be over yet.
        self._last = self._recorded(self._current())

    def host_vector(self) -> torch.Tensor:
        """Zeros, shape [D], pinned."""
        try:
            return torch.zeros(self._live.dim, dtype=torch.float32, pin_memory=True)
        except RuntimeError as error:
            _log.warning(
                "no pinned host memory of %d bytes (%s): steps will wait for transfers; allow the "
                "process more locked memory",
                4 * self._live.dim,
                error,
            )
            return _touched(self._live.dim)

    def add(self, host: torch.Tensor) -> Adding:
        """x += host."""
        current = self._current()
        self._side.wait_event(self._last)
        with self._module.stream(self._side):
            self._extra.copy_(host, non_blocking=True)
        sent = self._recorded(self._side)
        current.wait_event(sent)
        with torch.no_grad(), self._module.stream(current):
            torch._foreach_add_(self._live.tensors, self._parts)
        self._last = self._recorded(current)
        return Adding(sent, self._last)

    def fetch(self, host: torch.Tensor) -> DeviceEvent:
        """host = x, as the current stream leaves it now."""
        current = self._current()
        current.wait_event(self._last)
        with torch.no_grad(), self._module.stream(current):
            # The next local step need not wait for the way to host.
            torch._foreach_copy_(self._parts, self._live.tensors)
        self._side.wait_event(self._recorded(current))
        with self._module.stream(self._side):
            host.copy_(self._extra, non_blocking=True)
        self._last = self._recorded(self._side)
        return self._last

    def _current(self) -> Any:
        return self._module.current_stream(self._live.device)

    def _recorded(self, stream: Any) -> Any:
        event = self._module.Event()
        event.record(stream)
        return event


class Over:
    """An event that has happened."""

    def query(self) -> bool:
        """It has."""
        return True

    def synchronize(self) -> None:
        """Returns at once."""


OVER = Over()


class InOrder:
    """For devices without streams (MPS): every call returns when it is done, so steps wait."""

    def __init__(self, live: Segments) -> None:
        self._live = live

    def host_vector(self) -> torch.Tensor:
        """Zeros, shape [D]."""
        return _touched(self._live.dim)

    def add(self, host: torch.Tensor) -> Adding:
        """x += host."""
        parts = [slot.of(host).to(self._live.device) for slot in self._live.slots]
        with torch.no_grad():
            torch._foreach_add_(self._live.tensors, parts)
        return Adding(OVER, OVER)

    def fetch(self, host: torch.Tensor) -> DeviceEvent:
        """host = x."""
        self._live.read(host.numpy())
        return OVER


def _touched(dim: int) -> torch.Tensor:
    """Zeros [D] that are written to, unlike those of zeros(): their pages are mapped now."""
    return torch.empty(dim, dtype=torch.float32).zero_()


WITHOUT_STREAMS = {"cpu", "mps"}
"""Devices on which torch has no streams to put a transfer on."""


def transfers_for(live: Segments) -> Transfers:
    """The way to and from the device that x is on."""
    return InOrder(live) if live.device.type in WITHOUT_STREAMS else Streams(live)
