"""The settings of a run: frozen values, checked when made. Nothing here reads the environment."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from swarmsgd.errors import ConfigError

MODES: dict[str, str] = {
    "non-blocking": "training goes on while an exchange is in flight; nothing ever waits",
    "blocking": "the initiator waits for the reply before its next step",
    "matching": "all nodes of a round are paired from a shared seed; deterministic, waits",
}
"""Mode name -> one line of help."""

BITS: tuple[int | None, ...] = (None, 3, 4, 5, 6, 7, 8, 16)
"""Bits a coordinate on the wire; None is float32."""

_LENGTHS = 5
"""Sets these generators apart from others that are seeded with (run, node)."""


def closest(name: str, known: list[str]) -> str:
    """`; did you mean "..."?` for the known name most like `name`, or ""."""
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f'; did you mean "{match[0]}"?' if match else ""


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """H: how many local steps a burst has, fixed or geometric with this mean (section 1)."""

    mean: int
    geometric: bool = False

    @classmethod
    def parse(cls, text: int | str | LocalSteps) -> LocalSteps:
        """From `4`, `"4"` or `"geometric:4"`. Raises ConfigError."""
        if isinstance(text, LocalSteps):
            return text
        word, _, number = str(text).rpartition(":")
        if word in ("", "geometric") and number.isdecimal() and int(number) >= 1:
            return cls(int(number), geometric=word == "geometric")
        raise ConfigError(
            f'local_steps is {text!r}, wanted a whole number of at least 1 or "geometric:4": '
            "the number of optimizer steps between two exchanges"
        )

    @staticmethod
    def generator(seed: int, node: int, *, rounds: bool) -> np.random.Generator:
        """What one node's lengths are drawn from.

        In matching mode (`rounds`) that is the same for all nodes: a round is equally long for
        each, or they would not make the same number of them.
        """
        return np.random.default_rng([seed, _LENGTHS, 0 if rounds else 1 + node])

    def draw(self, rng: np.random.Generator) -> int:
        """The length of the next burst, in steps, at least 1."""
        return int(rng.geometric(1 / self.mean)) if self.geometric else self.mean

    def __str__(self) -> str:
        return f"geometric:{self.mean}" if self.geometric else str(self.mean)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How one node takes part in a swarm. All nodes must agree on all but `local_steps`."""

    local_steps: int | str = 4
    """H, optimizer steps between two exchanges: a number, or "geometric:4" for a random one."""
    mode: str = "non-blocking"
    """non-blocking, blocking or matching."""
    bits: int | None = 8
    """Bits a parameter on the wire; None sends float32."""
    rotation: bool | None = None
    """Whether blocks are rotated before they are coded, which costs time and saves noise where
    few parameters change much; None: at 6 bits and less."""
    exchange_state: tuple[str, ...] = ()
    """Names of optimizer state that is averaged with the model, e.g. momentum_buffer."""
    seed: int = 0
    """Seeds the choice of partners and, for random graphs, the graph. Not the model."""
    broadcast_start: bool = True
    """Begin with node 0's parameters and buffers everywhere; False: each keeps its own."""
    join_timeout_s: float = 300.0
    """How long join() waits for all nodes to appear before it says who is missing."""

    def __post_init__(self) -> None:
        LocalSteps.parse(self.local_steps)
        if self.mode not in MODES:
            raise ConfigError(
                f"mode is {self.mode!r}, wanted one of {', '.join(MODES)}"
                + closest(str(self.mode), list(MODES))
            )
        if self.bits not in BITS:
            names = ", ".join("none" if b is None else str(b) for b in BITS)
            raise ConfigError(f"bits is {self.bits!r}, wanted one of {names}")
        if self.rotation not in (None, False, True):
            raise ConfigError(f"rotation is {self.rotation!r}, wanted True, False or None")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed!r}, wanted a whole number from 0 to 2^63 - 1")
        if not self.join_timeout_s > 0:
            raise ConfigError(f"join_timeout_s is {self.join_timeout_s!r}, wanted more than 0")
