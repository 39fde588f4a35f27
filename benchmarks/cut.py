"""A network that is cut in two halves for a while, and joined again, under a real swarm.

    python benchmarks/cut.py [--nodes 8] [--cut 30] [--keep]

Each node is a host of its own (network namespaces; needs root), the meeting place is on the first.
All pull a model towards a target of their own, with noise, a step every 100 ms; the targets of one
half are far from those of the other. Gamma, the sum of squared distances to the mean model, is that
of what the nodes held at the same moments.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import HERE, keep, table
from namespaces import Hosts, available
from torch import nn

import swarmsgd

DIM = 2000
STEP_S = 0.1
SEEN_S = 0.25
"""A node writes its model down at each multiple of this, on the wall clock."""
WARM_S = 15.0
"""From when all have joined to the cut."""
AFTER_S = 60.0
PORT = 29_400
END = "end"


def node(number: int, nodes: int, folder: Path) -> None:
    """Train until told; write what the model was, and when."""
    torch.set_num_threads(1)
    noise = torch.Generator().manual_seed(number)
    target = torch.full((DIM,), 1.0 if 2 * number < nodes else -1.0)
    model = nn.ParameterDict({"x": nn.Parameter(torch.zeros(DIM))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen: list[tuple[float, np.ndarray]] = []
    with swarmsgd.join(
        model, optimizer, swarm=f"10.77.0.1:{PORT}", record=folder / f"{number}.jsonl"
    ) as swarm:
        longest, last = 0.0, time.monotonic()
        while not (folder / END).exists():
            optimizer.zero_grad()
            pull = model["x"].detach() - target + torch.randn(DIM, generator=noise)
            model["x"].grad = pull
            optimizer.step()
            if not seen or time.time() // SEEN_S > seen[-1][0] // SEEN_S:
                seen.append((time.time(), model["x"].detach().numpy().copy()))
            time.sleep(STEP_S)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        stats = swarm.stats()
    np.savez(folder / f"{number}.npz", at=[at for at, _ in seen], x=[x for _, x in seen])
    kept = {name: stats[name] for name in ("lost", "completed")}
    print(json.dumps({"rank": swarm.rank, "longest_s": longest, **kept}))


def run(nodes: int, cut_s: float, folder: Path) -> dict[str, Any]:
    """One swarm; the figures of its cut."""
    with Hosts(nodes, halves=True) as hosts:
        meeting = ["swarmsgd", "store", "--port", str(PORT), "--address", "10.77.0.1"]
        store = subprocess.Popen(
            [*hosts.prefix(0), sys.executable, "-m", *meeting], stdout=subprocess.DEVNULL
        )
        arguments = [str(nodes), str(folder)]
        own = [sys.executable, str(HERE / "cut.py"), "--node"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen(
                [*hosts.prefix(number), *own, str(number), *arguments],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(nodes)
        ]
        try:
            while sum(map(has_begun, folder.glob("*.jsonl"))) < nodes:
                time.sleep(0.1)
            time.sleep(WARM_S)
            cut_at = time.time()
            hosts.cut(apart=True)
            time.sleep(cut_s)
            hosts.cut(apart=False)
            time.sleep(AFTER_S)
            (folder / END).touch()
            said = [json.loads(p.communicate(timeout=AFTER_S + 60)[0]) for p in processes]
        finally:
            for process in (*processes, store):
                process.kill()
                process.wait()
    return figures(folder, said, cut_at, cut_at + cut_s)


def has_begun(record: Path) -> bool:
    """Whether the node whose records these are has joined."""
    return '"progress"' in record.read_text()


def figures(
    folder: Path, said: list[dict[str, Any]], cut_at: float, over_at: float
) -> dict[str, Any]:
    """From what the nodes have written down: Gamma by time, exchanges by time and half."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    across: list[float] = []
    mixed: list[float] = []
    ranks = [one["rank"] for one in said]
    second = set(ranks[len(ranks) // 2 :])
    for number, rank in enumerate(ranks):
        with np.load(folder / f"{number}.npz") as kept:
            seen.append((kept["at"], kept["x"]))
        begun = 0.0
        for line in (folder / f"{number}.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["kind"] == "file":
                begun = record["unix_s"]
            elif record["kind"] == "exchange":
                mixed.append(begun + record["t"])
                if (record["peer"] in second) != (rank in second):
                    across.append(begun + record["t"])
    first, last = max(at[0] for at, _ in seen), min(at[-1] for at, _ in seen)
    gammas: dict[float, float] = {}
    for moment in np.arange(first, last, SEEN_S):
        held = np.stack([x[np.searchsorted(at, moment, "right") - 1] for at, x in seen])
        gammas[float(moment)] = float(np.square(held - held.mean(0)).sum())
    calm = [gamma for at, gamma in gammas.items() if cut_at - 10 < at < cut_at]
    level = statistics.median(calm)
    peak = max(gamma for at, gamma in gammas.items() if cut_at < at < over_at + 20)
    again = min((at for at in across if at > over_at), default=float("nan"))
    back = min((at for at, g in gammas.items() if at > again and g <= max(calm)), default=np.nan)
    nodes = len(said)
    return {
        "nodes": nodes,
        "gamma_before": level,
        "gamma_before_highest": max(calm),
        "gamma_peak": peak,
        "exchanges_a_node_and_second_before": sum(cut_at - 10 < t < cut_at for t in mixed)
        / (10 * nodes),
        "exchanges_a_node_in_the_cut": sum(cut_at < t < over_at for t in mixed) / nodes,
        "across_in_the_cut": sum(cut_at + 1 < t < over_at for t in across),
        "first_exchange_across_s": again - over_at,
        "level_again_s": back - over_at,
        "exchanges_a_node_until_level": sum(again <= t <= back for t in mixed) / nodes,
        "across_a_node_until_level": sum(again <= t <= back for t in across) / nodes,
        "lost": sum(one["lost"] for one in said),
        "longest_step_s": max(one["longest_s"] for one in said),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--cut", type=float, default=30.0, help="seconds")
    parser.add_argument("--keep", action="store_true", help="write the record")
    parser.add_argument("--node", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.node:
        number, nodes, folder = given.node
        node(int(number), int(nodes), Path(folder))
        return
    if why := available():
        raise SystemExit(f"network namespaces cannot be made here: {why}")
    with tempfile.TemporaryDirectory() as name:
        found = run(given.nodes, given.cut, Path(name))
    print(table([["figure", "value"], *found.items()]))
    if given.keep:
        keep("cut", found)


if __name__ == "__main__":
    main()
