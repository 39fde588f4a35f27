"""Buffers that are used again, because the first touch of a fresh page is what costs.

A fresh array of 47 MB takes tens of milliseconds of page faults, in whichever thread writes it
first.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np

from swarmsgd.transport.base import Buffer

_SMALLEST = 4096
_LARGE = 1 << 16
"""What came in and is so long stays where it was received; what is shorter is copied, aligned."""
_STEPS = 8
"""Allocation sizes between two powers of two: at most an eighth of a buffer is unused."""


class BufferPool:
    """Takes and gives uint8 buffers, from any thread; keeps at most `max_bytes` that nobody uses.

    A buffer that is never given back is simply collected. One given back twice, or that came from
    elsewhere, is ignored: only what is out of this pool comes in.

    >>> pool = BufferPool()
    >>> buffer = pool.take(100)
    >>> pool.give(buffer)
    >>> pool.take(90).base is buffer.base
    True
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._free: dict[int, list[Buffer]] = {}
        self._free_bytes = 0
        self._out: dict[int, weakref.ref[Buffer]] = {}
        """Allocations in somebody's hands, by id."""

    @property
    def free_bytes(self) -> int:
        """Bytes kept for later use."""
        return self._free_bytes

    def take(self, nbytes: int) -> Buffer:
        """A buffer of exactly `nbytes`, its content undefined."""
        if nbytes == 0:
            return np.empty(0, np.uint8)
        with self._lock:
            most, best = 2 * max(nbytes, _SMALLEST), 0
            for size in self._free:
                if nbytes <= size <= most and (not best or size < best):
                    best = size
            allocation = self._remove(best) if best else None
        if allocation is None:
            allocation = np.empty(_rounded(nbytes), np.uint8)
        key = id(allocation)
        # Called before the memory is freed, so the id cannot be another allocation's yet.
        self._out[key] = weakref.ref(allocation, lambda _: self._out.pop(key, None))
        return allocation[:nbytes]

    def received(self, body: memoryview) -> Buffer:
        """A buffer that holds what came in, without a copy if it is long."""
        whole = np.frombuffer(body, np.uint8)
        if len(whole) >= _LARGE:
            return whole
        buffer = self.take(len(whole))
        buffer[:] = whole
        return buffer

    def give(self, buffer: Buffer) -> None:
        """Hand back a buffer, or any view into it. Nobody may read or write it afterwards."""
        allocation = buffer.base
        known = self._out.pop(id(allocation), None)
        if known is None or not isinstance(allocation, np.ndarray) or known() is not allocation:
            return
        size = allocation.size
        if size > self._max_bytes:
            return
        with self._lock:
            while self._free_bytes + size > self._max_bytes:
                self._remove(max(self._free))
            self._free.setdefault(size, []).append(allocation)
            self._free_bytes += size

    def _remove(self, size: int) -> Buffer:
        allocations = self._free[size]
        allocation = allocations.pop()  # the last one given: most likely still in the cache
        if not allocations:
            del self._free[size]
        self._free_bytes -= size
        return allocation


def _rounded(nbytes: int) -> int:
    """The next of a few sizes, so that messages of nearly one length share buffers."""
    if nbytes <= _SMALLEST:
        return _SMALLEST
    step = max(_SMALLEST, (1 << ((nbytes - 1).bit_length() - 1)) // _STEPS)
    return -(-nbytes // step) * step
