"""What one end of an exchange is recorded as, and what a node sent and received."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from swarmsgd.core.wire_code import Mixed

RECENT = 1 / 8
"""The weight of the newest exchange in `Traffic.recent_sq`."""


class Exchange(NamedTuple):
    """One exchange as one of its ends saw it."""

    role: str
    """initiator or partner."""
    peer: int
    counter: int
    begun: float
    """When the offer was begun (initiator) or came in (partner), in the driver's time."""
    bytes_out: int
    bytes_in: int

    def fields(self, mixed: Mixed, now: float) -> dict[str, Any]:
        """The record of it, at its end."""
        return {
            "role": self.role,
            "peer": self.peer,
            "counter": self.counter,
            "seconds": now - self.begun,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "distance": math.sqrt(mixed.distance_sq),
            "left_out": mixed.left_out,
            "float32_blocks": mixed.float32_blocks,
            "cell": mixed.cell,
            "noise": math.sqrt(mixed.noise_sq),
        }


@dataclass(slots=True)
class Traffic:
    """What went over the wire, counted where it is sent and received."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    left_out_blocks: int = 0
    mixed_blocks: int = 0
    float32_blocks: int = 0
    """Blocks that came in as float32."""
    distance_sq: float = 0.0
    """Sum of ||Q_i - Q_j||^2 over the exchanges this node mixed, of the model."""
    noise_sq: float = 0.0
    """The part of it that the code's own error is expected to make up, of what came in."""
    recent_sq: float = 0.0
    """Running mean of the squared distance over the last exchanges, without the code's error."""
    mixes: int = 0
    distrusted: int = 0
    """Peers dropped because of what they sent."""

    def count(self, mixed: Mixed) -> None:
        """One more exchange was mixed."""
        self.mixes += 1
        self.distance_sq += mixed.distance_sq
        self.noise_sq += mixed.noise_sq
        true_sq = max(0.0, mixed.distance_sq - 2 * mixed.noise_sq)  # both ends were rounded
        self.recent_sq += max(1 / self.mixes, RECENT) * (true_sq - self.recent_sq)
        self.mixed_blocks += mixed.blocks - mixed.left_out
        self.left_out_blocks += mixed.left_out
        self.float32_blocks += mixed.float32_blocks
