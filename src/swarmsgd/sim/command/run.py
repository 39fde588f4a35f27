"""One simulated run: train a task in virtual time, score the mean model on the way, sum up."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save

from swarmsgd.errors import ModelError
from swarmsgd.observe.ending import Ending
from swarmsgd.observe.folder import CURVE, MODEL, SUMMARY
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.schema import filled
from swarmsgd.settings.options import plain
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.makers import MAKERS, Algorithm
from swarmsgd.sim.command.summary import summarise_simulated
from swarmsgd.sim.engine.fleet import Fleet, Vector, mean_of
from swarmsgd.sim.engine.ledger import Ledger
from swarmsgd.tasks import Notify, Score, Task
from swarmsgd.tasks.base import files_of

OnPoint = Callable[[dict[str, Any]], None]
"""Called with each point of the curve as it is made."""


def unwatched(_point: dict[str, Any]) -> None:
    """The `OnPoint` that does nothing."""


@dataclass(kw_only=True)
class Result:
    """What a run came to."""

    summary: dict[str, Any]
    curve: list[dict[str, Any]]
    """Points of the mean model over the run; fields as in the records' kind `curve`."""
    models_KD: Vector
    """[live nodes, D] the nodes' models at the end."""
    mean_D: Vector
    """[D] the mean of what they report."""
    task: Task
    fleet: Fleet

    def state_dict(self) -> dict[str, Any]:
        """The mean model's, batch norm estimated anew."""
        live = self.summary["mean_of"]
        return self.fleet.learner.state(self.mean_D, self.fleet.mean_buffers(live))


def simulate(
    config: SimConfig,
    *,
    folder: Path | None = None,
    task: Task | None = None,
    notify: Notify = lambda _line: None,
    watch: OnPoint = unwatched,
) -> Result:
    """Run `config` in virtual time: a function of it alone, ties included.

    Records and the curve go to `folder`, if one is given. `task` may be handed in to share its data
    between runs; it must be that of `config`. Ctrl-C ends the run early, with the result so far.
    Raises ModelError if training diverges.
    """
    check_run(config)
    made = task or config.make_task(notify)
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is no number is an error
        return _Run(config, made, folder, watch).all()


def check_run(config: SimConfig) -> None:
    """Raise ConfigError for what `SimConfig` cannot know by itself."""
    MAKERS[config.algorithm].check(config)


@dataclass
class _Run:
    config: SimConfig
    task: Task
    folder: Path | None
    watch: OnPoint
    curve: list[dict[str, Any]] = field(default_factory=list)
    score_s: float = 0.0
    due: int = 0
    """Number of the evaluation that the newest point of the curve was."""
    interrupted: bool = False

    def all(self) -> Result:
        begin = time.perf_counter()
        self.fleet = Fleet(self.task, self.config)
        self.ledger = Ledger(self.config.nodes, self.folder)
        path = None if self.folder is None else self.folder / CURVE
        now = 0.0
        with Recorder(path, -1, clock=lambda: self.ledger.clock.now) as self.recorder:
            algorithm = MAKERS[self.config.algorithm].make(self.fleet, self.ledger)
            gc.freeze()  # what many nodes consist of stays to the end: it need not be searched
            try:
                self.point(algorithm, now)
                for now in algorithm.run():
                    if self.steps_due() > self.due:
                        self.point(algorithm, now)
                algorithm.tally()
                self.ledger.write_results(
                    algorithm.live(), self.fleet.steps_N, self.task.batch_size
                )
            except KeyboardInterrupt:
                self.interrupted = True
            except ModelError:  # the curve breaks off here
                broken = filled("curve", time_s=now, samples=self.fleet.samples)
                self.recorder.write("curve", **broken)
                raise
            finally:
                gc.unfreeze()
                self.ledger.close()
            if not self.curve or self.curve[-1]["samples"] < self.fleet.samples:
                self.point(algorithm, now)
            run_s = time.perf_counter() - begin - self.score_s
            return self.result(algorithm, now, run_s)

    def steps_due(self) -> int:
        """How many evaluations are due after the steps so far."""
        return self.fleet.steps * self.config.evals // self.fleet.budget

    def point(self, algorithm: Algorithm, now: float) -> None:
        """One point of the curve."""
        models, live = algorithm.models(), algorithm.live()
        fleet = self.fleet
        begin = time.perf_counter()
        algorithm.tally()
        gamma = mean_of(models)[1]
        score = fleet.score_mean(mean_of(fleet.reported(models, live))[0], live)
        self.curve.append(
            {
                "time_s": now,
                "samples": fleet.samples,
                "epoch": fleet.samples / fleet.samples_per_epoch,
                "exchanges": int(self.ledger.initiated_N.sum()),
                "bytes_sent": int(self.ledger.bytes_sent_N.sum()),
                "gamma": gamma,
                "gamma_estimate": self.ledger.gamma_estimate,
                "loss": score.loss,
                "accuracy": score.accuracy,
                "scores": dict(score.extra),
                "train_loss": fleet.take_loss(),
                "lr": fleet.lr(live[0]) if live else None,
                "live": len(live),
            }
        )
        self.due = self.steps_due()
        self.recorder.write("curve", **self.curve[-1])
        self.score_s += time.perf_counter() - begin
        self.watch(self.curve[-1])

    def result(self, algorithm: Algorithm, now: float, run_s: float) -> Result:
        models, live = algorithm.models(), algorithm.live()
        gamma, reported = mean_of(models)[1], self.fleet.reported(models, live)
        mean = mean_of(reported)[0]
        algorithm.tally()
        begin = time.perf_counter()
        scores = self.own_scores(reported, live)
        score = self.fleet.score_mean(mean, live)
        train = self.fleet.learner.train_score(mean, self.fleet.mean_buffers(live))
        self.score_s += time.perf_counter() - begin
        summary = summarise_simulated(
            self.config,
            self.task,
            self.fleet,
            self.ledger,
            mean=score,
            train=train,
            own=scores,
            gamma=gamma,
            live=live,
            virtual_s=now,
            host_s=run_s,
            score_s=self.score_s,
            interrupted=self.interrupted,
        )
        return Result(
            summary=summary,
            curve=self.curve,
            models_KD=models,
            mean_D=mean,
            task=self.task,
            fleet=self.fleet,
        )

    def own_scores(self, models: Vector, live: list[int]) -> dict[int, Score]:
        """Scores of single nodes' models, evenly spaced over the live ones."""
        count = min(self.config.score_nodes, len(live))
        rows = np.unique(np.linspace(0, len(live) - 1, count).round().astype(int)) if count else []
        return {
            live[row]: self.fleet.learner.evaluate(
                models[row], self.fleet.buffers_NB[live[row]], mean=False
            )
            for row in rows
        }


def write_result(result: Result, folder: Path) -> Ending:
    """`summary.json`, `model.safetensors` and what the model needs."""
    ending = Ending(folder)
    ending.put(SUMMARY, json.dumps(plain(result.summary), indent=2) + "\n")
    ending.put(MODEL, save(result.state_dict()))
    for name, contents in files_of(result.task).items():
        ending.put(name, contents)
    return ending
