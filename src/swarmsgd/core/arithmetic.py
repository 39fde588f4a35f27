"""The arithmetic of one exchange, in plain operations on arrays `[..., D]`: the definition.

The compiled kernels of `swarmsgd.codec` do the same in fused passes and are tested against this.
Works on numpy arrays in place; a leading axis runs many nodes at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
HALF = np.float32(0.5)


def apply_pending(live: Array, pending: Array) -> None:
    """x += p; p = 0. Conserves live + pending."""
    live += pending
    pending[...] = 0


def publish(live: Array, pending: Array, copy: Array) -> None:
    """x += p; p = 0; c = x: the end of a burst."""
    apply_pending(live, pending)
    copy[...] = live


def change(mine: Array, theirs: Array) -> Array:
    """(theirs - mine)/2: what an end adds that sent the lattice point `mine` and got `theirs`.

    The two ends' changes are exact negatives, since subtraction and halving are odd. Nothing
    overflows: what is exchanged is far from float32's limit (`lattice.EXCHANGEABLE`).
    """
    return np.multiply(theirs - mine, HALF, dtype=np.float32)


def mix(copy: Array, pending: Array, delta: Array) -> None:
    """Add one end's change to its copy and pending.

    Over both ends of an exchange the sum of copies does not change (to the rounding of these
    additions), whatever other exchanges ran in between: nothing here depends on what `copy` was.
    """
    copy += delta
    pending += delta
