"""One of the two processes of `links.py`; prints one JSON line (`@{...}`)."""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed import TCPStore

import swarmsgd

NBYTES = 12_000_000
WARM_UP = 5
RANK = int(os.environ["RANK"])


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def held() -> dict[str, int]:
    """Threads and descriptors of this process."""
    return {
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def open_store() -> TCPStore:
    port = int(os.environ["MASTER_PORT"])
    return TCPStore("127.0.0.1", port, is_master=RANK == 0, wait_for_workers=False)


class Gloo:
    """Links as they were: messages come on threads of their own."""

    def __init__(self, rank: int, store: TCPStore) -> None:
        from swarmsgd.transport.gloo import GlooTransport  # pyright: ignore

        self.rank, self.store, self._make = rank, store, GlooTransport
        self._come: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen(self) -> None:
        pass

    def open(self, peers: list[int]) -> None:
        store = self.store if len(peers) > 1 else self.store.clone()
        self.node = self._make(self.rank, peers, store, address="127.0.0.1")
        self.node.start(lambda _, message: self._come.put(message), print)

    def receive(self) -> Any:
        return self._come.get()


class Zmq:
    """Links as they are: who wants messages polls."""

    def __init__(self, rank: int, store: TCPStore) -> None:
        from swarmsgd.transport.zmq import ZmqTransport

        secret: dict[str, Any] = {}
        if path := os.environ.get("SWARMSGD_KEY"):
            from swarmsgd.transport.keys import read_key

            secret["key"] = read_key(Path(path))
        self.rank, self.store = rank, store
        self.node = ZmqTransport(rank, address="127.0.0.1", **secret)

    def listen(self) -> None:
        self.store.set(f"at/{self.rank}", self.node.endpoint)

    def open(self, peers: list[int]) -> None:
        ends = {peer: self.store.get(f"at/{peer}").decode() for peer in peers}
        self.node.open("links", ends, 300.0)

    def receive(self) -> Any:
        event = self.node.poll(None)
        assert event is not None
        return event[1]


def make(rank: int, store: TCPStore) -> Gloo | Zmq:
    try:
        return Zmq(rank, store)
    except ImportError:
        return Gloo(rank, store)


def messages(count: int) -> dict[str, float]:
    """Ping-pong of NBYTES: node 1 answers each message with one as long."""
    link = make(RANK, open_store())
    link.listen()
    link.open([1 - RANK])
    begun = 0.0
    for number in range(count + WARM_UP):
        if number == WARM_UP:
            begun = cpu_s()
        if RANK == 1:
            link.node.give(link.receive())
        message = link.node.take(NBYTES)
        link.node.send(1 - RANK, message)
        if RANK == 0:
            link.node.give(link.receive())
    used = cpu_s() - begun
    link.node.close(5.0)
    return {"cpu_s": used, "bytes": 2.0 * count * NBYTES}


def exchanges(parameters: int, seconds: float) -> dict[str, float]:
    """Exchange without a pause: every step is a burst, and waits for its exchange."""
    torch.set_num_threads(1)
    model = nn.Linear(parameters, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model.weight.grad = torch.zeros_like(model.weight)
    with swarmsgd.join(model, optimizer, mode="blocking", local_steps=1) as swarm:
        for _ in range(20):
            optimizer.step()
        before, begin, used = swarm.stats()["completed"], time.monotonic(), cpu_s()
        while time.monotonic() - begin < seconds:
            optimizer.step()
        return {
            "completed": swarm.stats()["completed"] - before,
            "seconds": time.monotonic() - begin,
            "cpu_s": cpu_s() - used,
        }


def degree(count: int) -> dict[str, float]:
    """What node 0 holds with `count` links; its neighbours are all in the other process."""
    import threading

    np.empty(0)
    store = open_store()
    before = held()
    links = [make(rank, store) for rank in ([0] if RANK == 0 else range(1, count + 1))]
    for link in links:
        link.listen()
    others = list(range(1, count + 1)) if RANK == 0 else [0]
    threads = [threading.Thread(target=link.open, args=(others,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for link in links:
        for peer in others:
            message = link.node.take(100_000)
            link.node.send(peer, message)
    for link in links:
        for _ in others:
            link.receive()
    after = held()
    store.set(f"done/{RANK}", "")
    store.wait([f"done/{1 - RANK}"])
    for link in links:
        link.node.close()
    if RANK == 0:
        store.wait(["bye"])  # it lives in this process
    else:
        store.set("bye", "")
    return {name: float(after[name] - before[name]) for name in after}


if __name__ == "__main__":
    what, *values = sys.argv[1:]
    said = {"messages": messages, "exchanges": exchanges, "degree": degree}[what](
        *(float(value) if "." in value else int(value) for value in values)
    )
    print("@" + json.dumps(said), flush=True)
