"""What Transformers are made of here (Vaswani et al. 2017, arXiv 1706.03762), with the norm before
each part and not behind it (Xiong et al. 2020, arXiv 2002.04745).

Shapes: B sentences, T positions, D the width of the model, V pieces in the vocabulary. Nothing here
draws from a global generator: weights come from the seed given to `with_weights`, and dropout from
the generator that each forward pass is handed (None: no dropout).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention, each ``[B, heads, T, D / heads]``."""

Model = TypeVar("Model", bound=nn.Module)


def with_weights(build: Callable[[], Model], seed: int) -> Model:
    """The model that `build` makes, on the CPU, its weights a function of `seed` alone.

    Matrices and embeddings are normal with variance 1 / (columns), biases zero, norms ones and
    zeros. `build` runs on torch's meta device, where weights that two modules share would come
    apart: tie by using one module's weight twice, as `linear_cross_entropy` lets you.
    """
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    generator = Generator().manual_seed(seed)
    for module in model.modules():
        match module:
            case nn.Linear() | nn.Embedding():
                std = module.weight.shape[1] ** -0.5
                nn.init.normal_(module.weight, std=std, generator=generator)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.LayerNorm():
                module.reset_parameters()  # ones and zeros; draws nothing
            case _ if any(True for _ in module.parameters(recurse=False)):
                raise TypeError(f"with_weights does not know how to fill a {type(module).__name__}")
    return model


def dropout_generator(seed: Tensor, device: torch.device) -> Generator:
    """The generator that one batch's dropout draws from; `seed` is int64, of shape ``[]``."""
    return Generator(device=device).manual_seed(int(seed))


def dropout(x: Tensor, share: float, generator: Generator | None) -> Tensor:
    """`x` with a random `share` of it set to 0 and the rest scaled up; unchanged without a
    generator.
    """
    if generator is None or share == 0:
        return x
    kept = torch.empty_like(x).bernoulli_(1 - share, generator=generator)
    return x * kept.div_(1 - share)


@functools.lru_cache(maxsize=8)
def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """Positions as sines and cosines of `width` / 2 wave lengths, ``[length, width]``."""
    waves = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angles = torch.arange(length)[:, None] * waves
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).to(device)


class Embedder(nn.Module):
    """Pieces as vectors, with their positions. `positions` is how many of them are learnt; with 0
    they are sinusoids and a text may be of any length.

    `weight` is the matrix ``[V, D]`` of the pieces, for the output as well.
    """

    def __init__(self, vocabulary: int, width: int, *, positions: int, dropout: float) -> None:
        super().__init__()
        self.pieces = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width) if positions else None
        self.dropout = dropout

    @property
    def weight(self) -> Tensor:
        return self.pieces.weight

    def forward(
        self, pieces: Tensor, *, start: int = 0, generator: Generator | None = None
    ) -> Tensor:
        """``[B, T]`` to ``[B, T, D]``; `start` is the position of the first piece."""
        width, end = self.weight.shape[1], start + pieces.shape[1]
        if self.positions is None:
            # Made for a round number of positions, so that few are made.
            places = sinusoids(-(-end // 256) * 256, width, pieces.device)[start:end]
        else:
            places = self.positions.weight[start:end]
        return dropout(self.pieces(pieces) * math.sqrt(width) + places, self.dropout, generator)


class Cache:
    """Keys and values that one self-attention has seen, so that the next piece costs one position.

    Without arguments it is empty.
    """

    def __init__(self) -> None:
        self.seen: KeysValues | None = None

    def extended(self, keys: Tensor, values: Tensor) -> KeysValues:
        """All there are after these, which are kept."""
        if self.seen is not None:
            keys, values = (
                torch.cat(pair, dim=2) for pair in zip(self.seen, (keys, values), strict=True)
            )
        self.seen = keys, values
        return self.seen

    def select(self, rows: Tensor) -> None:
        """Go on with these sentences (int64) of the batch, in this order."""
        if self.seen is not None:
            keys, values = self.seen
            self.seen = keys.index_select(0, rows), values.index_select(0, rows)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; causal: to what is not behind it."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.inner = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, *, mask: Tensor | None, cache: Cache | None) -> Tensor:
        """``[B, T, D]`` in and out. With a cache that is not empty T has to be 1."""
        queries, keys, values = _split_heads(self.inner(x), self.heads, 3)
        if cache is not None:
            keys, values = cache.extended(keys, values)
        # What has a single position sees all that there is.
        causal = self.causal and x.shape[1] > 1
        return self.outer(_attend(queries, keys, values, mask=mask, causal=causal))


class CrossAttention(nn.Module):
    """Multi-head attention to another sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(width, width)

    def project(self, memory: Tensor) -> KeysValues:
        """What is attended to, from ``[B, S, D]``."""
        keys, values = _split_heads(self.keys_values(memory), self.heads, 2)
        return keys, values

    def forward(self, x: Tensor, source: KeysValues, *, mask: Tensor | None) -> Tensor:
        """``[B, T, D]`` in and out; or, with T = 1, ``[B * beams, 1, D]``: neighbours in `x` then
        attend to one source, which is not copied for them.
        """
        sentences = source[0].shape[0]
        (queries,) = _split_heads(self.queries(x.reshape(sentences, -1, x.shape[2])), self.heads, 1)
        return self.outer(_attend(queries, *source, mask=mask, causal=False)).view_as(x)


def _split_heads(x: Tensor, heads: int, parts: int) -> tuple[Tensor, ...]:
    """``[B, T, parts * D]`` as `parts` of ``[B, heads, T, D / heads]``."""
    batch, length, _ = x.shape
    return x.view(batch, length, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None, causal: bool
) -> Tensor:
    """``[B, T, D]`` from heads."""
    heads = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal)
    return heads.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention, with `cross` attention to a source, and two linear layers; each sees a
    normalised input and is added to it.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        *,
        causal: bool,
        cross: bool = False,
        dropout: float = 0.0,
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        self.dropout, self.activation = dropout, activation
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, heads, causal=causal)
        if cross:
            self.cross_norm = nn.LayerNorm(width)
            self.cross_attention = CrossAttention(width, heads)
        self.linear_norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        source: KeysValues | None = None,
        source_mask: Tensor | None = None,
        cache: Cache | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """``[B, T, D]`` in and out. `mask` and `source_mask` broadcast to ``[B, heads, T, S]`` and
        are added to what the softmax sees: -inf where nothing may be seen.
        """

        def drop(part: Tensor) -> Tensor:
            return dropout(part, self.dropout, generator)

        x = x + drop(self.self_attention(self.self_norm(x), mask=mask, cache=cache))
        if source is not None:
            x = x + drop(self.cross_attention(self.cross_norm(x), source, mask=source_mask))
        return x + drop(self.outer(self.activation(self.inner(self.linear_norm(x)))))


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy, in nats, of ``softmax(hidden @ weight.T)`` to `targets`, as a scalar.

    `hidden` is ``[N, D]``, `weight` ``[V, D]``, `targets` int64 ``[N]``. Smoothing mixes that share
    of the uniform distribution into each target (Szegedy et al. 2016). The gradient is found in the
    forward pass, of a few rows of logits at a time, so ``[N, V]`` never exists.
    """
    loss = _LinearCrossEntropy.apply(hidden, weight, targets, smoothing, torch.is_grad_enabled())
    assert isinstance(loss, Tensor)
    return loss


_LOGITS_AT_A_TIME = 1 << 20
"""4 MiB of them."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, smoothing, differentiate):
        count, size = len(targets), len(weight)
        total = hidden.new_zeros(())
        grad_hidden = torch.empty_like(hidden) if differentiate else None
        grad_weight = torch.zeros_like(weight) if differentiate else None
        rows = max(1, _LOGITS_AT_A_TIME // size)
        for begin in range(0, count, rows):
            part = slice(begin, begin + rows)
            logits = hidden[part] @ weight.T
            right = targets[part, None]
            meant = (1 - smoothing) * logits.gather(1, right).sum()
            if smoothing:
                meant += smoothing / size * logits.sum()
            largest = logits.amax(1)
            shares = torch.softmax(logits, 1)
            # The largest share is 1 / sum(exp(logits - largest)), and never rounds to 0.
            total += (largest - shares.amax(1).log()).sum() - meant
            if grad_hidden is not None and grad_weight is not None:
                shares.scatter_add_(
                    1, right, shares.new_full((1, 1), smoothing - 1).expand_as(right)
                )
                if smoothing:
                    shares.sub_(smoothing / size)
                torch.mm(shares, weight, out=grad_hidden[part])
                grad_weight.addmm_(shares.T, hidden[part])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.count = count
        return total / count

    @staticmethod
    def backward(ctx, *grads):
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grads[0] / ctx.count
        return grad_hidden * scale, grad_weight * scale, None, None, None
