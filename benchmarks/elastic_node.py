"""One node of `elastic.py`: images, an open swarm, until all nodes together have seen enough."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import torch

import swarmsgd
from swarmsgd.tasks import entry_of
from swarmsgd.tasks.base import silent

torch.set_num_threads(1)
SHARES = 16
"""The training samples are split over so many nodes; a node takes those of its number."""


def say(**fields: object) -> None:
    """One line for the parent."""
    print("@" + json.dumps(fields), flush=True)


def main() -> None:
    """Train; say what was seen."""
    samples, rate = int(sys.argv[1]), float(sys.argv[2])
    vision = entry_of("vision")
    task = vision.make(vision.options(dataset="fashion-mnist", batch_size=16), SHARES, silent)
    model = task.make_model(os.getpid())  # who comes late has another's in the end
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
    begin = time.monotonic()
    with swarmsgd.join(model, optimizer, bits=4, local_steps=4) as swarm:
        joined_s = time.monotonic() - begin
        at_arrival = task.evaluate(model).fields() if swarm.progress.steps else None
        while swarm.num_nodes < int(sys.argv[3]):
            time.sleep(0.05)  # those of the beginning begin together
        say(node=swarm.rank, joined_s=joined_s, share=swarm.share, at_arrival=at_arrival)
        longest, last, told = 0.0, time.monotonic(), time.monotonic()
        batches = task.batches(swarm.rank % SHARES)
        for batch in swarm.until(batches, samples=samples):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, 5 * (1 - swarm.share))
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            if now - told > 0.5:
                told = now
                say(share=swarm.share, steps=swarm.steps)
        stats = swarm.stats()
        mean = swarm.mean_model(recalibrate=False)
        model.load_state_dict(mean)
        score = task.evaluate(model).fields() if swarm.rank == min(swarm.mean_of) else None
        say(
            mean_of=swarm.mean_of,
            steps=swarm.steps,
            samples=swarm.progress.samples,
            longest_s=longest,
            score=score,
            stats={k: stats[k] for k in ("hook_s_p50", "hook_s_p99", "lost", "completed")},
        )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
    os._exit(0)
