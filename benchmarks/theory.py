"""The theory of the algorithm (docs/theory.md) held against the simulator: tables, and a page of
plots.

    python benchmarks/theory.py [--quick | --size medium] [--keep] [--out theory.html]

A few minutes on two cores that do nothing else; `--quick` measures fewer and smaller swarms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
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
MEDIUM = Size(
    32, (4, 8, 16, 64), (1, 4, 16, 64), (1, 4, 16), (0.1, 1.0, 5.0, 20.0), 1200, 80, 240, 800, 1
)
QUICK = Size(16, (4, 16), (1, 4, 16), (1, 4, 16), (1.0, 20.0), 300, 40, 60, 300, 1)
SIZES = {"full": FULL, "medium": MEDIUM, "quick": QUICK}


def plan(size: Size) -> dict[str, list[Job]]:
    """Section -> its jobs. No two rows of a section share their noise where seeds are given."""
    return {
        "averaging": [Job(measure.averaging, (g, size.nodes)) for g in GRAPHS if g != "star"],
        "cliff": [Job(measure.cliff, (b, past)) for b in (8, 6, 4) for past in (1.0, 1.005, 1.05)],
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
        "bits": [Job(measure.bits_of, (b, size.bursts // 2)) for b in BITS],
        "graphs": [
            Job(measure.spread, (graph, pace, bursts, size.nodes, seed))
            for seed, graph in enumerate(GRAPHS)
            for bursts in [size.ring_bursts if graph == "ring" else size.bursts]
            for pace in (4, measure.POISSON)
        ],
        "race": [Job(measure.race, (n, size.seeds)) for n in size.team],
        "floor": [Job(measure.floor, (n, size.steps)) for n in size.team],
        "local steps": [Job(measure.burst_length, (h, size.steps)) for h in size.lengths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick")
    parser.add_argument("--keep", action="store_true", help="write the record")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("theory.html"), help="the page")
    options = parser.parse_args()
    begin = time.perf_counter()
    figures: dict[str, list[Row]] = {}
    for section, rows in run(plan(SIZES[options.size]), options.processes):
        figures[section] = rows
        print(f"{section}: {time.perf_counter() - begin:.0f} s", flush=True)
        if options.keep:
            keep("theory", figures, f"size {options.size}")
    for part in theory_tables.tables(figures):
        print(f"\n{part.title}\n\n{table([part.columns, *part.rows])}\n\n{part.note}")
    write_page(options.out, theory_page.html(figures))
    print(f"\n{options.out}")


def run(jobs: Mapping[str, list[Job]], processes: int) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each section when they are there, measured by several processes at once."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        found: dict[str, list[Future[Row]]] = {
            section: [pool.submit(job.call, *job.arguments, **job.named) for job in rows]
            for section, rows in jobs.items()
        }
        for section, rows in found.items():
            yield section, [row.result() for row in rows]


if __name__ == "__main__":
    main()
