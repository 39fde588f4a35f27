"""Memory for the vectors that kernels run over."""

from __future__ import annotations

import numpy as np

from swarmsgd.core.wire_code import Vector

_LINE = 64


def empty(dim: int) -> Vector:
    """float32 [dim] with any content, aligned to a cache line."""
    room = np.empty(4 * dim + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + 4 * dim].view(np.float32)


def zeros(dim: int) -> Vector:
    """As `empty`, but zeros; every page is touched here, not in the first pass over it.

    A vector that is not aligned costs a pass up to a fifth of its time, and memory in small
    pages (numpy asks for large ones, torch does not) a tenth.
    """
    vector = empty(dim)
    vector.fill(0)
    return vector
