"""What is compiled: passes over vectors and payloads at the speed of memory, without the GIL.

`payloads` has the three of an exchange, `publishing` those of a burst's end, `tallies` those over
the figures of blocks. They are built of `blocks` (one block), `hadamard` and `butterflies` (its
rotation), `colours` (its bits) and `intrinsics`. `core.lattice` and `core.arithmetic` are what all
of them are tested against.
"""

from swarmsgd.codec.kernels.compiled import prepare
from swarmsgd.codec.kernels.payloads import (
    CHANGED,
    CODED,
    LEFT,
    LEFT_OUT,
    RAW,
    SCRATCH,
    WRONG,
    answer,
    mix,
    offer,
)
from swarmsgd.codec.kernels.publishing import apply_and_publish, apply_pending, land
from swarmsgd.codec.kernels.tallies import possible, tally

__all__ = [
    "CHANGED",
    "CODED",
    "LEFT",
    "LEFT_OUT",
    "RAW",
    "SCRATCH",
    "WRONG",
    "answer",
    "apply_and_publish",
    "apply_pending",
    "land",
    "mix",
    "offer",
    "possible",
    "prepare",
    "tally",
]
