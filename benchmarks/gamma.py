"""Gamma as the nodes' own exchanges show it, next to the exact one: ring and complete graph, H 1 to
16.

    python benchmarks/gamma.py [--nodes 16] [--passes 12] [--out gamma.html] [--keep]

Simulated, a real model on the digits data at a constant rate. Each point of a curve after the first
third of the run gives one ratio: the estimate, mean over the nodes, over the exact Gamma then. Five
minutes on one core.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from bench import keep, table

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.page import page, write_page

GRAPHS = ("complete", "ring")
LENGTHS = (1, 2, 4, 8, 16)
BEGIN = 1 / 3
"""Share of the run before which the models are still near their common start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--passes", type=float, default=12.0)
    parser.add_argument("--out", type=Path, help="a page with the plot")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {graph: {} for graph in GRAPHS}
    for graph in GRAPHS:
        for length in LENGTHS:
            found[graph][str(length)] = row = measure(graph, length, options.nodes, options.passes)
            print(f"{graph}, H = {length}: {row['median']:.2f}", flush=True)
    print(tabulated(found))
    if options.keep:
        keep("gamma", {"nodes": options.nodes, "passes": options.passes, **found})
    if options.out:
        write_page(options.out, page("Gamma without a collective", [figure(found)]))


def measure(graph: str, length: int, nodes: int, passes: float) -> dict[str, Any]:
    """Estimate over exact Gamma at each point of one run: median, lowest, highest."""
    from swarmsgd import SimConfig, simulate

    config = SimConfig.of(
        task="vision",
        dataset="digits",
        recipe="sgd",
        nodes=nodes,
        epochs=passes,
        graph=graph,
        local_steps=length,
        schedule="constant",  # while a rate falls, Gamma falls faster than a mean of the past
        step_jitter=0.2,
        evals=12,
        score_nodes=0,
    )
    points = simulate(config).curve
    late = [p for p in points if p["epoch"] >= BEGIN * passes and p["gamma_estimate"]]
    ratios = [point["gamma_estimate"] / point["gamma"] for point in late]
    return {
        "median": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "points": len(ratios),
        "gamma": points[-1]["gamma"],
    }


def tabulated(found: dict[str, dict[str, Any]]) -> str:
    """Rows: H; columns: graphs."""
    rows: list[list[object]] = [["H", *(f"{graph}: estimate / exact" for graph in GRAPHS)]]
    for length in LENGTHS:
        cells = (found[graph][str(length)] for graph in GRAPHS)
        rows.append(
            [
                length,
                *(f"{c['median']:.2f} ({c['lowest']:.2f} to {c['highest']:.2f})" for c in cells),
            ]
        )
    return table(rows)


def figure(found: dict[str, dict[str, Any]]) -> Any:
    """The one plot: ratio against H."""
    series = [
        Series(
            label=graph,
            x=list(LENGTHS),
            y=[found[graph][str(length)]["median"] for length in LENGTHS],
            low=[found[graph][str(length)]["lowest"] for length in LENGTHS],
            high=[found[graph][str(length)]["highest"] for length in LENGTHS],
        )
        for graph in GRAPHS
    ]
    exact = Series(label="exact", x=[1, 16], y=[1, 1], reference=True)
    return line_plot(
        [*series, exact],
        title="Gamma from exchanges, over the exact one",
        x=Axis(title="local steps between exchanges, H", log=True, ticks=LENGTHS),
        y=Axis(title="ratio", log=True, ticks=(0.25, 0.5, 1, 2, 4)),
    )


if __name__ == "__main__":
    main()
