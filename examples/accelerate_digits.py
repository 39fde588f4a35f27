"""Handwritten digits in a loop around accelerate.

swarmsgd launch -n 2 examples/accelerate_digits.py
"""

import argparse

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import swarmsgd
from swarmsgd.integrations import hide_place

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="runs/accelerate")
parser.add_argument("--epochs", type=int, default=20)
given = parser.parse_args()
rank, num_nodes = hide_place()  # before the Accelerator looks for RANK

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
mine = TensorDataset(x[300 + rank :: num_nodes], y[300 + rank :: num_nodes])

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(mine, batch_size=16, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

with swarmsgd.join(model, optimizer, graph="complete", local_steps=4) as swarm:
    for _ in range(given.epochs):
        for batch, wanted in loader:
            with accelerator.accumulate(model):
                accelerator.backward(F.cross_entropy(model(batch), wanted))
                optimizer.step()
                optimizer.zero_grad()
    final = swarm.mean_model()
model.load_state_dict(final)
accelerator.save_state(f"{given.out}/node-{rank}")  # each node keeps checkpoints of its own
accuracy = (model(x[:300]).argmax(1) == y[:300]).float().mean()
print(f"node {rank}: accuracy {accuracy:.4f} of the mean model")
