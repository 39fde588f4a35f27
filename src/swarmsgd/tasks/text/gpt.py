"""A small GPT: a Transformer that predicts each next token (Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from swarmsgd.tasks.text.blocks import Block, Embedder, linear_cross_entropy


class GptSize(NamedTuple):
    layers: int
    width: int
    heads: int
    help: str


GPT_SIZES: Mapping[str, GptSize] = {
    "tiny": GptSize(2, 64, 2, "2 layers of 64, 0.12 M parameters on bytes"),
    "small": GptSize(4, 128, 4, "4 layers of 128, 0.83 M parameters"),
    "base": GptSize(6, 384, 6, "6 layers of 384, 11 M parameters; hours on a CPU"),
    "large": GptSize(12, 768, 12, "12 layers of 768, GPT-2's smallest, 85 M parameters; for a GPU"),
}
"""Name -> how large the model is, a line of help."""


class Gpt(nn.Module):
    """Causal blocks between an embedding and the same matrix as the output."""

    def __init__(self, vocabulary: int, size: GptSize, *, dropout: float) -> None:
        super().__init__()
        self.embedder = Embedder(vocabulary, size.width, positions=0, dropout=dropout)
        self.blocks = nn.ModuleList(
            Block(
                size.width,
                4 * size.width,
                size.heads,
                causal=True,
                dropout=dropout,
                activation=F.gelu,
            )
            for _ in range(size.layers)
        )
        self.norm = nn.LayerNorm(size.width)

    def forward(self, windows: Tensor, generator: Generator | None = None) -> Tensor:
        """The mean loss in nats, a scalar, of predicting each token but the first of every row of
        int64 ``[B, T + 1]`` from those before it. With a generator dropout is on.

        The loss and not the logits, so that whoever wraps the model can call it as one function.
        """
        hidden = self.hidden(windows[:, :-1], generator)
        return linear_cross_entropy(
            hidden.flatten(0, 1), self.embedder.weight, windows[:, 1:].flatten()
        )

    def hidden(self, tokens: Tensor, generator: Generator | None = None) -> Tensor:
        """What the output sees, ``[B, T, D]``, after each of ``[B, T]``. The logits are its
        products with the rows of ``embedder.weight``.
        """
        x = self.embedder(tokens, generator=generator)
        for block in self.blocks:
            x = block(x, generator=generator)
        return self.norm(x)
