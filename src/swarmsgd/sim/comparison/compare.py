"""`swarmsgd compare`: run a comparison on all cores, print its table, write its page."""

from __future__ import annotations

import gc
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from swarmsgd.checks import whole
from swarmsgd.cores import usable_cores
from swarmsgd.errors import ConfigError, ModelError, SwarmError
from swarmsgd.observe.comparison_page import compare_page
from swarmsgd.observe.curves import read_run
from swarmsgd.observe.ending import Ending
from swarmsgd.observe.folder import MODEL, OWN_FILES, REPORT, RunFolder, make_folder
from swarmsgd.observe.words import notice, reached, stopped
from swarmsgd.scores import metric_of
from swarmsgd.settings.options import plain
from swarmsgd.sim.command.command import INTERRUPTED
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate, write_result
from swarmsgd.sim.comparison.pool import Pool
from swarmsgd.sim.comparison.recipe import Comparison, folder_of, read_comparison

TABLE = "table.md"
TUNING = "tuning.json"
CHOSEN = "chosen.json"
TABLE_COLUMNS = {
    "virtual s": ("wall_s", 1, 2),
    "step, ms": ("step_ms", 1, 2),
    "waiting / computing, %": ("synchronization", 100, 1),
    "MB a node": ("bytes_a_node", 1e-6, 2),
    "gamma": ("gamma", 1, 4),
}
"""Heading -> field of the summary, factor, digits; the scores stand before them."""

Results = dict[str, dict[int, dict[str, Any] | None]]
"""Label -> seed -> summary; None of a run that diverged."""


@dataclass(frozen=True)
class Job:
    """One run: what, and where to."""

    label: str
    config: SimConfig
    folder: Path | None


def compare(
    recipe: str,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    file: TextIO | None = None,
) -> int:
    """Run the recipe; the exit code. Raises ConfigError or DataError before anything runs."""
    comparison = read_comparison(recipe)
    if jobs is not None:
        whole("jobs", jobs, 1)
    planned = RunFolder(out, f"compare-{Path(recipe).stem}", overwrite=overwrite)
    _fetch(comparison)
    config = json.dumps(vars(comparison), indent=2, default=str)
    with planned.owned(config, (*OWN_FILES, TABLE, TUNING, CHOSEN)) as folder:
        return Comparing(comparison, folder, jobs or usable_cores(), file or sys.stdout).all()


def _fetch(comparison: Comparison) -> None:
    """Load the data once, so that runs do not fetch them at the same time."""
    made: set[str] = set()
    for label in comparison.variants:
        config = comparison.config(label, comparison.seeds[0], 1.0)
        name = f"{config.task} {config.nodes}"
        if name not in made:
            made.add(name)
            try:
                config.make_task(notice)
            except ConfigError as error:
                raise ConfigError(f"variant {label!r}: {error}") from None


class Comparing:
    """The runs of one comparison, `jobs` at a time, in processes of their own."""

    def __init__(self, comparison: Comparison, folder: Path, jobs: int, out: TextIO) -> None:
        self._comparison = comparison
        self._folder = folder
        self._ending = Ending(folder)
        self._jobs = jobs
        self._out = out
        self._begin = time.perf_counter()

    def all(self) -> int:
        """Tune, run, report; the exit code."""
        self._say(self._comparison.title)
        try:
            with Pool(min(self._jobs, self._most_at_once())) as pool:
                rates = self._tune(pool)
                results = self._run(pool, rates)
        except KeyboardInterrupt:
            notice(f"interrupted: the runs that had ended are kept in {self._folder}")
            return INTERRUPTED
        self._report(rates, results)
        if complaint := self._ending.complaint():
            notice(complaint)
        failed = [label for label in self._comparison.variants if not results.get(label)]
        if failed:
            notice(f"no run of {', '.join(failed)} came to an end: see above")
        return 1 if failed or complaint else 0

    def _most_at_once(self) -> int:
        comparison = self._comparison
        tuned = sum(comparison.is_tuned(label) for label in comparison.variants)
        return max(
            tuned * len(comparison.rates), len(comparison.variants) * len(comparison.seeds), 1
        )

    def _tune(self, pool: Pool) -> dict[str, float]:
        """The best rate of each variant by the mean model's training loss on the tuning seed."""
        comparison = self._comparison
        rates = {label: o["lr"] for label, o in comparison.variants.items() if "lr" in o}
        jobs = [
            Job(label, comparison.config(label, comparison.tuning_seed, lr), None)
            for label in comparison.variants
            if comparison.is_tuned(label)
            for lr in comparison.rates
        ]
        tried: dict[str, dict[float, float]] = {}
        self._keep_tuning(tried)
        for job, summary in self._each(pool, jobs, "tuning"):
            loss = math.inf if summary is None else summary["train_loss"]
            loss = loss if math.isfinite(loss) else math.inf
            tried.setdefault(job.label, {})[job.config.optimizer.lr] = loss
            self._keep_tuning(tried)
        for label, losses in tried.items():
            best = min(sorted(losses), key=lambda lr: losses[lr])
            if losses[best] < math.inf:
                rates[label] = best
                if len(losses) > 2 and best in (min(losses), max(losses)):
                    self._say(f"  {label}: the best rate, {best:g}, is at the edge of the grid")
        return rates

    def _keep_tuning(self, tried: dict[str, dict[float, float]]) -> None:
        finite = {
            k: {r: x if x < math.inf else None for r, x in v.items()} for k, v in tried.items()
        }
        self._ending.put(TUNING, json.dumps(finite, indent=1) + "\n")

    def _run(self, pool: Pool, rates: dict[str, float]) -> Results:
        """Of the variants of which a run ended well."""
        jobs = [
            Job(label, self._comparison.config(label, seed, rates[label]), self._of(label, seed))
            for label in self._comparison.variants
            if label in rates
            for seed in self._comparison.seeds
        ]
        results: Results = {}
        for job, summary in self._each(pool, jobs, "runs"):
            results.setdefault(job.label, {})[job.config.seed] = summary
        return {
            label: results[label]
            for label in self._comparison.variants
            if any(summary is not None for summary in results.get(label, {}).values())
        }

    def _of(self, label: str, seed: int) -> Path:
        return self._folder / folder_of(label) / f"seed-{seed}"

    def _each(
        self, pool: Pool, jobs: Sequence[Job], what: str
    ) -> Iterator[tuple[Job, dict[str, Any] | None]]:
        """Run them; summaries as they come, None for one that diverged."""
        if not jobs:
            return
        self._say(f"{what}: {len(jobs)}, {min(self._jobs, len(jobs))} at a time")
        for number, (job, future) in enumerate(pool.each(run_job, jobs), 1):
            summary = self._outcome(future, job)
            self._say(f"  {number}/{len(jobs)} {_line(job, summary)}")
            yield job, summary

    def _outcome(self, future: Future[dict[str, Any]], job: Job) -> dict[str, Any] | None:
        try:
            return future.result()
        except ModelError as error:
            self._say(f"  {job.label}: {error}")
            return None
        except BrokenProcessPool:
            raise SwarmError(
                "a process that ran one of the runs was killed, by the system for its memory "
                f"perhaps: try --jobs 1. The runs that had ended are kept in {self._folder}"
            ) from None

    def _report(self, rates: dict[str, float], results: Results) -> None:
        if not results:
            return
        text, seeds = markdown(rates, results), self._comparison.seeds
        self._say("")
        self._say(text)
        self._ending.put(TABLE, text + "\n")
        chosen = plain({"rates": rates, "runs": results})
        self._ending.put(CHOSEN, json.dumps(chosen, indent=1))
        for label, seed in ((label, seed) for label in results for seed in seeds):
            path = self._of(label, seed) / MODEL
            if results[label][seed] is not None and not path.exists():
                self._ending.lost[str(path.relative_to(self._folder))] = "see above"
        try:
            curves = [
                read_run(
                    label,
                    self._comparison.config(label, seeds[0], rates[label]).algorithm,
                    [self._of(label, seed) for seed in seeds],
                )
                for label in results
            ]
            self._ending.put(REPORT, compare_page(curves, self._comparison.title))
        except SwarmError:
            self._ending.lost[REPORT] = "there was no room for a curve"
        seconds = time.perf_counter() - self._begin
        self._say(f"\nwritten to {self._folder} in {seconds:.0f} s; {REPORT} there has the plots")

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def run_job(job: Job) -> dict[str, Any]:
    """One run, in a process of the pool; its summary."""
    folder = job.folder
    try:
        if folder is not None:
            make_folder(folder, job.config.to_json())
    except ConfigError as error:  # a full disk: what the run came to can still be told
        notice(str(error))
        folder = None
    result = simulate(job.config, folder=folder)
    if folder is not None and (complaint := write_result(result, folder).complaint()):
        notice(complaint)
    summary = result.summary
    del result
    gc.collect()  # a run is a circle of references that holds the data: hundreds of MB each time
    return summary


def _score(summary: dict[str, Any] | None) -> str:
    """What a run came to, in what it is judged by."""
    if summary is None:
        return "diverged"
    text = metric_of(summary["score"]).write(summary["mean_score"])
    return f"{text}*" if summary["stopped"] else text


def _mean_model(name: str, summary: dict[str, Any]) -> float | None:
    return summary[f"mean_{name}"] if name in ("accuracy", "loss") else summary["scores"].get(name)


def _mean(values: Sequence[float | None], whole: bool) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and whole else None


def _line(job: Job, summary: dict[str, Any] | None) -> str:
    head = f"{job.label}, seed {job.config.seed}, lr {job.config.optimizer.lr:g}"
    if summary is None:
        return f"{head}: diverged"
    line = f"{head}: {reached(summary)}, {summary['wall_s']:.2f} virtual s"
    return f"{line} ({stopped(summary)})" if summary["stopped"] else line


def markdown(rates: dict[str, float], results: Results) -> str:
    """Final figures as a Markdown table: means over seeds, and the score of each. There are no
    means where a seed diverged: those of the others would flatter.
    """
    all_ended = [s for runs in results.values() for s in runs.values() if s is not None]
    judges = dict.fromkeys(s["score"] for s in all_ended)
    names = list(dict.fromkeys([*judges, "loss", *(n for s in all_ended for n in s["scores"])]))
    heads = [metric_of(name).title for name in names]
    rows = [["variant", "rate", *heads, *TABLE_COLUMNS, "each seed"]]
    for label, runs in results.items():
        ended = [summary for summary in runs.values() if summary is not None]
        whole = len(ended) == len(runs)
        row = [label, f"{rates[label]:g}"]
        for name in names:
            values = [_mean_model(name, summary) for summary in ended]
            row.append(metric_of(name).write(_mean(values, whole)))
        for field, factor, digits in TABLE_COLUMNS.values():
            mean = _mean([summary.get(field) for summary in ended], whole)
            row.append("-" if mean is None else f"{factor * mean:,.{digits}f}")
        row.append(" ".join(_score(runs[seed]) for seed in sorted(runs)))
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    early = {
        label: stopped(summary)
        for label, runs in results.items()
        for summary in runs.values()
        if summary is not None and summary["stopped"]
    }
    if early:
        lines += ["", *(f"\\* {label} {why}" for label, why in early.items())]
    return "\n".join(lines)
