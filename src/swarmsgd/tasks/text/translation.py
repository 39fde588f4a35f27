"""Translation on two files whose lines match, split over nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swarmsgd.checks import number, one_of, whole
from swarmsgd.errors import ConfigError, DataError
from swarmsgd.seeds import fixed
from swarmsgd.tasks.base import (
    Batch,
    Notify,
    Score,
    check_node,
    check_nodes,
    device_of,
    evaluating,
    silent,
)
from swarmsgd.tasks.partition import PARTITIONS, parse_partition
from swarmsgd.tasks.stream import node_generator
from swarmsgd.tasks.text.batches import like_length_batches, sources, targets
from swarmsgd.tasks.text.blocks import dropout_generator
from swarmsgd.tasks.text.decode import translate
from swarmsgd.tasks.text.encoded import (
    VOCABULARY_FILE,
    Bitext,
    Encoding,
    bitext,
    encoded,
    references,
)
from swarmsgd.tasks.text.parallel import CORPORA, Files, Splits
from swarmsgd.tasks.text.pieces import processor
from swarmsgd.tasks.text.transformer import SIZES, Translator, make_translator

SCORED = {"test": "the test pairs", "valid": "the validation pairs: to choose settings by"}
"""What a model may be scored on."""

_SCORE_BATCH = 200
_TRAIN_SCORE_SAMPLES = 1000
_LENGTH_CLUSTERS = 10


@dataclass(frozen=True, kw_only=True)
class TranslationOptions:
    """Settings of the translation task."""

    corpus: str = field(default="multi30k", metadata={"table": CORPORA})
    """What is translated, unless files are given: multi30k."""

    train_src: Path | None = None
    """Sentences to train on, one a line, plain or .gz; wants train_tgt, test_src, test_tgt too."""

    train_tgt: Path | None = None
    """Their translations: line i is that of line i."""

    valid_src: Path | None = None
    """Sentences to validate with, for scored valid."""

    valid_tgt: Path | None = None
    """Their translations."""

    test_src: Path | None = None
    """Sentences to test with."""

    test_tgt: Path | None = None
    """Their translations."""

    pairs: int = 0
    """Train on the first so many pairs only; 0: all."""

    max_words: int = 0
    """Leave out pairs of which a side has more words, of training and test alike; 0: none."""

    max_pieces: int = 128
    """Longest sentence of the model: longer ones are not trained on, and cut when tested."""

    vocabulary: int = 4000
    """Pieces that sentencepiece learns, of both languages together."""

    model: str = field(default="tiny", metadata={"table": SIZES})
    """Size of the Transformer: mini, tiny, small, base or big."""

    dropout: float | None = None
    """Share of the activations that are dropped in training; none: what goes with the size."""

    smoothing: float = 0.1
    """Label smoothing, in training only."""

    beam: int = 1
    """Hypotheses kept while translating; 1: the likeliest piece at every place."""

    scored: str = field(default="test", metadata={"table": SCORED})
    """What models are scored on: test or valid."""

    partition: str = field(default="iid", metadata={"table": PARTITIONS})
    """How pairs are split over nodes: iid, or dirichlet:ALPHA, by length of the source."""

    batch_size: int = 32
    """Pairs in one local step, of like length."""

    data: Path | None = None
    """Folder to look for a corpus in; default: SWARMSGD_DATA, then the cache."""

    seed: int = 0
    """Seed of the split over nodes, of the order of pairs and of dropout."""

    def __post_init__(self) -> None:
        one_of("corpus", self.corpus, CORPORA)
        one_of("model", self.model, SIZES)
        one_of("scored", self.scored, SCORED)
        parse_partition(self.partition)
        for name, least in (("pairs", 0), ("max_words", 0), ("max_pieces", 1), ("seed", 0)):
            whole(name, getattr(self, name), least)
        whole("vocabulary", self.vocabulary, 8, 1 << 16)
        whole("batch_size", self.batch_size, 1)
        whole("beam", self.beam, 1)
        number("smoothing", self.smoothing, least=0, below=1)
        if self.dropout is not None:
            number("dropout", self.dropout, least=0, below=1)
        self._check_files()

    def _check_files(self) -> None:
        for split in ("train", "valid", "test"):
            names = (f"{split}_src", f"{split}_tgt")
            given = [name for name in names if getattr(self, name) is not None]
            missing = [name for name in names if name not in given]
            if len(given) == 1:
                raise ConfigError(
                    f"{given[0]} is given without {missing[0]}: a sentence a line in one, its "
                    "translation in the same line of the other; give both"
                )
            needed = ("train", "test", self.scored)
            if missing and self._has_files and split in needed:
                raise ConfigError(
                    f"with files of your own {' and '.join(missing)} must be given too"
                )

    @property
    def _has_files(self) -> bool:
        """Whether files are given that take the corpus's place."""
        return any((self.train_src, self.valid_src, self.test_src))

    @property
    def name(self) -> str:
        """The task's name in titles."""
        corpus = self.train_src.name if self.train_src is not None else self.corpus
        return f"{corpus}/{self.model}"

    def splits(self) -> Splits:
        """The files. Raises DataError where there is no such corpus."""
        if not self._has_files:
            return CORPORA[self.corpus].find(self.data)
        given = {
            "train": (self.train_src, self.train_tgt),
            "valid": (self.valid_src, self.valid_tgt),
            "test": (self.test_src, self.test_tgt),
        }
        return {
            split: Files(source.expanduser(), target.expanduser())
            for split, (source, target) in given.items()
            if source is not None and target is not None
        }


class TranslationTask:
    """Translation; a `Task`. A batch is (source int64 ``[B, S]``, target ``[B, T + 1]``, seed of
    its dropout ``[]``), padded at the ends.

    `shards_NK` holds the training pairs of each node, by index. What a partition takes for a pair's
    label is the decile of its source's length in pieces, so dirichlet:ALPHA gives each node its own
    mix of short and long sentences.
    """

    def __init__(
        self, options: TranslationOptions, num_nodes: int, notify: Notify = silent
    ) -> None:
        check_nodes(num_nodes)
        _sacrebleu()
        self.options = options
        self.num_nodes = num_nodes
        encoding = Encoding(
            vocabulary=options.vocabulary,
            max_pieces=options.max_pieces,
            max_words=options.max_words,
            pairs=options.pairs,
        )
        folder = encoded(options.splits(), encoding, notify)
        self.vocabulary = (folder / VOCABULARY_FILE).read_bytes()
        self.train: Bitext = bitext(folder, "train")
        self.scored: Bitext = bitext(folder, options.scored)
        self.references = references(folder, options.scored)
        self.shards_NK = parse_partition(options.partition).split(
            length_clusters(self.train.source.lengths), num_nodes, options.seed
        )

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    @property
    def samples_per_epoch(self) -> int:
        return self.shards_NK.size

    def make_model(self, seed: int) -> Translator:
        options = self.options
        return make_translator(options.vocabulary, options.model, seed, dropout=options.dropout)

    def batches(self, node: int) -> Iterator[Batch]:
        check_node(node, self.num_nodes)
        return self._batches(node)

    def _batches(self, node: int) -> Iterator[Batch]:
        rng = node_generator(self.options.seed, node)
        lengths = self.train.source.lengths, self.train.target.lengths
        for chosen in like_length_batches(self.shards_NK[node], lengths, self.batch_size, rng):
            yield *_batch(self.train, chosen), torch.tensor(rng.integers(1 << 63))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of the targets' pieces, END among them, in nats; smoothed."""
        device = device_of(model)
        source, target = (part.to(device, non_blocking=True) for part in batch[:2])
        generator = dropout_generator(batch[2], device)
        return model(source, target, smoothing=self.options.smoothing, generator=generator)

    def evaluate(self, model: nn.Module) -> Score:
        """Loss (not smoothed) a piece, perplexity, and BLEU of the translations."""
        loss = self._mean_loss(model, self.scored, np.arange(len(self.references)))
        metric = _sacrebleu().BLEU()
        bleu = metric.corpus_score(self.translations(model), [self.references])
        return Score(
            loss=loss,
            samples=len(self.references),
            extra={"bleu": bleu.score, "perplexity": _perplexity(loss)},
            about=str(metric.get_signature()),
        )

    def train_score(self, model: nn.Module) -> Score:
        """Loss, not smoothed, and perplexity on 1,000 training pairs, or all if there are fewer."""
        count = len(self.train.source)
        samples = min(_TRAIN_SCORE_SAMPLES, count)
        loss = self._mean_loss(model, self.train, fixed().choice(count, samples, replace=False))
        return Score(loss=loss, samples=samples, extra={"perplexity": _perplexity(loss)})

    def translations(self, model: nn.Module) -> list[str]:
        """What the model makes of the sentences it is scored on."""
        assert isinstance(model, Translator)
        source = self.scored.source
        with evaluating(model):
            found = translate(
                model, [source[i] for i in range(len(source))], beam=self.options.beam
            )
        return processor(self.vocabulary).decode(found)

    def files(self) -> Mapping[str, bytes]:
        """The vocabulary, without which the model is of no use."""
        return {VOCABULARY_FILE: self.vocabulary}

    def _mean_loss(self, model: nn.Module, pairs: Bitext, chosen: NDArray[np.int64]) -> float:
        """Of a piece of these pairs' targets."""
        device = device_of(model)
        lengths = pairs.source.lengths[chosen], pairs.target.lengths[chosen]
        ordered = chosen[np.lexsort(lengths[::-1])]
        total = 0.0
        with evaluating(model):
            for begin in range(0, len(ordered), _SCORE_BATCH):
                part = ordered[begin : begin + _SCORE_BATCH]
                source, target = (side.to(device) for side in _batch(pairs, part))
                total += float(model(source, target)) * _pieces(pairs, part)
        return total / _pieces(pairs, chosen)


def length_clusters(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The decile of each length, 0 to 9; of many that are equal, all in one."""
    shares = np.linspace(0, 1, _LENGTH_CLUSTERS + 1)[1:-1]
    return np.searchsorted(np.quantile(lengths, shares), lengths, side="left")


def _batch(pairs: Bitext, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    indices = chosen.tolist()
    return sources([pairs.source[i] for i in indices]), targets([pairs.target[i] for i in indices])


def _pieces(pairs: Bitext, chosen: NDArray[np.int64]) -> int:
    """That are predicted: END too."""
    return int(pairs.target.lengths[chosen].sum()) + len(chosen)


def _perplexity(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def _sacrebleu():
    """The package; DataError if it is not there."""
    try:
        import sacrebleu
    except ImportError:
        raise DataError(
            "translation needs the package sacrebleu; install it by: pip install 'swarmsgd[text]'"
        ) from None
    return sacrebleu
