"""Greedy and beam search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from swarmsgd.tasks.text import decode, transformer
from swarmsgd.tasks.text.batches import sources
from swarmsgd.tasks.text.pieces import BEGIN, END
from swarmsgd.tasks.text.transformer import SIZES, Translator, make_translator

VOCABULARY = 7


def model(seed: int = 0, vocabulary: int = VOCABULARY) -> Translator:
    """Untrained; its scores are spread so that no two hypotheses are alike."""
    made = make_translator(vocabulary, "mini", seed)
    with torch.no_grad():
        made.embed.weight.mul_(2)
    return made.eval()


def made_up(count: int, longest: int = 9) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        rng.integers(END + 1, VOCABULARY, rng.integers(1, longest + 1)).astype(np.uint16)
        for _ in range(count)
    ]


@torch.no_grad()
def log_p(translator: Translator, source: np.ndarray, target: list[int]) -> float:
    """Of a target with its END, all at once."""
    shares = logits(translator, source, target[:-1]).log_softmax(1)
    return float(shares[range(len(target)), target].sum())


def logits(translator: Translator, source: np.ndarray, before: list[int]) -> torch.Tensor:
    """Of the pieces after each piece of `before`, the first after none: no cache, no batch."""
    memory = translator.encode(sources([source]))
    hidden = translator.decode(torch.tensor([[BEGIN, *before]]), memory)
    found = hidden[0] @ translator.embed.weight.T
    found[:, :END] = -torch.inf
    return found


def by_hand(translator: Translator, source: np.ndarray, limit: int) -> list[int]:
    """The likeliest piece after each other, from the whole beginning every time."""
    found: list[int] = []
    while len(found) < limit:
        best = int(logits(translator, source, found)[-1].argmax())
        if best == END:
            break
        found.append(best)
    return found


@torch.no_grad()
def test_greedy_finds_what_a_search_without_cache_and_batch_finds():
    translator, texts = model(), made_up(5)
    found = decode.greedy(translator, sources(texts), [3, 4, 5, 6, 3])
    assert found == [
        by_hand(translator, *args) for args in zip(texts, [3, 4, 5, 6, 3], strict=True)
    ]
    assert len({tuple(f) for f in found}) > 1


@torch.no_grad()
def test_one_beam_is_greedy():
    translator, texts = model(1), made_up(20)
    source, limits = sources(texts), [6] * 20
    assert decode.beams(translator, source, limits, 1) == decode.greedy(translator, source, limits)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_with_enough_beams_the_best_of_all_translations_is_found(seed: int):
    translator, limit = model(seed), 3
    texts = made_up(3)
    pieces = range(END + 1, VOCABULARY)
    everything = [
        [*text, END] for length in range(limit) for text in itertools.product(pieces, repeat=length)
    ]
    found = decode.beams(translator, sources(texts), [limit] * len(texts), 100)
    for source, best in zip(texts, found, strict=True):
        scores = {
            tuple(t): decode.normalised(log_p(translator, source, t), len(t)) for t in everything
        }
        assert (*best, END) == max(scores, key=scores.__getitem__)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_translation_does_not_depend_on_its_neighbours(
    beam: int, monkeypatch: pytest.MonkeyPatch
):
    translator, texts = model(), made_up(20)
    together = decode.translate(translator, texts, beam=beam)
    monkeypatch.setattr(decode, "ROWS", 1)
    assert decode.translate(translator, texts, beam=beam) == together


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_a_translation_that_does_not_end_is_ended_by_the_length_of_its_source(
    beam: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(decode, "END", VOCABULARY + 1)
    found = decode.translate(model(), made_up(2, longest=1), beam=beam)
    assert [len(f) for f in found] == [12, 12]


def test_the_sizes_are_what_they_are_said_to_be():
    def parameters(size: str, vocabulary: int) -> int:
        with torch.device("meta"):
            made = transformer.Translator(vocabulary, SIZES[size], dropout=0.0)
        return sum(p.numel() for p in made.parameters())

    assert round(parameters("mini", 1500), -4) == 180_000
    assert parameters("tiny", 4000) == 1_175_040
    assert round(parameters("small", 4000), -5) == 6_600_000
    assert round(parameters("base", 32_000), -6) == 61_000_000
    assert round(parameters("big", 32_000), -6) == 209_000_000
