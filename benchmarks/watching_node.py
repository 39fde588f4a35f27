"""One node of the benchmark `watching.py`: trains for some seconds, writes down when each step
began and how long it took.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from loop import mlp

import swarmsgd


def main() -> None:
    parameters, seconds, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = mlp(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    data = torch.randn(8, 32, model[0].in_features)
    steps: list[tuple[float, float]] = []
    with swarmsgd.join(model, optimizer) as swarm:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            x = data[len(steps) % 8]
            optimizer.zero_grad()
            loss = (model(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            swarm.note_loss(loss.item())
            steps.append((now, time.monotonic() - now))
        np.save(f"{folder}/{swarm.rank}.npy", np.array(steps))


if __name__ == "__main__":
    main()
