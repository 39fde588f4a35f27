"""Translating: the likeliest piece at every place, or a search that keeps several beginnings.

Shapes: B sentences, S pieces of source, K beams. Rows of a decoder's batch are sentence by
sentence, its beams next to each other. Sentences that are done leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swarmsgd.tasks.text.batches import sources
from swarmsgd.tasks.text.blocks import Cache
from swarmsgd.tasks.text.pieces import BEGIN, END, PAD
from swarmsgd.tasks.text.transformer import Translator

LENGTH_EXPONENT = 0.6
"""A hypothesis of L pieces scores log p / ((5 + L) / 6) ** 0.6: Wu et al. 2016 (arXiv 1609.08144),
equation 14. Without it short ones win.
"""

ROWS = 256
"""Of a decoder's batch, beams counted."""

NEVER = -torch.inf


def translate(
    model: Translator, sentences: Sequence[NDArray[np.uint16]], *, beam: int
) -> list[list[int]]:
    """The pieces of each translation, without BEGIN and END. Sentences of like length are decoded
    together; one may become twice as long as its source and 10 pieces.
    """
    device = model.embed.weight.device
    order = np.argsort([len(s) for s in sentences], kind="stable")
    found: dict[int, list[int]] = {}
    size = max(1, ROWS // beam)
    for begin in range(0, len(order), size):
        rows = order[begin : begin + size].tolist()
        source = sources([sentences[i] for i in rows]).to(device)
        limits = (2 * (source != PAD).sum(1) + 8).tolist()  # END is no piece of the source's
        search = greedy(model, source, limits) if beam == 1 else beams(model, source, limits, beam)
        found |= zip(rows, search, strict=True)
    return [found[i] for i in range(len(sentences))]


class _Decoder:
    """A model that is asked for one piece after another."""

    def __init__(self, model: Translator, source: Tensor) -> None:
        self.model = model
        self.memory = model.encode(source)
        self.caches = [Cache() for _ in model.decoder]
        self.position = 0

    def logits(self, last: Tensor) -> Tensor:
        """Of the next piece of each row, ``[rows, V]``, after its last one, ``[rows]``."""
        hidden = self.model.decode(
            last[:, None], self.memory, caches=self.caches, start=self.position
        )
        self.position += 1
        logits = hidden[:, 0] @ self.model.embed.weight.T
        logits[:, PAD] = logits[:, BEGIN] = NEVER
        return logits

    def select_rows(self, rows: Tensor) -> None:
        for cache in self.caches:
            cache.select(rows)

    def select_sentences(self, sentences: Tensor) -> None:
        self.memory = self.memory.select(sentences)


def greedy(model: Translator, source: Tensor, limits: Sequence[int]) -> list[list[int]]:
    """The likeliest piece at every place, for sources ``[B, S]``."""
    decoder = _Decoder(model, source)
    found: list[list[int]] = [[] for _ in limits]
    alive = list(range(len(limits)))
    last = torch.full((len(alive),), BEGIN, device=source.device)
    while alive:
        last = decoder.logits(last).argmax(1)
        stay = []
        for row, (sentence, piece) in enumerate(zip(alive, last.tolist(), strict=True)):
            if piece != END:
                found[sentence].append(piece)
                if len(found[sentence]) < limits[sentence]:
                    stay.append(row)
        if len(stay) < len(alive):
            alive = [alive[row] for row in stay]
            rows = torch.tensor(stay, dtype=torch.int64, device=source.device)
            last = last[rows]
            decoder.select_rows(rows)
            decoder.select_sentences(rows)
    return found


class _Hypothesis(NamedTuple):
    score: float
    pieces: list[int]


def normalised(log_p: float, length: int) -> float:
    """The score of a hypothesis of `length` pieces, END among them."""
    return log_p / ((5 + length) / 6) ** LENGTH_EXPONENT


def beams(model: Translator, source: Tensor, limits: Sequence[int], beam: int) -> list[list[int]]:
    """The best that a search with `beam` open hypotheses ends with, for sources ``[B, S]``.

    A sentence is done when `beam` hypotheses have ended, or at its limit; if none has ended by then
    the best open one is taken.
    """
    decoder = _Decoder(model, source)
    ended: list[list[_Hypothesis]] = [[] for _ in limits]
    alive = list(range(len(limits)))
    # Alike at first, so only one of them counts.
    scores = torch.full((len(alive), beam), NEVER, device=source.device)
    scores[:, 0] = 0
    pieces = torch.full((len(alive), beam, 1), BEGIN, device=source.device)
    while alive:
        log_p = decoder.logits(pieces[:, :, -1].flatten()).log_softmax(1)
        vocabulary = log_p.shape[1]
        total = (scores[:, :, None] + log_p.view(*scores.shape, vocabulary)).flatten(1)
        # As many again, since up to `beam` of the best may end here.
        best, at = total.topk(min(2 * beam, total.shape[1]))
        parent, piece = at // vocabulary, at % vocabulary
        _collect(ended, alive, pieces, best, parent, piece, beam)
        scores, kept = best.masked_fill(piece == END, NEVER).topk(beam)
        parent, piece = parent.gather(1, kept), piece.gather(1, kept)
        before = pieces.gather(1, parent[:, :, None].expand(-1, -1, pieces.shape[2]))
        pieces = torch.cat([before, piece[:, :, None]], dim=2)
        length = pieces.shape[2] - 1
        stay = []
        for row, sentence in enumerate(alive):
            if len(ended[sentence]) < beam and length < limits[sentence]:
                stay.append(row)
            elif not ended[sentence]:
                ended[sentence].append(_Hypothesis(0.0, pieces[row, 0, 1:].tolist()))
        rows = torch.tensor(stay, dtype=torch.int64, device=source.device)
        if len(stay) < len(alive):
            alive = [alive[row] for row in stay]
            scores, pieces, parent = scores[rows], pieces[rows], parent[rows]
            decoder.select_sentences(rows)
        decoder.select_rows((rows[:, None] * beam + parent).flatten())
    return [max(hypotheses).pieces for hypotheses in ended]


def _collect(
    ended: list[list[_Hypothesis]],
    alive: list[int],
    pieces: Tensor,
    best: Tensor,
    parent: Tensor,
    piece: Tensor,
    beam: int,
) -> None:
    """Keep the hypotheses that end here, of the best `beam`."""
    ends = (piece == END) & (best > NEVER)
    for row, column in ends[:, :beam].nonzero().tolist():
        text = pieces[row, parent[row, column], 1:].tolist()
        score = normalised(float(best[row, column]), len(text) + 1)
        ended[alive[row]].append(_Hypothesis(score, text))
