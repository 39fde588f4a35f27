"""What it costs a run that somebody looks at its live page.

    python benchmarks/watching.py [--keep]

Runs `swarmsgd train digits --dashboard` again and again, in turn with nobody looking (closed), with
somebody who takes what the server sends and draws nothing (followed), and with the page open in a
Chromium of this machine (open), which wants a core of its own: `followed` is what a run pays, and
`open` what it pays where the browser runs beside it. Reports the ratio of median steps to closed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench import free_port, keep, median, table

WAYS = ("closed", "followed", "open")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=40.0)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    step_ms: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(options.rounds):
        for k in range(len(WAYS)):  # each way is first in turn
            way = WAYS[(turn + k) % len(WAYS)]
            step_ms[way].append(trial(way, options.nodes, options.epochs))
            print(f"round {turn + 1}: {way} {step_ms[way][-1]:.3f} ms", flush=True)
    closed = step_ms["closed"]
    figures = {
        way: {
            "step_ms": times,
            "ratio": median(time / base for time, base in zip(times, closed, strict=True)),
        }
        for way, times in step_ms.items()
    }
    rows = [[way, f"{median(step_ms[way]):.3f}", f"{figures[way]['ratio']:.3f}"] for way in WAYS]
    print(table([["page", "median step, ms", "to closed"], *rows]))
    if options.keep:
        keep("watching", figures)


def trial(way: str, nodes: int, epochs: float) -> float:
    """The median step of a run, in ms, looked at in this way from its first second to its last."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "swarmsgd", "train", "digits", "--nodes", nodes]
        command += ["--epochs", epochs, "--out", Path(folder) / "run", "--json", "--quiet"]
        command += ["--dashboard", "--dashboard-port", port]
        run = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert run.stderr is not None
        with run:
            while "live page" not in (line := run.stderr.readline()):
                if not line:
                    raise SystemExit("the run ended before its page was there")
            with VIEWERS[way](f"http://127.0.0.1:{port}/"):
                out, _ = run.communicate(timeout=900)
        return json.loads(out)["step_ms_p50"]


@contextlib.contextmanager
def nobody(_address: str) -> Iterator[None]:
    yield


@contextlib.contextmanager
def follower(address: str) -> Iterator[None]:
    """Reads what is sent to a page until the run ends."""

    def read() -> None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}events") as stream:
            for _ in stream:
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield
    thread.join(30)


@contextlib.contextmanager
def browser(address: str) -> Iterator[None]:
    """A page in Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        found.new_page().goto(address)
        yield
        found.close()


VIEWERS = {"closed": nobody, "followed": follower, "open": browser}

if __name__ == "__main__":
    main()
