"""One process of a timed training loop: an MLP of a wanted size, with the swarm, with DDP, or
alone.

Started by the other benchmarks, by torchrun or by `swarmsgd launch`; prints one JSON line
(`@{...}`) a process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import swarmsgd


def mlp(parameters: int, depth: int = 4) -> nn.Sequential:
    """`depth` square layers with about `parameters` parameters in all."""
    width = round(math.sqrt(parameters / depth))
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*layers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=["none", "swarm", "ddp"], required=True)
    parser.add_argument("--parameters", type=int, default=11_700_000)
    parser.add_argument("--depth", type=int, default=4, help="layers, two tensors each")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--local-steps", type=int, default=4)
    parser.add_argument("--bits", default="none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rank, nodes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(rank)
    model = mlp(options.parameters, options.depth)
    width = model[0].in_features
    data = torch.randn(8, options.batch, width)
    swarm = None
    if options.algorithm == "ddp":
        dist.init_process_group("gloo", timeout=timedelta(seconds=300))
        trained: nn.Module = DistributedDataParallel(model)
    else:
        trained = model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    if options.algorithm == "swarm":
        swarm = swarmsgd.join(
            model,
            optimizer,
            local_steps=options.local_steps,
            bits=None if options.bits == "none" else int(options.bits),
        )
    times: list[float] = []
    begin = None
    while True:
        t0 = time.perf_counter()
        if len(times) == options.warmup:
            begin = t0
        x = data[len(times) % len(data)]
        optimizer.zero_grad()
        (trained(x) - x).square().mean().backward()
        optimizer.step()
        times.append(time.perf_counter() - t0)
        done = len(times) - options.warmup
        if options.steps and done >= options.steps:
            break
        if options.seconds and begin is not None and t0 - begin >= options.seconds:
            break
    kept = np.array(times[options.warmup :])
    result = {
        "rank": rank,
        "nodes": nodes,
        "algorithm": options.algorithm,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": len(kept),
        "step_s_median": float(np.median(kept)),
        "step_s_p99": float(np.percentile(kept, 99)),
        "step_s_max": float(kept.max()),
        "steps_per_s": float(len(kept) / kept.sum()),
    }
    if swarm is not None:
        result["swarm"] = swarm.stats()
        swarm.leave()
    elif options.algorithm == "ddp":
        dist.destroy_process_group()
    print("@" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
