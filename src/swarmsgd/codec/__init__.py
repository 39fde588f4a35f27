"""The wire code, fast: compiled kernels over the definition in `swarmsgd.core.lattice`.

`block_code` is the one code, of any number of bits: encode, decode, mix. `cells` chooses the cell
width of each block, `packing` lays out the bytes, `kernels` has what is compiled. Another code
implements `swarmsgd.core.wire_code.Code`, and is chosen in `make_code` here by a setting of
`swarmsgd.settings.swarm`.
"""

from __future__ import annotations

from swarmsgd.codec import kernels
from swarmsgd.codec.block_code import BlockCode
from swarmsgd.core.live_vector import Direct
from swarmsgd.core.segments import Segments


def host_way(live: Segments) -> Direct:
    """The `Way` of a vector whose x is `live`, in host memory."""
    return Direct(live, kernels.apply_pending.compiled, kernels.apply_and_publish.compiled)


def rotates(bits: int | None, rotation: bool | None) -> bool:
    """Whether blocks are rotated. None means at 6 bits and less: without rotation the noise that
    heavy-tailed or sparse differences cost there would hold the models visibly apart.
    """
    if rotation is None:
        return bits is not None and bits <= 6
    return rotation and bits is not None


def make_code(
    dim: int, bits: int | None, *, rotation: bool | None = None, common_start: bool = False
) -> BlockCode:
    """The code of a run: float32 if `bits` is None. `dim` is D; all nodes must choose alike.

    `rotation` is as for `rotates`. With a `common_start` the models are known to begin equal, so
    that the first offers can be coded too.
    """
    return BlockCode(dim, bits or 0, rotation=rotates(bits, rotation), common_start=common_start)
