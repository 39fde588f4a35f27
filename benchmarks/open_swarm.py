"""What a node of an open swarm costs as the swarm grows: threads, descriptors, memory, calls.

    python benchmarks/open_swarm.py --nodes 8 16 32 64 --degrees 4 8 --keep

All nodes are processes of this machine, forked from one that has everything loaded, with a model of
1,000 parameters and a step every 50 ms.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from bench import free_port, keep, table
from forks import load, said, start
from torch import nn

import swarmsgd
from swarmsgd.train.meet.tracker import Tracker

WATCHED_S = 5.0
"""For so long calls are counted, once all have joined and closed the links they want no more."""
SETTLED_S = 8.0


def live(swarm_at: str, degree: int, out: TextIO, go: int) -> None:
    """One node: says when it has joined, trains until told, says what it has."""
    model = nn.Linear(1000, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    os.set_blocking(go, False)
    begin = time.monotonic()
    graph = f"cycles:{degree}"
    with swarmsgd.join(model, optimizer, swarm=swarm_at, local_steps=4, graph=graph) as swarm:
        said(out, joined_s=time.monotonic() - begin)
        while not _told(go):
            optimizer.zero_grad()
            model(torch.ones(4, 1000)).square().mean().backward()
            optimizer.step()
            time.sleep(0.05)
        stats = swarm.stats()
        own = [
            int(line.split()[1])
            for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
            if line.startswith("Private")
        ]
        found = {
            "sees": swarm.num_nodes,
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "private_mb": sum(own) / 1024,
            "links": stats["open_peers"],
            "completed": stats["completed"],
            "lost": stats["lost"],
        }
        said(out, **found)


def _told(go: int) -> bool:
    try:
        return bool(os.read(go, 1))
    except BlockingIOError:
        return False


def run(nodes: int, degree: int) -> dict[str, Any]:
    """One swarm; medians over its nodes, and the most of what may grow."""
    port = free_port()

    def body(_: int, port: int, out: TextIO, go: int) -> None:
        live(f"127.0.0.1:{port}", degree, out, go)

    children = start(nodes, body, port)
    begin = time.monotonic()
    tracker = Tracker("127.0.0.1", port)  # after the forks, which would hold its descriptors
    joined = [child.hear() for child in children]
    all_joined_s = time.monotonic() - begin
    time.sleep(SETTLED_S)
    before = tracker.register.calls
    time.sleep(WATCHED_S)
    calls = (tracker.register.calls - before) / WATCHED_S / nodes
    for child in children:
        child.tell()
    heard = [child.hear() for child in children]
    codes = [child.end() for child in children]
    tracker.close()
    if any(codes):
        raise SystemExit(f"{sum(map(bool, codes))} of {nodes} nodes failed")
    found: dict[str, Any] = {
        name: statistics.median(one[name] for one in heard)
        for name in ("threads", "descriptors", "private_mb", "links")
    }
    return found | {
        "most_descriptors": max(one["descriptors"] for one in heard),
        "most_links": max(one["links"] for one in heard),
        "fewest_seen": min(one["sees"] for one in heard),
        "calls_per_s": calls,
        "joined_s": statistics.median(one["joined_s"] for one in joined),
        "all_joined_s": all_joined_s,
        "completed": sum(one["completed"] for one in heard),
        "lost": sum(one["lost"] for one in heard),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--degrees", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--keep", action="store_true", help="write the record benchmarks/records")
    given = parser.parse_args()
    load()
    found = {f"{d} {n}": run(n, d) for d in given.degrees for n in given.nodes}
    columns = list(next(iter(found.values())))
    rows = [[name, *(f"{one[c]:.3g}" for c in columns)] for name, one in found.items()]
    print(table([["degree nodes", *columns], *rows]))
    if given.keep:
        keep("open-swarm", found)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
