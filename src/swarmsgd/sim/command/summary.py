"""What a simulated run came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmsgd.observe.summary import summary
from swarmsgd.settings.options import plain
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.engine.fleet import Fleet
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.tasks import Score, Task


def summarise_simulated(
    config: SimConfig,
    task: Task,
    fleet: Fleet,
    ledger: Ledger,
    *,
    mean: Score,
    train: Score,
    own: Mapping[int, Score],
    gamma: float,
    live: list[int],
    virtual_s: float,
    host_s: float,
    score_s: float,
    interrupted: bool,
) -> dict[str, Any]:
    """The contents of `summary.json`."""
    steps = fleet.made_N[live] if live else fleet.made_N
    worked = ledger.compute_s_N > 0
    blocked, compute = ledger.blocked_s_N[worked], ledger.compute_s_N[worked]
    return summary(
        config,
        mean=mean.fields(),
        own=[score.fields() for score in own.values()],
        simulated=True,
        world=plain(vars(config.world)),
        batch_size=task.batch_size,
        parameters=fleet.dim,
        samples=fleet.samples,
        epochs=fleet.samples / task.samples_per_epoch,
        wall_s=virtual_s,
        exchanges=int(ledger.initiated_N.sum()),
        lost_exchanges=int(ledger.lost_N.sum()),
        bytes_sent=int(ledger.bytes_sent_N.sum()),
        train_loss=train.loss,
        train_accuracy=train.accuracy,
        scored_nodes=list(own),
        gamma=gamma,
        mean_of=live,
        blocked_s=float(blocked.mean()) if worked.any() else 0.0,
        compute_s=float(compute.mean()) if worked.any() else 0.0,
        synchronization=float(blocked.sum() / compute.sum()) if compute.sum() else 0.0,
        step_ms=1000 * virtual_s * len(steps) / int(steps.sum()) if steps.any() else None,
        steps_of_nodes=[int(steps.min()), int(steps.max())],
        host_s=host_s,
        gradient_host_s=fleet.gradient_s,
        score_host_s=score_s,
        events=ledger.events,
        stopped=ledger.stopped,
        interrupted="SIGINT" if interrupted else None,
    )
