"""What Transformers are made of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from swarmsgd.tasks.text import blocks
from swarmsgd.tasks.text.blocks import (
    Block,
    Cache,
    Embedder,
    dropout,
    dropout_generator,
    linear_cross_entropy,
    sinusoids,
    with_weights,
)


def block(**options) -> Block:
    return with_weights(lambda: Block(16, 32, 4, **options), 3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def test_equal_seeds_fill_with_equal_weights_and_others_with_others():
    first, again, other = (
        list(with_weights(lambda: Block(8, 8, 2, causal=True), seed).parameters())
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_module_that_filled_does_not_know_is_refused():
    with pytest.raises(TypeError, match="Conv1d"):
        with_weights(lambda: nn.Conv1d(1, 1, 1), 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("at_a_time", [50, 1 << 20])
def test_the_loss_and_its_gradients_are_torchs(
    smoothing: float, at_a_time: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocks, "_LOGITS_AT_A_TIME", at_a_time)
    hidden, weight = normal(7, 5).requires_grad_(), normal(20, 5, seed=1).requires_grad_()
    targets = torch.arange(7) * 2
    ours = linear_cross_entropy(hidden, weight, targets, smoothing=smoothing)
    theirs = F.cross_entropy(hidden @ weight.T, targets, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)),
        torch.autograd.grad(3 * theirs, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        same = linear_cross_entropy(hidden, weight, targets, smoothing=smoothing)
    assert torch.equal(same, ours)


def test_the_loss_is_finite_where_the_target_has_no_share_at_all():
    hidden = torch.tensor([[300.0]], requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.tensor([[1.0], [0.0]]), torch.tensor([1]))
    assert loss.item() == 300


def test_a_causal_block_does_not_see_what_comes():
    x = normal(2, 6, 16)
    changed = x.clone()
    changed[:, 4:] = 0
    a, b = block(causal=True)(x), block(causal=True)(changed)
    torch.testing.assert_close(a[:, :4], b[:, :4])
    assert not torch.allclose(block(causal=False)(x)[:, :4], block(causal=False)(changed)[:, :4])


def test_a_cache_gives_what_the_whole_sequence_gives():
    x, of_all = normal(3, 5, 16), block(causal=True)
    cache = Cache()
    pieces = [of_all(x[:, :2], cache=cache)]
    pieces += [of_all(x[:, i : i + 1], cache=cache) for i in range(2, 5)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), of_all(x))


def test_a_cache_follows_the_rows_that_are_selected():
    x, of_all = normal(3, 4, 16), block(causal=True)
    cache, rows = Cache(), torch.tensor([2, 0, 2])
    of_all(x[:, :3], cache=cache)
    cache.select(rows)
    torch.testing.assert_close(of_all(x[rows, 3:], cache=cache), of_all(x)[rows, 3:])


def test_beams_attend_to_one_source_as_if_each_had_a_copy():
    x, memory, of_two = normal(6, 1, 16), normal(2, 5, 16, seed=1), block(causal=True, cross=True)
    shared = of_two(x, source=of_two.cross_attention.project(memory))
    copied = of_two(x, source=of_two.cross_attention.project(memory.repeat_interleave(3, 0)))
    torch.testing.assert_close(shared, copied)


def test_what_is_masked_is_not_seen():
    x, whole = normal(1, 5, 16), block(causal=False)
    mask = torch.zeros(1, 1, 1, 5)
    mask[..., 3:] = -torch.inf
    torch.testing.assert_close(whole(x, mask=mask)[:, :3], whole(x[:, :3]))


def test_dropout_is_a_function_of_the_seed_and_keeps_the_mean():
    x, seed = torch.ones(20_000), torch.tensor(5)
    device = x.device
    first = dropout(x, 0.2, dropout_generator(seed, device))
    assert torch.equal(first, dropout(x, 0.2, dropout_generator(seed, device)))
    assert not torch.equal(first, dropout(x, 0.2, dropout_generator(seed + 1, device)))
    assert set(first.tolist()) == {0.0, 1.25}
    assert first.mean().item() == pytest.approx(1, abs=0.02)
    assert dropout(x, 0.2, None) is x


@pytest.mark.parametrize("positions", [0, 7])
def test_an_embedding_goes_on_where_it_is_told(positions: int):
    embed = with_weights(lambda: Embedder(9, 8, positions=positions, dropout=0.0), 0)
    pieces = torch.tensor([[1, 2, 3, 4, 5]])
    torch.testing.assert_close(embed(pieces[:, 3:], start=3), embed(pieces)[:, 3:])
    assert not torch.allclose(embed(pieces[:, 3:]), embed(pieces)[:, 3:])


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(10, 6, torch.device("cpu"))
    angle = torch.tensor(7 / 10_000 ** (2 / 6))
    torch.testing.assert_close(table[7, 2:4], torch.stack([angle.sin(), angle.cos()]))
