"""One node of `swarmsgd train`, started by a launcher: `python -m ...trainee FOLDER`.

Reads the run's `config.json`, trains on its own shard, writes `node-<rank>.jsonl`; the lowest live
node saves and scores the mean model.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer

from swarmsgd.errors import DataError, ModelError, SwarmError
from swarmsgd.observe.ending import Ending
from swarmsgd.observe.folder import CHECKPOINTS, CONFIG, MODEL
from swarmsgd.observe.view import record_path
from swarmsgd.optim import reporting
from swarmsgd.seeds import seed_for
from swarmsgd.settings.precision import computing_in
from swarmsgd.tasks import Task, estimate_batch_norm
from swarmsgd.tasks.base import device_of, files_of
from swarmsgd.train.checkpoint.folder import Folder
from swarmsgd.train.checkpoint.load import Loaded, load
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.devices import device_of_node
from swarmsgd.train.command.makers import NODE_MAKERS, MeanModel, NodeAlgorithm, SwarmNode

PROGRESS_S = 0.5


def main() -> int:
    """Run the node that the environment says this is; the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        run_node(TrainConfig.from_json((folder / CONFIG).read_text()), rank, folder)
    except SwarmError as error:
        print(f"swarmsgd: error: {error}", file=sys.stderr)
        return 1
    except _Terminated:
        return _TERMINATED
    return 0


_TERMINATED = 128 + signal.SIGTERM


class _Terminated(BaseException):
    """The launcher wants this process to end; not an error of anything in it."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # A task's own processes got the same signal, and torch would raise an error for each.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    raise _Terminated


def run_node(config: TrainConfig, rank: int, folder: Path) -> None:
    """Train as node `rank`. Raises ModelError for a loss that is no number."""
    torch.manual_seed(seed_for("torch", config.seed, rank, bits=64))
    task = config.make_task(lambda line: print(line, file=sys.stderr))
    device = device_of_node(config.device, rank)
    model = task.make_model(config.seed).to(device)
    optimizer = config.optimizer.make(model.parameters())
    checkpoints, begun = folder / CHECKPOINTS, Loaded()
    if config.checkpoint_every and Folder(checkpoints).entries():
        begun = load(checkpoints, model, optimizer)
    algorithm = NODE_MAKERS[config.algorithm].make(
        model, optimizer, config, record_path(folder, rank)
    )
    try:
        _Run(config, rank, folder, task, model, optimizer, algorithm, begun.steps).all()
    except _Terminated:
        algorithm.recorder.write("event", what="terminated", peer=None, text="ended from outside")
        algorithm.recorder.close()
        os._exit(_TERMINATED)  # the peers see the links close; no time for goodbyes
    except SwarmError as error:
        algorithm.recorder.write("event", what="failed", peer=None, text=str(error))
        raise
    finally:
        algorithm.close()


@dataclass
class _Run:
    config: TrainConfig
    rank: int
    folder: Path
    task: Task
    model: nn.Module
    optimizer: Optimizer
    algorithm: NodeAlgorithm
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    longest_ms: float | None = None
    """Of the local steps so far."""

    def all(self) -> None:
        """From the plan to the result."""
        record = self.algorithm.recorder.write
        total = self.config.total_steps(self.task.samples_per_epoch, self.task.batch_size)
        record(
            "plan",
            algorithm=self.config.algorithm,
            total_steps=total,
            total_samples=total * self.task.batch_size,
            unix_s=time.time(),
        )
        begin = time.perf_counter()
        step_ms = self.train(total)
        wall_s = time.perf_counter() - begin
        self.record_progress()
        with reporting(self.optimizer):
            self.score("own", self.model)
        mean = self.algorithm.mean()
        if self.rank == min(mean.nodes):
            self.keep(mean)
        record(
            "result",
            **self.progress(),
            wall_s=wall_s,
            step_ms_p50=np.percentile(step_ms, 50),
            step_ms_p99=np.percentile(step_ms, 99),
            step_ms_max=step_ms.max(),
            gamma=mean.gamma,
            mean_of=mean.nodes,
        )

    def train(self, total: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """All local steps of this node; the wall time of each, in ms."""
        first, step_ms = self.steps, array("f")
        batches, share = self.course(total)
        device = device_of(self.model)
        recorded = begin = time.perf_counter()
        for batch in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.optimizer.rate(share())
            self.optimizer.zero_grad()
            with computing_in(self.config.precision, device):
                loss = self.task.loss(self.algorithm.model, batch)
            self.losses.append(self.checked(loss.item()))
            self.algorithm.backward(loss)
            self.config.optimizer.clip(self.model.parameters())
            self.optimizer.step()
            now = time.perf_counter()
            step_ms.append(1000 * (now - begin))
            self.longest_ms = max(self.longest_ms or 0.0, step_ms[-1])
            self.steps += 1
            self.save(total)
            if now - recorded >= PROGRESS_S or self.steps == first + 1:
                self.record_progress()
                recorded = now
            begin = now
        return np.frombuffer(step_ms, np.float32) if step_ms else np.zeros(1, np.float32)

    def course(self, total: int) -> tuple[Iterable[Any], Callable[[], float]]:
        """The batches up to the end of the run, and how far that is: until this node has made
        `total` steps, or all nodes together as many as that each.
        """
        batches = itertools.islice(self.task.batches(self.rank), self.steps, None)
        if self.config.budget == "together" and isinstance(self.algorithm, SwarmNode):
            swarm = self.algorithm.swarm
            samples = total * self.task.batch_size * self.config.nodes
            return swarm.until(batches, samples=samples), lambda: swarm.share
        left = itertools.islice(batches, max(0, total - self.steps))
        return left, lambda: self.steps / total

    def save(self, total: int) -> None:
        """A checkpoint, if one is due and the end is not there yet."""
        every = self.config.checkpoint_every
        if every and self.steps % every == 0 and self.steps < total:
            assert isinstance(self.algorithm, SwarmNode)
            try:
                self.algorithm.swarm.save(self.folder / CHECKPOINTS)
            except DataError as error:  # the next one may find room
                self.complain(f"{error}; training goes on")

    def checked(self, loss: float) -> float:
        """`loss`; raises ModelError if it is no number."""
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss of node {self.rank} is {loss} at step {self.steps}: training diverged. "
                f"Try an lr below {self.config.optimizer.lr:g}"
            )
        return loss

    def progress(self) -> dict[str, object]:
        """The fields that a progress line and a result share."""
        return {
            "steps": self.steps,
            "samples": self.steps * self.task.batch_size,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.algorithm.figures(),
        }

    def record_progress(self) -> None:
        """One progress line; the loss is the mean since the last one."""
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        self.losses.clear()
        self.algorithm.recorder.write(
            "progress", **self.progress(), loss=loss, step_ms_max=self.longest_ms
        )

    def score(self, which: str, model: nn.Module) -> None:
        """Evaluate on the test set, into the records, or to stdout where these have no room."""
        score, recorder = self.task.evaluate(model), self.algorithm.recorder
        recorder.write("eval", model=which, steps=self.steps, **score.fields())
        recorder.flush()
        if recorder.trouble is not None:
            print(f"{which} model: {score.in_words()}")

    def keep(self, mean: MeanModel) -> None:
        """Score the mean model, batch norm estimated anew, and save it."""
        model = self.task.make_model(self.config.seed).to(device_of(self.model))
        model.load_state_dict(mean.state)
        estimate_batch_norm(model, self.task)
        self.score("mean", model)
        about = {"task": self.task.name, "nodes": str(len(mean.nodes)), "steps": str(self.steps)}
        ending = Ending(self.folder)
        ending.put(MODEL, save(model.state_dict(), metadata=about))
        for name, contents in files_of(self.task).items():
            ending.put(name, contents)
        if complaint := ending.complaint():
            self.complain(complaint)

    def complain(self, text: str) -> None:
        """Record and print what could not be saved."""
        self.algorithm.recorder.write("event", what="unwritten", peer=None, text=text)
        print(f"swarmsgd: {text}", file=sys.stderr)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a second of tidying up what the system frees anyway, spared
