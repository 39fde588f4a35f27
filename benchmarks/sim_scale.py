"""How far the simulator goes: real seconds, events and memory against the number of nodes.

    python benchmarks/sim_scale.py [--nodes 100 1000 10000 100000] [--keep]
    python benchmarks/sim_scale.py --graph cycles:8 --churn 0.01 --nodes 100000 --keep

One process a size: SwarmSGD on `synthetic` (D = 64), H = 4, float32, random 4-regular graph, jitter
and links of 1 Gbit/s, 20 exchanges a node (10 that it starts, 10 that it answers). The exponent is
that of a power law fitted to the seconds. With churn that share of the nodes dies, each at a random
moment of the run, and comes back 50 ms later with a neighbour's model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from bench import keep, said, table

EXCHANGES = 20
"""Of each node, by default; half of them it starts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--bits", default="none")
    parser.add_argument("--graph", default="random-regular:4")
    parser.add_argument("--churn", type=float, default=0.0, help="share of the nodes that dies")
    parser.add_argument("--exchanges", type=int, default=EXCHANGES, help="of each node")
    parser.add_argument("--one", type=int, help="run one size here and say its figures")
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    if options.one:
        print("@" + json.dumps(one(options.one, options)))
        return
    rows: list[list[object]] = [
        ["nodes", "s", "of it setting up", "events/s", "us an exchange", "bytes a node", "GB"]
    ]
    figures = {}
    for nodes in options.nodes:
        command = [sys.executable, __file__, "--one", str(nodes), "--bits", options.bits]
        command += ["--graph", options.graph, "--churn", str(options.churn)]
        command += ["--exchanges", str(options.exchanges)]
        f = said(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        figures[str(nodes)] = f
        rows.append([
            f"{nodes:,}", f"{f['all_s']:.1f}", f"{f['all_s'] - f['run_s']:.1f}",
            f"{f['events'] / f['run_s']:,.0f}", f"{1e6 * f['run_s'] / f['exchanges']:.0f}",
            f"{f['memory_a_node']:,.0f}", f"{f['memory'] / 1e9:.2f}",
        ])  # fmt: skip
        print(table([rows[0], rows[-1]]), flush=True)
    if len(figures) > 1:
        n, s = zip(*((int(n), f["run_s"]) for n, f in figures.items()), strict=True)
        figures["exponent"] = float(np.polyfit(np.log(n), np.log(s), 1)[0])
        print(f"seconds grow as nodes to the power {figures['exponent']:.3f}")
    print(table(rows))
    if options.keep:
        usual = options.graph == "random-regular:4" and not options.churn
        name = f"{options.graph} churn {options.churn:g}"
        name += f", {options.exchanges} exchanges" * (options.exchanges != EXCHANGES)
        keep("sim-scale", figures if usual else {f"{n} {name}": f for n, f in figures.items()})


def churn(nodes: int, share: float, run_s: float) -> tuple[str, ...]:
    """Deaths and returns within the first three quarters."""
    rng, events = np.random.default_rng(0), list[str]()
    for node in rng.choice(nodes, round(share * nodes), replace=False).tolist():
        dies_s = rng.uniform(0.05 * run_s, 0.75 * run_s)
        events += [f"kill:{node}@{dies_s:.6f}", f"join:{node}@{dies_s + 0.05:.6f}"]
    return tuple(events)


def one(nodes: int, options: argparse.Namespace) -> dict[str, float]:
    """Figures of one run in this process."""
    import torch

    from swarmsgd.codec import kernels
    from swarmsgd.sim.command.config import SimConfig
    from swarmsgd.sim.command.run import simulate
    from swarmsgd.sim.engine.world import World
    from swarmsgd.tasks import SyntheticOptions

    torch.set_num_threads(1)
    kernels.prepare()
    config = SimConfig.of(
        task=SyntheticOptions(), nodes=nodes, exchanges_per_node=options.exchanges, lr=0.02,
        bits=None if options.bits == "none" else int(options.bits), graph=options.graph, evals=4,
        world=World(step_jitter=0.2, events=churn(nodes, options.churn, 0.02 * options.exchanges)),
    )  # fmt: skip
    before = memory()
    points: list[float] = []
    begin, used = time.perf_counter(), time.process_time()
    result = simulate(config, watch=lambda _: points.append(time.perf_counter()))
    all_s = time.perf_counter() - begin
    summary = result.summary
    return {
        "all_s": all_s,
        "run_s": points[-1] - points[0],  # from the first point of the curve to the last
        "cpu_s": time.process_time() - used,
        "events": summary["events"],
        "exchanges": summary["exchanges"],
        "gamma": summary["gamma"],
        "lost": summary["lost_exchanges"],
        "memory": memory(),
        "memory_a_node": (memory() - before) / nodes,
        "sent_a_node": summary["bytes_a_node"],
    }


def memory() -> float:
    """The most bytes this process has held."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
