"""The lattice code of `core.lattice` on the wire, with cells that it chooses itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swarmsgd.codec import kernels, passes
from swarmsgd.codec.cells import Cells
from swarmsgd.codec.packing import Format
from swarmsgd.core.code import Allocate, Bytes, Mixed, Vector
from swarmsgd.core.lattice import BITS
from swarmsgd.errors import ConfigError


class LatticeCode:
    """The `Code` that sends `bits` bits a coordinate; blocks it knows nothing of yet go as float32.

    Its error depends on the distance of the two models only, not on their size. An offered block
    that the partner cannot decode is left out by both ends. `rotation` spreads heavy-tailed or
    sparse differences over their block, for some time per coordinate: worth it at 6 bits and less.
    With a `common_start`, models equal but for the first bursts, nothing that changes goes as
    float32 at first.

    Calls of one object must not overlap, as for the vectors they are handed.
    """

    def __init__(
        self, dim: int, bits: int, *, rotation: bool = False, common_start: bool = False
    ) -> None:
        if dim < 1:
            raise ConfigError(f"a code needs at least one coordinate, got {dim}")
        if bits not in BITS:
            raise ConfigError(f"got {bits} bits a coordinate, wanted one of {BITS}, or none")
        self._format = Format.shared(dim, bits, rotation)
        self._cells = Cells(self._format.blocks, bits, rotated=rotation, common_start=common_start)
        self._offered: passes.Offered | None = None
        kernels.prepare()

    def offer(self, copy: Vector, seed: int, allocate: Allocate) -> Bytes:
        """Encode `copy`. ModelError if a value cannot be exchanged."""
        forms, cells = self._cells.choose()
        self._offered = None
        payload, offered = passes.offer(self._format, forms, cells, copy, seed, allocate)
        self._offered = offered
        self._cells.offered(offered.cells)
        return payload

    def answer(
        self, offer: Bytes, copy: Vector, pending: Vector, seed: int, allocate: Allocate
    ) -> tuple[Bytes, Mixed]:
        """Decode the offer next to `copy`, reply in cells that surely decode, mix."""
        reply, seen = passes.answer(self._format, offer, copy, pending, seed, allocate)
        self._cells.saw(seen.distance)
        return reply, seen.mixed

    def mix(self, reply: Bytes, offered: Vector, copy: Vector, pending: Vector) -> Mixed:
        """Decode the reply next to what was offered; learn which cells were too narrow."""
        seen = passes.mix(self._format, self._offered, reply, offered, copy, pending)
        self._cells.replied(seen.distance)
        return seen.mixed

    def published(self, burst_max: npt.NDArray[np.float32]) -> None:
        """Told at each publish: the largest |change| of the burst just ended, one value a block."""
        self._cells.burst(burst_max)
