"""The wire code, fast: compiled kernels over the definition in `swarmsgd.core`."""

from __future__ import annotations

from functools import cache

from swarmsgd.codec import kernels
from swarmsgd.codec.code import BlockCode
from swarmsgd.core.replica import Direct


@cache
def host_way() -> Direct:
    """How changes get to and from a vector in host memory; one for all of them."""
    return Direct(kernels.apply_pending.compiled, kernels.apply_and_publish.compiled)


def rotates(bits: int | None, rotation: bool | None) -> bool:
    """Whether blocks are rotated; None is for what pays: at 6 bits and less, where the noise that
    heavy-tailed or sparse differences cost otherwise holds the models visibly apart.
    """
    if rotation is None:
        return bits is not None and bits <= 6
    return rotation and bits is not None


def make_code(
    dim: int, bits: int | None, *, rotation: bool | None = None, common_start: bool = False
) -> BlockCode:
    """The code of a run: float32 if `bits` is None. `dim` is D; all nodes must choose alike.

    `rotation` is as for `rotates`. With a `common_start` the models are known to begin equal: then
    the first offers need no float32.
    """
    return BlockCode(dim, bits or 0, rotation=rotates(bits, rotation), common_start=common_start)
