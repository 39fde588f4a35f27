"""One of four processes is stopped (SIGSTOP) for 20 s, or killed: what do the others notice?

    python benchmarks/stall.py [--keep]

Reports, before, during and after: step rate of the others, and their time inside swarmsgd on the
training thread against the control of `stall_node.py`, over the steps in which there was something
to do.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench import HERE, free_port, keep, table

NODES, VICTIM = 4, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--phase", type=float, default=20.0, help="seconds before, during and after"
    )
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    figures: dict[str, dict] = {}
    rows: list[list[object]] = [
        ["parameters", "event", "phase", "steps/s", "hook p50, us", "p99", "max",
         "control p50", "p99", "max", "p50 ratio", "p99 ratio"]
    ]  # fmt: skip
    for parameters in options.parameters:
        for event in ("stop", "kill"):
            phases = trial(parameters, event, options.phase)
            figures[f"{parameters} {event}"] = phases
            for phase, f in phases.items():
                rows.append(
                    [f"{parameters / 1e6:g} M", event, phase, f"{f['steps_per_s']:.1f}"]
                    + [f"{1e6 * f[k]:.0f}" for k in ("hook_p50", "hook_p99", "hook_max")]
                    + [f"{1e6 * f[k]:.0f}" for k in ("control_p50", "control_p99", "control_max")]
                    + [
                        f"{f['hook_p50'] / f['control_p50']:.2f}",
                        f"{f['hook_p99'] / f['control_p99']:.2f}",
                    ]
                )
    print(table(rows))
    if options.keep:
        print("kept in", keep("stall", figures))


def trial(parameters: int, event: str, phase_s: float) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        port, started = str(free_port()), []
        try:
            for rank in range(NODES):
                environment = os.environ | {
                    "RANK": str(rank), "WORLD_SIZE": str(NODES), "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
                }  # fmt: skip
                command = [sys.executable, HERE / "stall_node.py", str(parameters)]
                command += [str(3 * phase_s), f"{folder}/{rank}"]
                started.append(
                    subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                )
            for process in started:
                assert process.stdout is not None and process.stdout.readline() == "joined\n"
            begin = time.monotonic()
            time.sleep(phase_s)
            started[VICTIM].send_signal(signal.SIGSTOP if event == "stop" else signal.SIGKILL)
            middle = time.monotonic()
            time.sleep(phase_s)
            if event == "stop":
                started[VICTIM].send_signal(signal.SIGCONT)
            resumed = time.monotonic()
            for process in started[:VICTIM]:
                if process.wait(timeout=300):
                    raise SystemExit(f"a survivor failed with exit code {process.returncode}")
        finally:
            for process in started:
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait()
        saved = [np.load(Path(folder) / f"{rank}.npz") for rank in range(VICTIM)]
        print(
            parameters, event,
            "lost exchanges", [int(s["lost"]) for s in saved],
            "completed", [int(s["completed"]) for s in saved],
            flush=True,
        )  # fmt: skip
        limits = {
            "before": (begin + 2, middle),
            "during": (middle, resumed),
            "after": (resumed, np.inf),
        }
        return {name: figures([s["rows"] for s in saved], *limit) for name, limit in limits.items()}


def figures(nodes: list[np.ndarray], begin: float, end: float) -> dict[str, float]:
    cut = [rows[(rows[:, 0] >= begin) & (rows[:, 0] < end)] for rows in nodes]
    rate = sum(len(rows) / (rows[-1, 0] - rows[0, 0]) for rows in cut) / len(cut)
    rows = np.concatenate(cut)
    busy = rows[(rows[:, 4] == 1) | (rows[:, 4] == 2)]
    result = {"steps_per_s": float(rate), "steps": len(rows), "steps_with_work": len(busy)}
    result["steps_lock_taken"] = int((rows[:, 4] == 3).sum())
    result["step_ms_p50"] = float(1e3 * np.median(rows[:, 1]))
    for column, name in ((2, "hook"), (3, "control")):
        p50, p99, top = np.percentile(busy[:, column], [50, 99, 100])
        result |= {f"{name}_p50": float(p50), f"{name}_p99": float(p99), f"{name}_max": float(top)}
    return result


if __name__ == "__main__":
    main()
