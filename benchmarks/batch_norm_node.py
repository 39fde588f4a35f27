"""One node of the batch norm benchmark: trains, and scores what it and all nodes have."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import swarmsgd
from swarmsgd.tasks.batch_norm import estimate_batch_norm
from swarmsgd.tasks.vision.task import VisionOptions, VisionTask


def main() -> None:
    algorithm, passes, seed, dataset, model_name = sys.argv[1:]
    algorithm, *settings = algorithm.split(":")
    nodes, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    batch = 128 if algorithm == "sgd" else 32
    torch.set_num_threads(1)
    task = VisionTask(
        VisionOptions(
            dataset=dataset, model=model_name, augment=True, batch_size=batch, seed=int(seed)
        ),
        nodes,
    )
    model = task.make_model(int(seed)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    steps = round(float(passes) * task.samples_per_epoch / (nodes * batch))
    trained: nn.Module = model
    swarm = None
    if algorithm == "swarm":
        bits, local_steps = map(int, settings)
        swarm = swarmsgd.join(model, optimizer, bits=bits, local_steps=local_steps, seed=int(seed))
    elif algorithm == "allreduce":
        torch.distributed.init_process_group("gloo")
        trained = DistributedDataParallel(model)
    step_ms = []
    for step, samples in enumerate(itertools.islice(task.batches(rank), steps)):
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        task.loss(trained, samples).backward()
        optimizer.step()
        step_ms.append(1000 * (time.perf_counter() - begin))
        if step % 100 == 0:
            print(f"node {rank}, step {step} of {steps}", file=sys.stderr, flush=True)
    said = {
        "own": task.evaluate(model).accuracy,
        "samples": steps * nodes * batch,
        "batch": batch,
        "step_ms_p50": float(np.median(step_ms)),
        "gamma": 0.0,
        "bytes_sent": 0,
    }
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    if swarm is not None:
        averaged = swarm.mean_model()
        said |= {"gamma": swarm.gamma, "bytes_sent": swarm.stats()["bytes_sent"]}
        swarm.leave()
    elif algorithm == "allreduce":
        size = sum(p.numel() * 4 for p in model.parameters())
        said["bytes_sent"] = round(2 * (nodes - 1) / nodes * size * steps)
        for name, _ in model.named_buffers():
            if averaged[name].is_floating_point():
                torch.distributed.all_reduce(averaged[name].div_(nodes))
    if rank == 0:
        said |= _scores(task, int(seed), averaged, dict(model.named_buffers()))
    print("@" + json.dumps(said), flush=True)
    os._exit(0)  # DDP's threads would be waited for


def _scores(
    task: VisionTask, seed: int, averaged: dict[str, torch.Tensor], own: dict[str, torch.Tensor]
) -> dict[str, float | None]:
    """Of the mean model, by whose statistics."""
    mean = task.make_model(seed).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    mean.load_state_dict(averaged)
    scores = {"averaged": task.evaluate(mean).accuracy}
    mean.load_state_dict(averaged | {name: own[name] for name in own})
    scores["one node's"] = task.evaluate(mean).accuracy
    estimate_batch_norm(mean, task)
    scores["anew"] = task.evaluate(mean).accuracy
    return scores


if __name__ == "__main__":
    main()
