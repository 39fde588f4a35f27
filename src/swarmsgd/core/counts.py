"""What a node counts: its exchanges, what went over the wire, what its steps cost. Nobody else
writes here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from swarmsgd.core.code import Mixed


@dataclass(slots=True)
class Counts:
    """What became of the exchanges, as this node saw it."""

    started: int = 0
    completed: int = 0
    """Started here and mixed here, late ones included."""
    answered: int = 0
    late: int = 0
    """Completed after patience had run out."""
    overdue: int = 0
    lost: int = 0
    """Started here; the partner may have mixed, this node never did: each may shift the sum
    once.
    """
    refused: int = 0
    skipped: int = 0
    """Rounds without a partner (matching mode), or bursts that found no peer to ask."""


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


def together(seen: Sequence[Mixed]) -> Mixed:
    """What the vectors of one exchange saw: distance, noise and cell are the model's (the first
    one's), blocks are those of all.
    """
    if len(seen) == 1:
        return seen[0]
    return seen[0]._replace(
        blocks=sum(m.blocks for m in seen),
        left_out=sum(m.left_out for m in seen),
        float32_blocks=sum(m.float32_blocks for m in seen),
    )


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
    mixes: int = 0
    distrusted: int = 0
    """Peers dropped because of what they sent."""

    def count(self, mixed: Mixed) -> None:
        """One more exchange was mixed."""
        self.mixes += 1
        self.distance_sq += mixed.distance_sq
        self.noise_sq += mixed.noise_sq
        self.mixed_blocks += mixed.blocks - mixed.left_out
        self.left_out_blocks += mixed.left_out
        self.float32_blocks += mixed.float32_blocks
