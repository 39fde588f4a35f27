"""The wire codes, fast: compiled kernels over the definition in `swarmsgd.core`."""

from __future__ import annotations

from swarmsgd.codec.exact import ExactCode
from swarmsgd.core.code import Code


def make_code(dim: int, bits: int | None) -> Code:
    """The code of a run: float32 for None. `dim` is D."""
    return ExactCode(dim)
