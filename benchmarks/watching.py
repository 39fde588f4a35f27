"""What it costs a run that somebody looks at its live page.

    python benchmarks/watching.py [--keep]

Runs a script of two processes by `swarmsgd launch --dashboard`. While it trains, the page is open
in a Chromium of this machine (open), then closed, then what the server sends is taken by a reader
that draws nothing (followed), and so on in turn, some seconds each. All compared steps are so of
the same processes, and whatever else the machine does meets all three ways alike. `followed` is
what a run pays; `open` what it pays where the browser runs beside it. Reports the median step of
each way, and the median over the turns of its ratio to that of the closed phases beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench import HERE, free_port, keep, median, table

WAYS = ("closed", "followed", "open")
SETTLE_S = 1.0
"""So much of a phase is left out: a page opens, or closes, in it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=25, help="of the three ways")
    parser.add_argument("--phase", type=float, default=3.0, help="seconds of each")
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    phases, steps = run(options.turns, options.phase, options.parameters)
    turns: dict[str, list[float]] = {way: [] for way in WAYS}
    for way, begin, end in phases:
        within = [s[(s[:, 0] >= begin + SETTLE_S) & (s[:, 0] < end), 1] for s in steps]
        turns[way].append(1e3 * float(np.median(np.concatenate(within))))
    figures = {
        way: {
            "step_ms": median(times),
            "ratio": median(t / base for t, base in zip(times, turns["closed"], strict=True)),
            "turns_ms": [round(t, 3) for t in times],
        }
        for way, times in turns.items()
    }
    rows = [[way, f"{f['step_ms']:.3f}", f"{f['ratio']:.3f}"] for way, f in figures.items()]
    print(table([["page", "median step, ms", "to closed"], *rows]))
    if options.keep:
        print("kept in", keep("watching", figures))


def run(turns: int, phase_s: float, parameters: int) -> tuple[list, list[np.ndarray]]:
    """What was looked at how, from when to when, and all steps of the two nodes."""
    port = free_port()
    seconds = turns * (len(WAYS) * phase_s + 2.0) + 15  # pages take a while to open
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "swarmsgd", "launch", "-n", 2, "--dashboard"]
        command += ["--dashboard-port", port, "--out", f"{folder}/run"]
        command += [HERE / "watching_node.py", parameters, seconds, folder]
        launched = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            await_training(Path(folder) / "run", launched)
            with browser() as page:
                phases = []
                for turn in range(turns):
                    for k in range(len(WAYS)):  # each way is first in turn
                        way, begin = WAYS[(turn + k) % len(WAYS)], time.monotonic()
                        with looked_at(way, address, page):
                            time.sleep(phase_s)
                            phases.append((way, begin, time.monotonic()))
            if launched.wait(timeout=120):
                raise SystemExit(f"the run failed with exit code {launched.returncode}")
            return phases, [np.load(f"{folder}/{rank}.npy") for rank in range(2)]
        finally:
            launched.terminate()
            launched.wait()


def await_training(folder: Path, launched: subprocess.Popen) -> None:
    """Until both nodes write of exchanges."""
    while launched.poll() is None:
        files = list(folder.glob("node-*.jsonl"))
        if sum('"exchange"' in file.read_text() for file in files) == 2:
            return
        time.sleep(0.1)
    raise SystemExit(f"the run ended at once, with exit code {launched.returncode}")


@contextlib.contextmanager
def looked_at(way: str, address: str, page) -> Iterator[None]:
    """Somebody looks in this way."""
    if way == "open":
        page.goto(address)
        yield
        page.goto("about:blank")
    elif way == "followed":
        with urllib.request.urlopen(f"{address}events") as stream:
            threading.Thread(target=drain, args=(stream,), daemon=True).start()
            yield
    else:
        yield


def drain(stream) -> None:
    with contextlib.suppress(OSError, ValueError):  # it is closed at the end of the phase
        for _ in stream:
            pass


@contextlib.contextmanager
def browser() -> Iterator:
    """An empty page in Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found.new_page()
        found.close()


if __name__ == "__main__":
    main()
