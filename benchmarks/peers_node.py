"""One process of `peers.py`: a tiny model trained under one of the tools, a line for each step.

    python peers_node.py TOOL [ADDRESS ...]

It runs in the tool's own virtual environment: what it imports beyond torch it imports in the
tool's function. It ends when it is killed, when nobody reads it any more, or after LIMIT_S.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

BATCH = 32
COMPUTE_S = 0.01
"""Slept in each step, as for an accelerator that computes: two cores hold four processes."""
TOLD_S = 0.2
LIMIT_S = 900.0
SLOT = int(os.environ.get("PEERS_SLOT", os.environ.get("RANK", "0")))
"""Whose place this process has, 0 to 3: that of the killed one too, if started in its stead."""


def say(**fields: object) -> None:
    """One line for `peers.py`, in one piece: several processes may write to one pipe."""
    line = json.dumps({"slot": SLOT, "pid": os.getpid(), **fields})
    os.write(1, f"@{line}\n".encode())


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model of 98,880 parameters, and SGD."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64)]
    model = nn.Sequential(*layers)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def loop(model: nn.Module, optimizer: Any = None, members: Callable[[], int] | None = None) -> None:
    """Train; `optimizer` is None where the model steps by itself. `members()` is how many
    processes this one counts, itself included."""
    x, y = torch.randn(BATCH, 64), torch.randn(BATCH, 64)
    ends, told = time.monotonic() + LIMIT_S, 0.0
    while (now := time.monotonic()) < ends:
        (model if optimizer is None else optimizer).zero_grad()
        time.sleep(COMPUTE_S)
        nn.functional.mse_loss(model(x), y).backward()
        if optimizer is not None:
            optimizer.step()
        now = time.monotonic()
        counted = {}
        if members is not None and now - told > TOLD_S:
            told, counted = now, {"members": members()}
        say(at=now, **counted)


def with_swarmsgd(_: list[str]) -> None:
    import swarmsgd

    model, optimizer = parts()
    with swarmsgd.join(model, optimizer) as swarm:
        loop(model, optimizer, lambda: 1 + swarm.stats()["open_peers"])


def with_ddp(_: list[str]) -> None:
    torch.distributed.init_process_group("gloo")
    model, optimizer = parts()
    loop(nn.parallel.DistributedDataParallel(model), optimizer)


def with_decent_dp(_: list[str]) -> None:
    from decent_dp.ddp import DecentralizedDataParallel  # pyright: ignore[reportMissingImports]
    from decent_dp.utils import initialize_dist  # pyright: ignore[reportMissingImports]

    initialize_dist()

    def sgd(named: list[tuple[str, torch.Tensor]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter for _, parameter in named], lr=0.01, momentum=0.9)

    loop(DecentralizedDataParallel(parts()[0], optim_fn=sgd, topology="ring"))


def with_torchft(_: list[str]) -> None:
    from torchft import Manager, ProcessGroupGloo  # pyright: ignore[reportMissingImports]
    from torchft.local_sgd import LocalSGD  # pyright: ignore[reportMissingImports]

    model, optimizer = parts()
    held = {"model": model, "optimizer": optimizer}

    def load(state: dict[str, Any]) -> None:
        for name, one in held.items():
            one.load_state_dict(state[name])

    manager = Manager(
        pg=ProcessGroupGloo(),
        load_state_dict=load,
        state_dict=lambda: {name: one.state_dict() for name, one in held.items()},
        min_replica_size=1,
        replica_id=f"peers_{SLOT}",
    )
    with LocalSGD(manager, model, optimizer, sync_every=100):
        loop(model, optimizer, manager.num_participants)


def with_hivemind(peers: list[str]) -> None:
    import hivemind  # pyright: ignore[reportMissingImports]

    dht = hivemind.DHT(initial_peers=peers, start=True)
    say(address=[str(address) for address in dht.get_visible_maddrs()])
    model, inner = parts()
    optimizer = hivemind.Optimizer(
        dht=dht,
        run_id="peers",
        batch_size_per_step=BATCH,
        target_batch_size=100_000,
        optimizer=inner,
        use_local_updates=True,
        matchmaking_time=3.0,
        averaging_timeout=10.0,
    )
    if peers:
        optimizer.load_state_from_peers()
    loop(model, optimizer, lambda: optimizer.tracker.global_progress.num_peers)


TOOLS = {
    "swarmsgd": with_swarmsgd,
    "ddp": with_ddp,
    "decent-dp": with_decent_dp,
    "torchft": with_torchft,
    "hivemind": with_hivemind,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    TOOLS[sys.argv[1]](sys.argv[2:])
