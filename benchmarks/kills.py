"""Kill a node with SIGKILL at random moments while it saves, again and again.

Each life loads the checkpoint, then makes a step and saves, over and over, until it is killed. The
model is one number, the count of its steps, many times over: a checkpoint that is torn, or mixes
two saves, shows. No save that returned may be lost.

    python benchmarks/kills.py --kills 50 --parameters 1000000
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import swarmsgd


class Count(nn.Module):
    """`parameters` numbers that are all the count of steps."""

    def __init__(self, parameters: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(parameters))


def live(folder: Path, parameters: int, out: int) -> None:
    """One life: say what was found, then every save that returned, as a line each."""
    model = Count(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.x.grad = -torch.ones(parameters)
    begun = swarmsgd.load(folder, model, optimizer)
    whole = bool((model.x == begun.steps).all())
    os.write(out, f"{begun.steps} {int(whole)}\n".encode())
    with swarmsgd.join(model, optimizer) as swarm:
        while True:
            optimizer.step()
            swarm.save(folder)
            os.write(out, f"{swarm.steps}\n".encode())


def kill_one(folder: Path, parameters: int, moment_s: float) -> tuple[int, bool, int, bool]:
    """Steps that a life found, whether its checkpoint was whole, the last save that returned before
    it was killed, and whether it was killed within the next one.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            live(folder, parameters, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        found, whole = map(int, lines.readline().split())
        last = int(lines.readline())
        time.sleep(moment_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for line in lines:
            last = int(line)
    return found, bool(whole), last, any(folder.rglob("*.unfinished"))


def kill_often(folder: Path, parameters: int, kills: int, seed: int) -> dict[str, int]:
    """What came of so many kills. Raises AssertionError for a broken or lost checkpoint."""
    model = Count(1)  # what torch imports at the first step is there then, for all lives
    model.x.grad = torch.zeros(1)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    draw = random.Random(seed)
    saved, within, saves = 0, 0, 0
    for _ in range(kills):
        found, whole, last, cut = kill_one(folder, parameters, draw.random() * 0.1)
        assert whole, f"the checkpoint of step {found} is broken"
        assert found >= saved, f"step {saved} was saved, but step {found} was found"
        saves += last - found
        within += cut
        saved = last
    return {"kills": kills, "within_a_write": within, "saves": saves, "broken": 0, "lost": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)  # a forked child has no pool of threads
    logging.getLogger("swarmsgd").setLevel(logging.ERROR)  # a swarm of one is meant here
    with tempfile.TemporaryDirectory() as folder:
        figures = kill_often(Path(folder), given.parameters, given.kills, given.seed)
    json.dump(figures, sys.stdout)
    print()


if __name__ == "__main__":
    main()
