"""Nodes that are killed, frozen, started again and added while eight train, beside a quiet run.

    python benchmarks/elastic.py [--samples 120000] [--keep]

Fashion-MNIST, an open swarm, real processes. In the disturbed run three nodes are killed, one is
stopped for 30 s, two come back as new processes and two more arrive late. Both runs end when all
nodes together have trained on as many samples.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

from bench import HERE, free_port, keep, table

from swarmsgd.train.meet.tracker import Tracker

NODES = 8
STOP_S = 30.0
EVENTS: list[tuple[float, str, int]] = [
    (0.15, "kill", 1),
    (0.20, "kill", 2),
    (0.25, "stop", 3),
    (0.30, "start", 8),
    (0.40, "kill", 4),
    (0.45, "start", 9),
    (0.50, "start", 10),
    (0.60, "start", 11),
]
"""When (share of the samples), what, and to which process."""


class Node:
    """One process and what it has said."""

    def __init__(self, number: int, arguments: list[str], swarm: str) -> None:
        self.number = number
        self.said: list[dict[str, Any]] = []
        self.other: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, HERE / "elastic_node.py", *arguments],
            env=os.environ | {"SWARMSGD_SWARM": swarm, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                self.said.append(json.loads(line[1:]))
            else:
                self.other.append(line)

    def end(self) -> int:
        """Its exit code, with all read."""
        code = self.process.wait()
        self._reader.join()
        return code

    def found(self, key: str) -> dict[str, Any] | None:
        """The last thing said that has `key`."""
        return next((each for each in reversed(self.said) if key in each), None)


def run(samples: int, rate: float, *, disturbed: bool) -> dict[str, Any]:
    """One run; the figures of those who were there to the end."""
    tracker = Tracker("127.0.0.1", free_port())
    arguments, swarm = [str(samples), str(rate)], f"127.0.0.1:{tracker.port}"
    nodes = [Node(number, [*arguments, str(NODES)], swarm) for number in range(NODES)]
    begin, waiting, stopped_until = time.monotonic(), list(EVENTS) if disturbed else [], 0.0
    try:
        while any(node.process.poll() is None for node in nodes):
            time.sleep(0.1)
            dead = [n for n in nodes if (n.process.poll() or 0) > 0]
            if dead:
                raise SystemExit(f"node {dead[0].number} failed:\n{''.join(dead[0].other[-20:])}")
            share = max((n.said[-1].get("share", 0.0) for n in nodes if n.said), default=0.0)
            while waiting and share >= waiting[0][0]:
                _, what, number = waiting.pop(0)
                print(f"{time.monotonic() - begin:6.1f} s  {what} {number}", flush=True)
                if what == "start":
                    nodes.append(Node(number, [*arguments, "0"], swarm))
                else:
                    number_of = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what]
                    nodes[number].process.send_signal(number_of)
                    if what == "stop":
                        stopped_until = time.monotonic() + STOP_S
            if stopped_until and time.monotonic() > stopped_until:
                stopped_until = 0.0
                nodes[3].process.send_signal(signal.SIGCONT)
                print(f"{time.monotonic() - begin:6.1f} s  goes on 3", flush=True)
        wall_s = time.monotonic() - begin
    finally:
        for node in nodes:
            if node.process.poll() is None:
                node.process.kill()
            node.end()
        tracker.close()
    ended = [node for node in nodes if node.found("mean_of")]
    last = [node.found("mean_of") or {} for node in ended]
    killed = {number for _, what, number in EVENTS if what == "kill" and disturbed}
    failed = [n.number for n in nodes if n.process.returncode and n.number not in killed]
    for node in nodes:
        if node.number in failed:
            print("".join(node.other[-20:]), file=sys.stderr)
    # Who was stopped has its stop as its longest step, and who came late fewer steps: not compared.
    steady = [n.found("mean_of") or {} for n in ended if n.number < NODES and n.number != 3]
    arrivals = [n.said[0] for n in ended if n.number >= NODES]
    score = next(one["score"] for one in last if one["score"])
    return {
        "wall_s": wall_s,
        "failed": failed,
        "mean_of": last[0]["mean_of"],
        "accuracy": score["accuracy"],
        "samples": last[0]["samples"],
        "steps": sum(one["steps"] for one in last),
        "hook_ms_p50": 1000 * statistics.median(one["stats"]["hook_s_p50"] for one in steady),
        "hook_ms_p99": 1000 * statistics.median(one["stats"]["hook_s_p99"] for one in steady),
        "longest_step_s": max(one["longest_s"] for one in steady),
        "lost": sum(one["stats"]["lost"] for one in last),
        "arrivals": [
            {
                "joined_s": a["joined_s"],
                "share": a["share"],
                "accuracy": a["at_arrival"]["accuracy"],
            }
            for a in arrivals
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--keep", action="store_true", help="write the record benchmarks/records")
    given = parser.parse_args()
    found = {
        name: run(given.samples, given.rate, disturbed=name == "disturbed")
        for name in ("quiet", "disturbed")
    }
    names = ("accuracy", "wall_s", "hook_ms_p50", "hook_ms_p99", "longest_step_s", "lost")
    rows = [[name, *(f"{run[column]:.4g}" for column in names)] for name, run in found.items()]
    print(table([["run", *names], *rows]))
    print(json.dumps(found, indent=1))
    if given.keep:
        keep("elastic", found)


if __name__ == "__main__":
    main()
