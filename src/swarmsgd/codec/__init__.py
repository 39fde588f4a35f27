"""The wire codes, fast: compiled kernels over the definition in `swarmsgd.core`."""

from __future__ import annotations

from swarmsgd.codec.exact import ExactCode
from swarmsgd.codec.lattice import LatticeCode
from swarmsgd.core.code import Code


def rotates(bits: int | None, rotation: bool | None) -> bool:
    """Whether blocks are rotated; None is for what pays: at 6 bits and less, where the noise that
    heavy-tailed or sparse differences cost otherwise holds the models visibly apart.
    """
    if rotation is None:
        return bits is not None and bits <= 6
    return rotation and bits is not None


def make_code(
    dim: int, bits: int | None, *, rotation: bool | None = None, common_start: bool = False
) -> Code:
    """The code of a run: float32 if `bits` is None. `dim` is D; all nodes must choose alike.

    `rotation` is as for `rotates`. With a `common_start` the models are known to begin equal: then
    the first offers need no float32.
    """
    if bits is None:
        return ExactCode(dim)
    return LatticeCode(dim, bits, rotation=rotates(bits, rotation), common_start=common_start)
