"""`swarmsgd store`: the meeting place of open swarms, alone."""

from __future__ import annotations

import time
from pathlib import Path

from swarmsgd.checks import whole
from swarmsgd.observe.words import notice
from swarmsgd.train.launch.processes import Interrupts
from swarmsgd.train.meet.key import find_key
from swarmsgd.train.meet.register import REFILL_S
from swarmsgd.train.meet.tracker import Tracker

_LOOK_S = 0.2


def keep_store(address: str, port: int, key: Path | None) -> int:
    """Until a signal comes; says who comes and goes. Raises ConfigError for a taken port."""
    whole("the port", port, 1, 65535)
    swarm_key = find_key(key)
    tracker = Tracker(address, port, swarm_key, refill_s=REFILL_S)
    keys = "without a key" if swarm_key is None else f"with key {swarm_key.fingerprint}"
    notice(f"the store listens at port {tracker.port}, {keys}; nodes join with --swarm HOST:{port}")
    shown: dict[int, int] = {}
    with Interrupts() as interrupts:
        while interrupts.first is None and tracker.error is None:
            here = tracker.live()
            for node in sorted(here.keys() - shown.keys()):
                notice(f"node {node} is there ({len(here)} in all)")
            for node in sorted(shown.keys() - here.keys()):
                notice(f"node {node} has gone ({len(here)} in all)")
            shown = here
            time.sleep(_LOOK_S)
    tracker.close()
    if tracker.error is not None:
        raise tracker.error
    notice(f"ended; {len(shown)} nodes train on, and a store started again here finds them")
    return 0
