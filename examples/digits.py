"""A small network on scikit-learn's digits, each node with its own quarter of the data.

    swarmsgd launch -n 4 examples/digits.py
    torchrun --nproc-per-node 4 examples/digits.py --mode matching

The script is an ordinary PyTorch loop; the lines marked (+) make it a swarm.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import swarmsgd  # (+)

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each node")
parser.add_argument("--mode", default="non-blocking", help="non-blocking, blocking or matching")
parser.add_argument("--graph", default="complete", help="complete, ring, random-regular:3, ...")
options = parser.parse_args()

images, labels = load_digits(return_X_y=True)
order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
x = torch.tensor(images, dtype=torch.float32)[order] / 16
y = torch.tensor(labels)[order]
train_x, train_y, test_x, test_y = x[:1440], y[:1440], x[1440:], y[1440:]

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

with swarmsgd.join(model, optimizer, graph=options.graph, mode=options.mode) as swarm:  # (+)
    mine_x, mine_y = train_x[swarm.rank :: swarm.num_nodes], train_y[swarm.rank :: swarm.num_nodes]
    draw = torch.Generator().manual_seed(swarm.rank)
    for _ in range(options.steps):
        batch = torch.randint(len(mine_x), (32,), generator=draw)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(mine_x[batch]), mine_y[batch])
        loss.backward()
        optimizer.step()  # the swarm's work hangs on this call
        swarm.note_loss(loss.item())  # (+) for its records, if any are kept

    model.load_state_dict(swarm.mean_model())  # (+) the mean of all nodes' models
    with torch.no_grad():
        accuracy = (model(test_x).argmax(1) == test_y).double().mean().item()
    stats = swarm.stats()

if swarm.rank == 0:
    print(
        f"mean of {len(swarm.mean_of)} models: test accuracy {accuracy:.4f}, Gamma "
        f"{swarm.gamma:.3e}"
    )
