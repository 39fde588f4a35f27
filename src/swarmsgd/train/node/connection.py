"""What ties a node to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from swarmsgd.core.node import Counts
from swarmsgd.core.replica import Replica
from swarmsgd.core.traffic import Traffic
from swarmsgd.errors import SwarmError
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.node.not_exchanged import NotExchanged
from swarmsgd.train.node.worker import Worker


@dataclass(frozen=True, slots=True)
class Connection:
    """What ties a node to the others; a swarm of one node has none."""

    rendezvous: Rendezvous
    replica: Replica
    worker: Worker
    others: NotExchanged

    def raise_error(self, error: BaseException) -> NoReturn:
        """Raise what ended the exchange side."""
        if isinstance(error, SwarmError):
            raise error
        raise SwarmError(
            f"the exchange side of node {self.worker.machine.rank} failed with "
            f"{type(error).__name__}: {error}. This is a fault of swarmsgd; training can go on "
            "alone after leave()"
        ) from error

    def close(self, settle: Callable[[], None] = lambda: None) -> None:
        """Finish or give up what is in flight, `settle`, say goodbye, leave nothing running."""
        try:
            self.worker.close()
        finally:
            try:
                settle()
            finally:
                self.rendezvous.leave()


def figures_of(worker: Worker | None) -> dict[str, Any]:
    """What the exchange side did so far, for `Swarm.stats`; nothing in a swarm of one node."""
    if worker is None:
        alone = {"incarnation": 0, "busy_s": 0.0, "open_peers": 0, "lost_peers": {}}
        return alone | asdict(Counts()) | asdict(Traffic())
    return {
        "incarnation": worker.machine.incarnation,
        **asdict(worker.machine.counts),
        **asdict(worker.traffic),
        "busy_s": worker.busy_s,
        "open_peers": len(worker.machine.membership.open),
        "lost_peers": dict(worker.lost_peers),
    }
