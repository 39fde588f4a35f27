"""One node of `gpu.py`: its model on a device, in one of three parts. Prints one JSON line
(`@{...}`).

conserve  lr 0, models far apart: what exchanges alone do to the sum of models
ahead     the device is kept busy, and nothing asks for its results: the training thread runs ahead
time      a training loop, with the swarm or without
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loop import mlp
from torch import nn

import swarmsgd

RANK = int(os.environ["RANK"])
BUSY_CYCLES = 50_000_000
"""Of the device's clock a step: about 30 ms."""


class Vector(nn.Module):
    """A model that is one vector, of a size of its own on each node."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(rank)
        self.x = nn.Parameter(10.0**rank / 100 * torch.randn(dim, generator=draw))


def settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "bits": None if options.bits == "none" else int(options.bits),
        "mode": options.mode,
        "local_steps": options.local_steps,
    }


def refuse_waiting(device: str) -> None:
    """From now on torch raises an error where a call would wait for the device."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")


def allow_waiting(device: str) -> None:
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()


def allocated(device: str, *, peak: bool = False) -> int:
    if device != "cuda":
        return 0
    return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()


def conserve(options: argparse.Namespace) -> dict[str, Any]:
    """Until 100 exchanges were begun; the vectors of before and after go to files."""
    model = Vector(options.parameters, RANK).to(options.device)
    start = model.x.detach().to("cpu", torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model.x.grad = torch.zeros_like(model.x)
    before = allocated(options.device)
    with swarmsgd.join(model, optimizer, broadcast_start=False, **settings(options)) as swarm:
        extra = allocated(options.device) - before
        swarm.mean_model()
        gamma_before = swarm.gamma
        if options.mode == "non-blocking":
            refuse_waiting(options.device)
        began = time.monotonic()
        while swarm.stats()["started"] < 100 and time.monotonic() - began < 120:
            optimizer.step()
            time.sleep(0.001)
        allow_waiting(options.device)
        mean = swarm.mean_model()["x"]
        stats = swarm.stats()
    final = model.x.detach().to("cpu", torch.float64)
    torch.save((start, final, mean.double().cpu()), Path(options.folder) / f"{RANK}.pt")
    return {
        "started": stats["started"],
        "lost": stats["lost"],
        "gamma_before": gamma_before,
        "gamma_after": swarm.gamma,
        "mean_is_on": mean.device.type,
        "extra_vectors": extra / model.x.nbytes,
    }


def ahead(options: argparse.Namespace) -> dict[str, Any]:
    """Steps whose time on the device is long, without a look at any result."""
    model = Vector(options.parameters, RANK).to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model.x.grad = torch.zeros_like(model.x)
    with swarmsgd.join(model, optimizer, **settings(options)) as swarm:
        refuse_waiting(options.device)
        begin = time.perf_counter()
        for _ in range(options.steps):
            if options.device == "cuda":
                torch.cuda._sleep(BUSY_CYCLES)
            optimizer.step()
        queued_s = time.perf_counter() - begin
        stats = swarm.stats()
        allow_waiting(options.device)
        done_s = time.perf_counter() - begin
    return {"queued_s": queued_s, "done_s": done_s, "hook_s_max": stats["hook_s_max"]}


def timed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step, over all steps; the device is waited for at both ends only."""
    torch.manual_seed(RANK)
    model = mlp(options.parameters).to(options.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    data = torch.randn(8, options.batch, model[0].in_features, device=options.device)
    swarm = None
    if options.swarm:
        swarm = swarmsgd.join(model, optimizer, **settings(options))
    calls = np.zeros(options.steps)
    begin = 0.0
    for step in range(-10, options.steps):
        if step == 0:
            allow_waiting(options.device)
            begin = time.perf_counter()
        call = time.perf_counter()
        x = data[step % len(data)]
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()
        if step >= 0:
            calls[step] = time.perf_counter() - call
    allow_waiting(options.device)
    step_s = (time.perf_counter() - begin) / options.steps
    result: dict[str, Any] = {
        "step_s": step_s,
        "call_s_p50": float(np.median(calls)),
        "call_s_p99": float(np.percentile(calls, 99)),
        "peak_bytes": allocated(options.device, peak=True),
    }
    if swarm is not None:
        result["swarm"] = swarm.stats()
        swarm.leave()
    return result


PARTS = {"conserve": conserve, "ahead": ahead, "time": timed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--bits", default="8")
    parser.add_argument("--mode", default="non-blocking")
    parser.add_argument("--local-steps", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--swarm", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("@" + json.dumps(PARTS[options.part](options)), flush=True)


if __name__ == "__main__":
    main()
