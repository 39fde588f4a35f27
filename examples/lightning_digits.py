"""Handwritten digits under Lightning's Trainer.

swarmsgd launch -n 2 examples/lightning_digits.py
"""

import argparse

from swarmsgd.integrations import hide_place

rank, num_nodes = hide_place()  # before Lightning is loaded, which looks for RANK

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from swarmsgd.integrations.lightning import SwarmCallback  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="runs/lightning")
parser.add_argument("--epochs", type=int, default=10)
given = parser.parse_args()


class Digits(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
mine = TensorDataset(x[300 + rank :: num_nodes], y[300 + rank :: num_nodes])

trainer = pl.Trainer(
    accelerator="cpu",
    devices=1,
    max_epochs=given.epochs,
    default_root_dir=f"{given.out}/node-{rank}",  # each node keeps checkpoints of its own
    callbacks=[SwarmCallback(graph="complete", local_steps=4)],
    logger=False,
    enable_progress_bar=False,
)
model = Digits()
trainer.fit(model, DataLoader(mine, batch_size=32, shuffle=True))
accuracy = (model.net(x[:300]).argmax(1) == y[:300]).float().mean()
print(f"node {rank}: accuracy {accuracy:.4f} of the mean model")
