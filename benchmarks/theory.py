"""The theory of the algorithm (docs/theory.md) held against the simulator: tables, and a page of
plots.

    python benchmarks/theory.py [--quick] [--keep] [--out theory.html]

A few minutes on two cores; `--quick` measures fewer and smaller swarms in half a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import theory_measure as measure
import theory_page
import theory_tables
import torch
from bench import keep, table

from swarmsgd.observe.page import write_page

Row = dict[str, Any]


class Job(NamedTuple):
    """One row of a section."""

    call: Callable[..., Row]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any] = {}


GRAPHS = ("ring", "complete", "hypercube", "random-regular:4", "torus", "star")
BITS = (None, 8, 6, 5, 4, 3)
WAIT_MS = {"non-blocking": 0.0, "blocking": 0.1}
"""Latency where overlap is not the subject: without any, the blocking mode has nothing to wait for,
and is the other one to the bit.
"""


class Size(NamedTuple):
    """How much is measured."""

    nodes: int
    """On the graphs that are compared."""
    pairs: tuple[int, ...]
    team: tuple[int, ...]
    lengths: tuple[int, ...]
    latencies_ms: tuple[float, ...]
    exchanges: int
    bursts: int
    ring_bursts: int
    """A ring of n nodes takes long to forget its start: r/(2 lambda_2) bursts, 104 for n = 64."""
    steps: int
    seeds: int


FULL = Size(
    64, (4, 8, 16, 32, 64, 128, 256), (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32),
    (0.1, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0), 3000, 150, 900, 2500, 3,
)  # fmt: skip
QUICK = Size(16, (4, 16), (1, 4, 16), (1, 4, 16), (1.0, 20.0), 300, 40, 60, 300, 1)


def plan(size: Size) -> dict[str, list[Job]]:
    """Section -> its jobs. No two rows of a section share their noise where seeds are given."""
    return {
        "graphs": [
            Job(measure.spread, (graph, pace, bursts, size.nodes, seed))
            for seed, graph in enumerate(GRAPHS)
            for bursts in [size.ring_bursts if graph == "ring" else size.bursts]
            for pace in (4, measure.POISSON)
        ],
        "local steps": [Job(measure.burst_length, (h, size.steps)) for h in size.lengths],
        "floor": [Job(measure.floor, (n, size.steps)) for n in size.team],
        "race": [Job(measure.race, (n, size.seeds)) for n in size.team],
        "bits": [Job(measure.bits_of, (b, size.bursts // 2)) for b in BITS],
        "pairs": [
            Job(measure.pairs, (n, mode, size.exchanges), {"latency_ms": wait, "seed": n + i})
            for n in size.pairs
            for i, (mode, wait) in enumerate(WAIT_MS.items())
        ],
        "matched": [Job(measure.matched, (n, size.exchanges)) for n in size.pairs],
        "overlap": [
            Job(measure.pairs, (16, mode, size.exchanges), {"latency_ms": wait, "seed": i})
            for i, wait in enumerate(size.latencies_ms)
            for mode in WAIT_MS
        ],
        "cliff": [Job(measure.cliff, (b, past)) for b in (8, 6, 4) for past in (1.0, 1.005, 1.05)],
        "averaging": [Job(measure.averaging, (g, size.nodes)) for g in GRAPHS if g != "star"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller swarms")
    parser.add_argument("--keep", action="store_true", help="write the record")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("theory.html"), help="the page")
    options = parser.parse_args()
    begin = time.perf_counter()
    figures = run(plan(QUICK if options.quick else FULL), options.processes)
    seconds = time.perf_counter() - begin
    for part in theory_tables.tables(figures):
        print(f"\n{part.title}\n\n{table([part.columns, *part.rows])}\n\n{part.note}")
    write_page(options.out, theory_page.html(figures))
    print(f"\n{options.out}; {seconds:.0f} s")
    if options.keep:
        note = "quick" if options.quick else ""
        keep("theory", {**figures, "seconds": round(seconds)}, note)


def run(jobs: Mapping[str, list[Job]], processes: int) -> dict[str, list[Row]]:
    """The rows of each section, measured by several processes at once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        found: dict[str, list[Future[Row]]] = {
            section: [pool.submit(job.call, *job.arguments, **job.named) for job in rows]
            for section, rows in jobs.items()
        }
        return {section: [row.result() for row in rows] for section, rows in found.items()}


if __name__ == "__main__":
    main()
