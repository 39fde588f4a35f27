"""float32 on the wire: Q = c, so a pair that exchanges alone ends at the average of its models."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from swarmsgd.codec import kernels, passes
from swarmsgd.codec.packing import Format
from swarmsgd.core.code import Allocate, Bytes, Mixed, Vector
from swarmsgd.errors import ConfigError


class ExactCode:
    """The `Code` that sends every coordinate as float32: 4 D bytes each way, and a check a block.

    An offered block that fails its check is left out by both ends; in a reply that is a
    ProtocolError.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ConfigError(f"a code needs at least one coordinate, got {dim}")
        self._format = Format.shared(dim, bits=0)
        self._offered: passes.Offered | None = None
        kernels.prepare()

    def offer(self, copy: Vector, seed: int, allocate: Allocate) -> Bytes:
        """Copy `copy` to the payload. ModelError if a value cannot be exchanged."""
        form = self._format
        self._offered = None
        payload, self._offered = passes.offer(form, form.usual_forms, 0.0, copy, seed, allocate)
        return payload

    def answer(
        self, offer: Bytes, copy: Vector, pending: Vector, seed: int, allocate: Allocate
    ) -> tuple[Bytes, Mixed]:
        """Send `copy` back and add (Q_i - Q_j)/2 to copy and pending."""
        reply, seen = passes.answer(self._format, offer, copy, pending, seed, allocate)
        return reply, seen.mixed

    def mix(self, reply: Bytes, offered: Vector, copy: Vector, pending: Vector) -> Mixed:
        """Add (Q_j - Q_i)/2 to copy and pending."""
        return passes.mix(self._format, self._offered, reply, offered, copy, pending).mixed

    def published(self, burst_max: npt.NDArray[np.float32]) -> None:
        """Nothing to learn: there are no cells."""
