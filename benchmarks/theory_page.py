"""The page of `theory.py`: its tables, with plots beside them."""

from __future__ import annotations

from theory_tables import Figures, Rows, by_ratio, column, only, tables

from swarmsgd.observe.axes import Axis
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.page import PagePart, Row, page

NODES = Axis(title="nodes n", log=True)


def html(figures: Figures) -> str:
    """The page."""
    averaging, pairs, overlap, spread, speed_up, local_steps, bits, cliff = tables(figures)
    parts: list[PagePart] = [
        "Measured in the simulator, which runs the node machine, the code and the messages of a "
        "real run. Distances and Gamma in units of v, the mean squared norm of a burst; ± is one "
        "standard error, from batch means. Dashed: theory.",
        averaging,
        pairs,
        Row([_pairs_plot(figures["pairs"], figures["matched"]), _overlap_plot(figures["overlap"])]),
        overlap,
        spread,
        Row([_graphs_plot(figures["graphs"]), _resistance_plot(figures["graphs"])]),
        speed_up,
        Row([_floor_plot(figures["floor"]), _race_plot(figures["race"])]),
        local_steps,
        Row([_gamma_by_h(figures["local steps"]), _excess_by_h(figures["local steps"])]),
        bits,
        Row([_gamma_by_bits(figures["bits"]), _noise_by_bits(figures["bits"])]),
        cliff,
    ]
    return page("SwarmSGD: theory and measurement", parts)


def _pairs_plot(rows: Rows, matched: Rows):
    free = only(rows, mode="non-blocking")
    n = column(free, "nodes")
    return line_plot(
        [
            Series(label="matching, as averaged", x=n, y=column(matched, "averaged")),
            Series(label="4 (1 - 1/n)", x=n, y=column(matched, "predicted"), reference=True),
            Series(label="non-blocking", x=n, y=column(free, "averaged")),
            Series(label="2 (1 - 1/n)", x=n, y=column(free, "predicted"), reference=True),
            Series(label="matching, before", x=n, y=column(matched, "before")),
            Series(label="2 (1 - 2/n)", x=n, y=column(matched, "before_predicted"), reference=True),
        ],
        title="Squared distance of a pair",
        x=NODES,
        y=Axis(title="in v"),
    )


def _overlap_plot(rows: Rows):
    series = [
        Series(label=f"{mode}: {label}", x=column(some, "share"), y=column(some, name), group=name)
        for name, label in (("averaged", "distance"), ("gamma", "Gamma"))
        for mode in ("non-blocking", "blocking")
        for some in [only(rows, mode=mode)]
    ]
    time = Axis(title="exchange time / burst time", log=True)
    return line_plot(
        series, title="Exchanges that take time", x=time, y=Axis(title="in v", log=True)
    )


def _graphs_plot(rows: Rows):
    regular = [r for r in by_ratio(rows, "geometric:4") if r["graph"] != "star"]
    x = column(regular, "r_over_lambda_2")
    return line_plot(
        [
            Series(label="bound", x=x, y=column(regular, "bound"), reference=True),
            Series(label="predicted", x=x, y=column(regular, "predicted"), reference=True),
            Series(label="measured", x=x, y=column(regular, "gamma"), strong=True),
        ],
        title="Gamma by graph: complete, hypercube, random, torus, ring",
        x=Axis(title="r / lambda_2", log=True),
        y=Axis(title="in v", log=True),
    )


def _resistance_plot(rows: Rows):
    poisson, fixed = (by_ratio(rows, pace) for pace in ("geometric:4", 4))
    for some in (poisson, fixed):
        some.sort(key=lambda r: r["predicted"])
    x = column(poisson, "predicted")
    return line_plot(
        [
            Series(label="equal", x=x, y=x, reference=True),
            Series(label="random lengths", x=x, y=column(poisson, "gamma")),
            Series(label="fixed H", x=x, y=column(fixed, "gamma")),
        ],
        title="Gamma, measured against predicted, all graphs",
        x=Axis(title="predicted, in v", log=True),
        y=Axis(title="measured, in v", log=True),
    )


def _floor_plot(rows: Rows):
    n = column(rows, "nodes")
    return line_plot(
        [
            Series(label="SGD's / n", x=n, y=column(rows, "predicted"), reference=True),
            Series(label="measured", x=n, y=column(rows, "excess"), group="swarm"),
        ],
        title="Excess loss of the mean model",
        x=NODES,
        y=Axis(title="in steady state, rate 0.05", log=True),
    )


def _race_plot(rows: Rows):
    n = column(rows, "nodes")
    means = [sum(r["steps"]) / len(r["steps"]) for r in rows]
    return line_plot(
        [
            Series(label="1/n", x=n, y=[means[0] / k for k in n], reference=True),
            Series(label="measured", x=n, y=means, group="swarm"),
        ],
        title="Local steps a node to one target",
        x=NODES,
        y=Axis(title="rate proportional to n", log=True),
    )


def _gamma_by_h(rows: Rows):
    h = column(rows, "local_steps")
    return line_plot(
        [
            Series(label="bound", x=h, y=column(rows, "bound"), reference=True),
            Series(label="disagreement alone", x=h, y=column(rows, "drift_gamma")),
            Series(label="noise alone", x=h, y=column(rows, "gamma")),
            Series(label="predicted", x=h, y=column(rows, "predicted"), reference=True),
        ],
        title="Gamma against H",
        x=Axis(title="H", log=True),
        y=Axis(title="in lr² M²", log=True),
    )


def _excess_by_h(rows: Rows):
    h = column(rows, "local_steps")
    return line_plot(
        [
            Series(label="single nodes", x=h, y=column(rows, "own_excess")),
            Series(label="mean model", x=h, y=column(rows, "excess"), strong=True),
            Series(label="SGD's / n", x=h, y=column(rows, "excess_predicted"), reference=True),
        ],
        title="Excess loss against H",
        x=Axis(title="H", log=True),
        y=Axis(title="in steady state", log=True),
    )


def _gamma_by_bits(rows: Rows):
    coded = [r for r in rows if r["bits"] is not None]
    b = column(coded, "bits")
    return line_plot(
        [
            Series(label="float32", x=b, y=[rows[0]["gamma"]] * len(b), reference=True),
            Series(label="predicted", x=b, y=column(coded, "gamma_predicted"), reference=True),
            Series(label="Gamma", x=b, y=column(coded, "gamma"), strong=True),
            Series(label="distance", x=b, y=column(coded, "averaged")),
            Series(label="distance - 2 N", x=b, y=column(coded, "balance")),
        ],
        title="Gamma and pair distance by bits",
        x=Axis(title="bits a parameter"),
        y=Axis(title="in v", limits=(0.0, 14.0)),
    )


def _noise_by_bits(rows: Rows):
    coded = [r for r in rows if r["bits"] is not None]
    b = column(coded, "bits")
    return line_plot(
        [Series(label="noise", x=b, y=column(coded, "noise_share"), strong=True)],
        title="Noise of the code",
        x=Axis(title="bits a parameter"),
        y=Axis(title="of the squared pair distance", log=True, unit="percent"),
    )
