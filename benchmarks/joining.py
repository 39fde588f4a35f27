"""How long nodes take to join, what one holds as its neighbours grow in number, how soon a loss is
noticed.

    python benchmarks/joining.py --keep             # seconds to join, threads, descriptors, MB
    python benchmarks/joining.py --notice --keep    # a killed neighbour; as root a vanished host
    python benchmarks/joining.py --delayed 60       # joins with delays in every step: none fails

All nodes are processes of this machine with a model of 1,000 parameters, forked from one that has
everything loaded: loading torch is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from bench import keep, table
from delays import delay_every_step
from forks import Child, load, said, start
from namespaces import Hosts, available
from torch import nn

import swarmsgd
from swarmsgd.graphs import parse
from swarmsgd.observe.records import Recorder

WARM_S = 2.0
"""So long all train before somebody is killed."""


def joined(rank: int, nodes: int, port: int, graph: str, addr: str = "127.0.0.1") -> Any:
    """A node of a tiny model, and a step of it."""
    model = nn.Linear(1000, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    swarm = swarmsgd.join(
        model, optimizer, rank=rank, num_nodes=nodes, master_addr=addr, master_port=port,
        graph=graph, local_steps=4,
    )  # fmt: skip

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 1000)).square().mean().backward()
        optimizer.step()
        time.sleep(0.01)

    return swarm, step


# Joining.


def join_all(nodes: int, graph: str) -> dict[str, Any]:
    """One swarm; medians over its nodes, the last one's time."""

    def body(rank: int, port: int, out: TextIO, go: int) -> None:
        begin = time.monotonic()
        swarm, step = joined(rank, nodes, port, graph)
        said(out, joined_s=time.monotonic() - begin, at=time.monotonic())
        for _ in range(20):
            step()
        os.read(go, 1)
        own = Path("/proc/self/smaps_rollup").read_text().splitlines()
        said(
            out,
            threads=len(list(Path("/proc/self/task").iterdir())),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            private_mb=sum(int(line.split()[1]) for line in own if line[:7] == "Private") / 1024,
            links=swarm.stats()["open_peers"],
        )
        os.read(go, 1)  # all have looked
        swarm.leave()

    begin = time.monotonic()
    children = start(nodes, body)
    began = [child.hear() for child in children]
    for child in children:
        child.tell()
    held = [child.hear() for child in children]
    for child in children:
        child.tell()
    codes = [child.end() for child in children]
    if any(codes):
        raise SystemExit(f"nodes of {nodes} on {graph} failed")
    found = {name: statistics.median(one[name] for one in held) for name in held[0]}
    return {
        "joined_s": statistics.median(one["joined_s"] for one in began),
        "all_joined_s": max(one["at"] for one in began) - begin,
        **found,
    }


def join_table(sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parse("random-regular:4", 6)  # what that imports is there before the forks
    for graph in ("complete", "random-regular:4"):
        for nodes in sizes:
            if graph == "complete" or nodes > 5:
                tries = [join_all(nodes, graph) for _ in range(repeats)]
                found[f"{graph} {nodes}"] = {
                    name: statistics.median(one[name] for one in tries) for name in tries[0]
                }
    columns = list(next(iter(found.values())))
    rows = [[name, *(f"{one[c]:.3g}" for c in columns)] for name, one in found.items()]
    print(table([["graph, nodes", *columns], *rows]))
    return found


# Joins with delays.


def delayed(number: int, most_s: float) -> str:
    """One join of three nodes with delays; what went wrong, "" if nothing."""

    def body(rank: int, port: int, out: TextIO, go: int) -> None:
        waited = delay_every_step(f"{number} {rank}", most_s)
        swarm, step = joined(rank, 3, port, "complete")
        for _ in range(20):
            step()
        swarm.mean_model()
        said(out, of=swarm.mean_of, waited=waited)
        swarm.leave()

    children = start(3, body)
    try:
        of = [child.hear()["of"] for child in children]
    except SystemExit as error:
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        return str(error)
    codes = [child.end() for child in children]
    return "" if codes == [0, 0, 0] and of == [[0, 1, 2]] * 3 else f"exit {codes}, mean of {of}"


def joins_with_delays(count: int, most_s: float, at_once: int) -> dict[str, Any]:
    """Several at a time: nodes that wait cost nothing."""

    def some(first: int, out: TextIO) -> None:
        for number in range(first, count, at_once):
            said(out, number=number, failed=delayed(number, most_s))

    begin, drivers = time.monotonic(), list[Child]()
    for first in range(at_once):

        def drive(out: TextIO, _: int, first: int = first) -> None:
            some(first, out)

        drivers.append(Child(drive, [fd for driver in drivers for fd in driver.fds]))
    ends = [drivers[number % at_once].hear() for number in range(count)]
    for driver in drivers:
        driver.end()
    for end in ends:
        if end["failed"]:
            print(f"join {end['number']}: {end['failed']}")
    failed = sum(bool(end["failed"]) for end in ends)
    print(f"{count} joins of 3 nodes, up to {most_s} s of delay in every step: {failed} failed")
    print(f"{time.monotonic() - begin:.0f} s, {at_once} at a time")
    return {"joins": count, "most_s": most_s, "failed": failed}


# Losses.


def told_losses(out: TextIO) -> None:
    """Say from now on when a loss is recorded."""
    write = Recorder.write

    def writes(recorder: Recorder, kind: str, **fields: Any) -> None:
        now = time.monotonic()
        write(recorder, kind, **fields)
        if kind == "event" and fields["what"] == "lost":
            said(out, at=now, peer=fields["peer"])

    Recorder.write = writes  # pyright: ignore[reportAttributeAccessIssue]


def notice_body(
    nodes: int, prepare: Callable[[int], str] = lambda _: "127.0.0.1"
) -> Callable[[int, int, TextIO, int], None]:
    def body(rank: int, port: int, out: TextIO, go: int) -> None:
        addr = prepare(rank)
        told_losses(out)
        swarm, step = joined(rank, nodes, port, "complete", addr)
        said(out, joined=rank)
        os.set_blocking(go, False)
        while True:
            step()
            with contextlib.suppress(BlockingIOError):
                if os.read(go, 1):
                    break
        swarm.leave()

    return body


def killed(nodes: int) -> list[float]:
    """Milliseconds from SIGKILL of a node to the record of its loss, at each other node."""
    children = start(nodes, notice_body(nodes))
    for child in children:
        child.hear()
    time.sleep(WARM_S)
    begin = time.monotonic()
    os.kill(children[-1].pid, signal.SIGKILL)
    others = children[:-1]
    found = [1000 * (child.hear()["at"] - begin) for child in others]
    for child in others:
        child.tell()
    for child in children:
        child.end()
    return found


def vanished(nodes: int) -> list[float]:
    """Seconds from a host's link set down to the record of its loss, at each other host."""
    with Hosts(nodes) as hosts:

        def move(rank: int) -> str:
            with Path(f"/run/netns/{hosts.names[rank]}").open() as there:
                if ctypes.CDLL(None).setns(there.fileno(), 0):
                    raise SystemExit(f"cannot go to the namespace of host {rank}")
            return hosts.addresses[0]

        children = start(nodes, notice_body(nodes, move))
        for child in children:
            child.hear()
        time.sleep(WARM_S)
        begin = time.monotonic()
        down = ["ip", "-n", hosts.names[-1], "link", "set", "eth0", "down"]
        subprocess.run(down, check=True)
        others = children[:-1]
        found = [child.hear()["at"] - begin for child in others]
        for child in others:
            child.tell()
        os.kill(children[-1].pid, signal.SIGKILL)
        for child in children:
            child.end()
        return found


def notices(repeats: int) -> dict[str, Any]:
    times = [ms for _ in range(repeats) for ms in killed(4)]
    found: dict[str, Any] = {
        "killed": {
            "losses": len(times),
            "median_ms": statistics.median(times),
            "most_ms": max(times),
        }
    }
    if reason := available():
        print(f"no host vanishes here: {reason}")
    else:
        seconds = vanished(3)
        found["vanished"] = {
            "losses": len(seconds),
            "median_s": statistics.median(seconds),
            "most_s": max(seconds),
        }
    for name, figures in found.items():
        print(name, ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--nodes", type=int, nargs="+", default=[4, 16, 32])
    add("--repeats", type=int, default=3)
    add("--notice", action="store_true", help="how soon losses are noticed, and nothing else")
    add("--delayed", type=int, metavar="JOINS", help="joins with delays, and nothing else")
    add("--most", type=float, default=1.0, help="seconds of a delay at most (default: 1)")
    add("--at-once", type=int, default=4, help="of these joins (default: 4)")
    add("--keep", action="store_true", help="write the record benchmarks/records/joining")
    given = parser.parse_args()
    load()
    if given.delayed is not None:
        found = {"delayed": joins_with_delays(given.delayed, given.most, given.at_once)}
    elif given.notice:
        found = notices(given.repeats)
    else:
        found = join_table(given.nodes, given.repeats)
    if given.keep:
        keep("joining", found)
    if found.get("delayed", {}).get("failed"):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
