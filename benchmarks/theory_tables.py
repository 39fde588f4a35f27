"""The tables of `theory.py`, made from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory_formulas import exponent

from swarmsgd.observe.page import Table

Figures = Mapping[str, Sequence[Mapping[str, Any]]]
Rows = Sequence[Mapping[str, Any]]


def tables(figures: Figures) -> list[Table]:
    """One table a section."""
    return [
        _averaging(figures["averaging"]),
        _pairs(figures["pairs"], figures["matched"]),
        _overlap(figures["overlap"]),
        _graphs(figures["graphs"]),
        _speed_up(figures["floor"], figures["race"]),
        _local_steps(figures["local steps"]),
        _bits(figures["bits"]),
        _cliff(figures["cliff"]),
    ]


def column(rows: Rows, name: str) -> list[Any]:
    return [row[name] for row in rows]


def only(rows: Rows, **wanted: object) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _with_error(row: Mapping[str, Any], name: str, error: str, digits: int = 3) -> str:
    return f"{row[name]:.{digits}f} ± {row[error]:.{digits}f}"


def _averaging(rows: Rows) -> Table:
    return Table(
        title="One exact exchange on a random edge: E[Gamma'] / Gamma",
        columns=("graph", "n", "degree r", "lambda_2", "measured", "predicted", "relative error",
                 "bound 1 - lambda_2/(r n)", "on the Fiedler vector"),
        rows=[
            (r["graph"], str(r["nodes"]), str(r["degree"]), f"{r['lambda_2']:.4g}",
             f"{r['measured']:.8f}", f"{r['predicted']:.8f}", f"{r['relative_error']:.0e}",
             f"{r['bound']:.8f}", f"{r['fiedler']:.8f}")
            for r in rows
        ],
        note="All edges enumerated, arithmetic of core.exchange.",
    )  # fmt: skip


def _pairs(rows: Rows, matched: Rows) -> Table:
    text = []
    for n in dict.fromkeys(column(rows, "nodes")):
        (free,) = only(rows, nodes=n, mode="non-blocking")
        (waits,) = only(rows, nodes=n, mode="blocking")
        (round_,) = only(matched, nodes=n)
        text.append((
            str(n), f"{free['predicted']:.3f}", _with_error(free, "averaged", "error"),
            _with_error(waits, "averaged", "error"), f"{round_['before_predicted']:.3f}",
            _with_error(round_, "before", "before_error"), f"{round_['predicted']:.3f}",
            _with_error(round_, "averaged", "error"),
        ))  # fmt: skip
    return Table(
        title="Squared distance of a pair in steady state, in v",
        columns=("n", "2 (1 - 1/n)", "non-blocking", "blocking", "2 (1 - 2/n)",
                 "matching, before both bursts", "4 (1 - 1/n)", "matching, as averaged"),
        rows=text,
        note="Complete graph, H = 4, float32, pure noise. Non-blocking and blocking: as averaged, "
        "the initiator's burst has landed. Exchanges take no time, in blocking mode 0.2 ms to a "
        "burst of 40 ms. Matching: both ends' bursts land.",
    )  # fmt: skip


def _overlap(rows: Rows) -> Table:
    return Table(
        title="Exchanges that take time: pair distance and Gamma, in v, 16 nodes",
        columns=("exchange time / burst time", "mode", "pair distance", "without overlap", "Gamma",
                 "without overlap"),
        rows=[
            (f"{r['share']:g}", r["mode"], _with_error(r, "averaged", "error"),
             f"{r['predicted']:.3f}", _with_error(r, "gamma", "gamma_error", 2),
             f"{r['gamma_predicted']:.2f}")
            for r in rows
        ],
        note="Half of the time passes before the partner answers. Meanwhile both ends answer "
        "others, so what is averaged is no longer where the copies are.",
    )  # fmt: skip


def _graphs(rows: Rows) -> Table:
    n = rows[0]["nodes"]
    return Table(
        title=f"Gamma in steady state by graph, in v, {n} nodes",
        columns=("graph", "r/lambda_2", "predicted", "random burst lengths", "fixed H", "bound",
                 "bound / measured", "pair distance, fixed H"),
        rows=[
            (r["graph"], f"{r['r_over_lambda_2']:.3g}", f"{r['predicted']:.2f}",
             _with_error(r, "gamma", "error", 2), _with_error(fixed, "gamma", "error", 2),
             f"{r['bound']:.2g}", f"{r['bound'] / r['gamma']:.2g}",
             _with_error(fixed, "averaged", "averaged_error"))
            for r in by_ratio(rows, "geometric:4")
            for fixed in only(rows, graph=r["graph"], local_steps=4)
        ],
        note=f"Exponent of the measured Gamma in r/lambda_2 over the regular graphs: "
        f"{_graph_exponent(rows):.2f}; the bound's is between 1 and 2. The pair distance should be "
        f"{rows[0]['averaged_predicted']:.3f} on every graph.",
    )  # fmt: skip


def by_ratio(rows: Rows, local_steps: int | str) -> list[Mapping[str, Any]]:
    found = only(rows, local_steps=local_steps)
    return sorted(found, key=lambda r: (r["graph"] == "star", r["r_over_lambda_2"]))


def _graph_exponent(rows: Rows) -> float:
    regular = [r for r in by_ratio(rows, "geometric:4") if r["graph"] != "star"]
    return exponent(column(regular, "r_over_lambda_2"), column(regular, "gamma"))


def _speed_up(floor: Rows, race: Rows) -> Table:
    n = column(race, "nodes")
    means = [sum(r["steps"]) / len(r["steps"]) for r in race]
    return Table(
        title="Linear speed-up in n",
        columns=("n", "excess loss of the mean model", "SGD's / n", "rate in the race",
                 "local steps a node to the target", "speed-up", "parallel efficiency"),
        rows=[
            (str(a["nodes"]), f"{a['excess']:.4f} ± {a['error']:.4f}", f"{a['predicted']:.4f}",
             f"{b['lr']:g}", f"{mean:.0f}", f"{means[0] / mean:.1f}",
             f"{means[0] / mean / a['nodes']:.0%}")
            for a, b, mean in zip(floor, race, means, strict=True)
        ],
        note=f"Exponents in n: floor {exponent(n, column(floor, 'excess')):.2f}, "
        f"time to the target {exponent(n, means):.2f}; theory -1. Quadratic "
        "with curvatures 1/4 to 1, H = 4, complete graph. In the race n nodes have n times the "
        "rate of one, and the target is twice the floor.",
    )  # fmt: skip


def _local_steps(rows: Rows) -> Table:
    h = column(rows, "local_steps")
    noise, drift = (exponent(h, column(rows, name)) for name in ("gamma", "drift_gamma"))
    return Table(
        title="Effect of H, 16 nodes",
        columns=("H", "Gamma, noise alone", "predicted", "Gamma, disagreement alone", "bound",
                 "excess of the mean", "SGD's / n", "excess of single nodes"),
        rows=[
            (str(r["local_steps"]), _with_error(r, "gamma", "error", 2), f"{r['predicted']:.2f}",
             _with_error(r, "drift_gamma", "drift_error", 1), f"{r['bound']:.3g}",
             _with_error(r, "excess", "excess_error", 4), f"{r['excess_predicted']:.4f}",
             f"{r['own_excess']:.4f}")
            for r in rows
        ],
        note=f"Gamma in lr^2 M^2, M^2 the mean squared norm of a gradient at the best model. "
        f"Exponents in H: {noise:.2f} with noise alone, {drift:.2f} with disagreement alone; the "
        "bound's is 2.",
    )  # fmt: skip


def _bits(rows: Rows) -> Table:
    return Table(
        title="Effect of bits, 16 nodes, D = 4,096",
        columns=("bits", "pair distance, v", "noise N, v", "N / true distance",
                 "distance - 2 N", "2 (1 - 1/n)", "Gamma, v", "predicted",
                 "excess of the mean", "excess of single nodes"),
        rows=[
            (_bits_name(r["bits"]), _with_error(r, "averaged", "error"), f"{r['noise']:.4f}",
             f"{r['noise_share']:.2%}", f"{r['balance']:.3f}", f"{r['predicted']:.3f}",
             _with_error(r, "gamma", "gamma_error", 2), f"{r['gamma_predicted']:.2f}",
             _with_error(r, "excess", "excess_error"), f"{r['own_excess']:.2f}")
            for r in rows
        ],
        note="N: both codes' errors, s^2/12 a coordinate, as counted in the run. SGD's excess / n: "
        f"{rows[0]['excess_predicted']:.3f}.",
    )  # fmt: skip


def _bits_name(bits: int | None) -> str:
    return "float32" if bits is None else str(bits)


def _cliff(rows: Rows) -> Table:
    return Table(
        title="The cliff: blocks decoded wrongly with one coordinate at its reach s (q - 1)/2",
        columns=("bits", "distance / reach", "wrong", "predicted", "all caught by the check",
                 "error variance / (s^2/12)"),
        rows=[
            (str(r["bits"]), f"{r['past']:g}", f"{r['wrong']:.2%}", f"{r['predicted']:.2%}",
             "yes" if r["caught"] else "**no**", f"{r['variance']:.3f}")
            for r in rows
        ],
        note="Predicted: (distance / reach - 1) (q - 1)/2.",
    )  # fmt: skip
