"""The Transformer that translates: an encoder and a decoder, one embedding for both and the output.

Shapes: B sentences, S and T pieces of source and target, D the width. Sentences are padded at their
ends.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from swarmsgd.tasks.text.blocks import (
    Block,
    Cache,
    Embedder,
    KeysValues,
    linear_cross_entropy,
    with_weights,
)
from swarmsgd.tasks.text.pieces import PAD


class Size(NamedTuple):
    """How large a model is."""

    width: int
    hidden: int
    layers: int
    """Of the encoder, and again of the decoder."""
    heads: int
    dropout: float
    help: str


SIZES = {
    "mini": Size(64, 128, 1, 4, 0.0, "width 64, 1+1 layers: 0.18 M parameters with 1,500 pieces"),
    "tiny": Size(128, 256, 2, 4, 0.0, "width 128, 2+2 layers: 1.2 M parameters with 4,000 pieces"),
    "small": Size(256, 1024, 3, 4, 0.1, "width 256, 3+3 layers: 6.6 M with 4,000 pieces"),
    "base": Size(512, 2048, 6, 8, 0.1, "the base model of Vaswani et al.: 61 M with 32,000 pieces"),
    "big": Size(1024, 4096, 6, 16, 0.3, "their big one: 209 M with 32,000 pieces"),
}
"""Name -> size, the dropout that goes with it, and a line of help."""


class Memory(NamedTuple):
    """What a decoder sees of a batch of sources."""

    layers: list[KeysValues]
    """Of each layer of the decoder, ``[B, heads, S, D / heads]``."""
    mask: Tensor | None
    """``[B, 1, 1, S]``, -inf at padding; None if there is none."""

    def select(self, rows: Tensor) -> Memory:
        """That of these sentences, int64."""
        layers = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.layers]
        return Memory(layers, None if self.mask is None else self.mask.index_select(0, rows))


class Translator(nn.Module):
    """Encoder and decoder. Calling it gives the loss, so that it may be wrapped."""

    def __init__(self, vocabulary: int, size: Size, *, dropout: float) -> None:
        super().__init__()
        self.embed = Embedder(vocabulary, size.width, positions=0, dropout=dropout)
        shape = (size.width, size.hidden, size.heads)
        self.encoder = nn.ModuleList(
            Block(*shape, causal=False, dropout=dropout) for _ in range(size.layers)
        )
        self.encoder_norm = nn.LayerNorm(size.width)
        self.decoder = nn.ModuleList(
            Block(*shape, causal=True, cross=True, dropout=dropout) for _ in range(size.layers)
        )
        self.decoder_norm = nn.LayerNorm(size.width)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        smoothing: float = 0.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """Mean cross-entropy of the target's pieces in nats, each given the source ``[B, S]`` and
        the target ``[B, T + 1]`` before it; the first piece is given.
        """
        memory = self.encode(source, generator)
        hidden = self.decode(target[:, :-1], memory, generator=generator)
        wanted = target[:, 1:]
        real = wanted != PAD
        return linear_cross_entropy(
            hidden[real], self.embed.weight, wanted[real], smoothing=smoothing
        )

    def encode(self, source: Tensor, generator: Generator | None = None) -> Memory:
        """What the decoder sees of the pieces ``[B, S]``."""
        padding = source == PAD
        mask = None
        if padding.any():
            mask = torch.zeros(padding.shape, device=source.device)
            mask = mask.masked_fill_(padding, -torch.inf)[:, None, None, :]
        x = self.embed(source, generator=generator)
        for block in self.encoder:
            x = block(x, mask=mask, generator=generator)
        x = self.encoder_norm(x)
        return Memory([block.cross_attention.project(x) for block in self._decoder()], mask)

    def decode(
        self,
        pieces: Tensor,
        memory: Memory,
        *,
        caches: list[Cache] | None = None,
        start: int = 0,
        generator: Generator | None = None,
    ) -> Tensor:
        """The pieces ``[B, T]`` as ``[B, T, D]``. With caches, one for each layer, `pieces` are
        those at `start`, one for each beam: ``[B * beams, 1]``.
        """
        x = self.embed(pieces, start=start, generator=generator)
        for i, block in enumerate(self.decoder):
            x = block(
                x,
                source=memory.layers[i],
                source_mask=memory.mask,
                cache=None if caches is None else caches[i],
                generator=generator,
            )
        return self.decoder_norm(x)

    def _decoder(self) -> list[Block]:
        return [block for block in self.decoder if isinstance(block, Block)]


def make_translator(
    vocabulary: int, size: str, seed: int, *, dropout: float | None = None
) -> Translator:
    """A model of a size of `SIZES`, its weights a function of `seed`; no `dropout`: the size's."""
    shape = SIZES[size]
    share = shape.dropout if dropout is None else dropout
    return with_weights(lambda: Translator(vocabulary, shape, dropout=share), seed)
