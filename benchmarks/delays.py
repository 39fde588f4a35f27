"""Random delays in every step of a node's start, for whoever wants to see whether it minds."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

from swarmsgd.train.meet.line import Line
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.meet.tree import Tree
from swarmsgd.train.node.worker import Worker
from swarmsgd.transport.zmq import ZmqTransport

STEPS: list[tuple[type, str]] = [
    (Rendezvous, "__init__"),
    (Line, "meet"),
    (Line, "gather"),
    (Rendezvous, "listen"),
    (ZmqTransport, "open"),
    (Tree, "broadcast"),
    (Tree, "close"),
    (Worker, "start"),
    (Rendezvous, "begin"),
    (Line, "listen"),
]
"""What a start does, in the order of the first call. A node meets the others in several rooms
(`gather`), and opens links twice: for the start, and for good.
"""


def delay_every_step(seed: str, most_s: float) -> list[float]:
    """From now on this process waits, before each step of a start, up to `most_s`; how long it has
    waited, so far.
    """
    draw, waited = random.Random(seed), list[float]()

    def late(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def after_a_while(*arguments: Any, **options: Any) -> Any:
            waited.append(draw.uniform(0.0, most_s))
            time.sleep(waited[-1])
            return step(*arguments, **options)

        return after_a_while

    for owner, name in STEPS:
        setattr(owner, name, late(getattr(owner, name)))
    return waited
