"""Random kills, restarts and stops of real processes: does any run hang, fail or leave something?

    python benchmarks/chaos_real.py [--runs 20] [--first 0] [--keep]

Each run is `swarmsgd launch --restart --chaos random:SEED`. A run fails if it does not end, ends
with an error, a model is not finite, a process is left over, or a node that lived through all of it
has more threads, descriptors or sockets at the end than half way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from bench import HERE, keep, table
from torch import nn

import swarmsgd

STEP_S = 0.01
MARK = "SWARMSGD_CHAOS_RUN"


def node(steps: int) -> None:
    """Train to a total of the swarm; say what this process held half way and at the end."""
    torch.set_num_threads(1)
    model = nn.Linear(2000, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    half = None
    with swarmsgd.join(model, optimizer, local_steps=4, bits=4) as swarm:
        for batch in swarm.until([torch.ones(1)] * 100, steps=steps):
            optimizer.zero_grad()
            model(torch.randn(4, 2000)).square().mean().mul(batch.sum()).backward()
            optimizer.step()
            time.sleep(STEP_S)
            if half is None and swarm.share > 0.5:
                half = held()
        mean = swarm.mean_model()
        said = {
            "finite": all(bool(value.isfinite().all()) for value in mean.values()),
            "mean_of": swarm.mean_of,
            "half": half,
            "end": held(),
            "lost": swarm.stats()["lost"],
            "completed": swarm.stats()["completed"],
        }
    print("@" + json.dumps(said), flush=True)


def held() -> dict[str, int]:
    """What this process has open."""
    own = Path("/proc/self")
    return {
        "threads": len(list((own / "task").iterdir())),
        "descriptors": len(list((own / "fd").iterdir())),
    }


def left_over(mark: str) -> list[int]:
    """Processes that a run has started and that live."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def run(seed: int, nodes: int, steps: int, limit_s: float) -> dict[str, Any]:
    """One launch; what went wrong with it, if anything."""
    mark = f"{os.getpid()}-{seed}"
    swarm = ["-n", str(nodes), "--restart", "100", "--chaos", f"random:{seed}"]
    script = [str(HERE / "chaos_real.py"), "--node", str(steps)]
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "swarmsgd", "launch", *swarm, *script],
        env=os.environ | {MARK: mark, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wrong: list[str] = []
    try:
        output = process.communicate(timeout=limit_s)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0]
        wrong.append(f"not over after {limit_s:g} s")
    kills = len(re.findall(r"chaos: .*killed", output))
    starts = len(re.findall(r"chaos: .*started again", output))
    # Who is killed shortly before the others end is not started again, and the launch says so.
    unfinished = kills - starts
    if process.returncode != (1 if unfinished else 0):
        wrong.append(f"exit code {process.returncode}")
    if alive := left_over(mark):
        wrong.append(f"{len(alive)} processes left")
    said = [json.loads(found) for found in re.findall(r"@(\{.*\})", output)]
    if not nodes - unfinished <= len(said) <= nodes:
        wrong.append(f"{len(said)} of {nodes} nodes came to the end")
    for one in said:
        if not one["finite"]:
            wrong.append("a mean that is not finite")
        if one["half"] and one["end"]["threads"] > one["half"]["threads"]:
            wrong.append(f"threads {one['half']['threads']} -> {one['end']['threads']}")
        # A node may have a link to each other one, which it had not half way.
        if one["half"] and one["end"]["descriptors"] > one["half"]["descriptors"] + 3 * nodes:
            wrong.append(f"descriptors {one['half']['descriptors']} -> {one['end']}")
    if wrong:
        print(output, file=sys.stderr)
    return {
        "seed": seed,
        "wrong": wrong,
        "s": time.monotonic() - begin,
        "kills": kills,
        "starts": starts,
        "stops": len(re.findall(r"chaos: .*stopped for", output)),
        "lost": sum(one["lost"] for one in said),
        "completed": sum(one["completed"] for one in said),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000, help="of all nodes together")
    parser.add_argument("--limit-s", type=float, default=180.0, help="of a run")
    parser.add_argument("--keep", action="store_true", help="write the record")
    parser.add_argument("--node", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.node:
        node(given.node)
        return
    runs: list[dict[str, Any]] = []
    for seed in range(given.first, given.first + given.runs):
        runs.append(run(seed, given.nodes, given.steps, given.limit_s))
        print(runs[-1], flush=True)
    total = Counter[str]()
    for one in runs:
        total.update({name: one[name] for name in ("kills", "starts", "stops", "lost")})
        total["completed"] += one["completed"]
    failed = [f"{one['seed']}: {', '.join(one['wrong'])}" for one in runs if one["wrong"]]
    figures = {
        "runs": len(runs),
        "nodes": given.nodes,
        **total,
        "failed": failed,
        "s_p50": statistics.median(one["s"] for one in runs) if runs else math.nan,
    }
    print(table([["figure", "value"], *figures.items()]))
    if given.keep:
        keep("chaos-real", figures)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed")


if __name__ == "__main__":
    main()
