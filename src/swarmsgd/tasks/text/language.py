"""Predicting the next byte of a text, split over nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swarmsgd.checks import number, one_of, whole
from swarmsgd.errors import ConfigError
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
from swarmsgd.tasks.partition import PARTITIONS, Grouped, parse_partition
from swarmsgd.tasks.stream import index_batches, node_generator
from swarmsgd.tasks.text.blocks import dropout_generator, with_weights
from swarmsgd.tasks.text.corpora import TEXTS, load_corpus
from swarmsgd.tasks.text.documents import read_documents
from swarmsgd.tasks.text.gpt import GPT_SIZES, Gpt
from swarmsgd.tasks.text.windows import BYTE_VALUES, Text, cut

_SCORE_BYTES = 1 << 14
_TRAIN_SCORE_BYTES = 1 << 16
_LARGEST_EXP = 700.0
"""Beyond it exp has no float; a model that diverged is scored all the same."""


@dataclass(frozen=True, kw_only=True)
class LanguageOptions:
    """Settings of the language task."""

    corpus: str = field(default="web", metadata={"table": TEXTS})
    """web (the World English Bible) or python-docs; see `text` for one of your own."""

    text: Path | None = None
    """A UTF-8 text file, or a folder of them, to train on instead of a corpus."""

    model: str = field(default="small", metadata={"table": GPT_SIZES})
    """Size of the GPT: tiny, small, base or large."""

    context: int = 128
    """Bytes that the model sees at most, and predicts in one window."""

    dropout: float = 0.0
    """Share of what goes from layer to layer that is set to 0 in training."""

    partition: str = field(default="iid", metadata={"table": PARTITIONS})
    """How windows are split over nodes: iid, grouped (whole documents), or dirichlet:ALPHA for a
    skew over ten groups of documents."""

    batch_size: int = 4
    """Windows in one local step."""

    data: Path | None = None
    """Folder to look for the corpus in; default: SWARMSGD_DATA, the cache, the system's, then
    fetch."""

    seed: int = 0
    """Seed of the split over nodes and of the order of windows."""

    def __post_init__(self) -> None:
        one_of("corpus", self.corpus, TEXTS)
        one_of("model", self.model, GPT_SIZES)
        if self.text is not None and self.corpus != type(self).corpus:
            raise ConfigError(
                f"corpus is {self.corpus!r} and text is {str(self.text)!r}: leave one of them out"
            )
        parse_partition(self.partition)
        whole("context", self.context, 1)
        whole("batch_size", self.batch_size, 1)
        whole("seed", self.seed, 0)
        number("dropout", self.dropout, least=0, below=1)

    @property
    def name(self) -> str:
        """The task's name in titles."""
        source = self.corpus if self.text is None else self.text.stem or "text"
        return f"{source}/gpt-{self.model}"


class LanguageTask:
    """Next-byte prediction; a `Task`. A sample is a window of `text`, and a batch is (windows
    int64 ``[B, context + 1]``, seed of its dropout, int64 ``[]``).

    `shards_NK` holds the windows of each node, by number.
    """

    def __init__(self, options: LanguageOptions, num_nodes: int, notify: Notify = silent) -> None:
        check_nodes(num_nodes)
        self.options = options
        self.num_nodes = num_nodes
        self.text: Text = cut(
            load_corpus(options.corpus, options.data, notify)
            if options.text is None
            else read_documents(options.text)
        )
        self.shards_NK = self._split()

    def _split(self) -> NDArray[np.int64]:
        context = self.options.context
        if (windows := self.text.windows(context)) < self.num_nodes:
            raise ConfigError(
                f"the text has {len(self.text.train):,} bytes to train on, which is {windows:,} "
                f"windows of context {context:,} + 1 for {self.num_nodes:,} nodes, wanted one for "
                "each at least; take a longer text or a smaller context"
            )
        partition = parse_partition(self.options.partition)
        if len(self.text.starts) == 1 and self.options.partition != "iid":
            raise ConfigError(
                f"partition is {self.options.partition!r}, but the text is a single document; "
                "take partition iid, or a folder with a file for each document"
            )
        of = self.text.documents if isinstance(partition, Grouped) else self.text.groups
        return partition.split(of(context), self.num_nodes, self.options.seed)

    @property
    def name(self) -> str:
        return self.options.name

    @property
    def batch_size(self) -> int:
        return self.options.batch_size

    @property
    def samples_per_epoch(self) -> int:
        return self.shards_NK.size

    def make_model(self, seed: int) -> Gpt:
        options = self.options

        def build() -> Gpt:
            return Gpt(BYTE_VALUES, GPT_SIZES[options.model], dropout=options.dropout)

        return with_weights(build, seed)

    def batches(self, node: int) -> Iterator[Batch]:
        check_node(node, self.num_nodes)
        return self._batches(node)

    def _batches(self, node: int) -> Iterator[Batch]:
        rng = node_generator(self.options.seed, node)
        for windows in index_batches(self.shards_NK[node], self.batch_size, rng):
            seed = torch.tensor(int(rng.integers(2**63)))
            yield self.text.batch(windows, self.options.context), seed

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of a byte, in nats."""
        windows, seed = batch
        device = device_of(model)
        dropped = self.options.dropout and model.training
        return model(
            windows.to(device, non_blocking=True),
            dropout_generator(seed, device) if dropped else None,
        )

    def evaluate(self, model: nn.Module) -> Score:
        """On the whole test text; a window's first bytes are predicted from few before them."""
        context = self.options.context
        return self._score(model, self.text.test_batches(context, self._score_size))

    def train_score(self, model: nn.Module) -> Score:
        """On windows of about 2^16 bytes of the training text, or all if there are fewer."""
        context, size = self.options.context, self._score_size
        order = fixed().permutation(self.text.windows(context))
        chosen = order[: max(1, _TRAIN_SCORE_BYTES // context)]
        parts = (chosen[i : i + size] for i in range(0, len(chosen), size))
        return self._score(model, (self.text.batch(part, context) for part in parts))

    @property
    def _score_size(self) -> int:
        """Windows that are scored at a time."""
        return max(1, _SCORE_BYTES // self.options.context)

    def _score(self, model: nn.Module, batches: Iterator[Tensor]) -> Score:
        """Samples are bytes."""
        device = device_of(model)
        nats, count = 0.0, 0
        with evaluating(model):
            for windows in batches:
                predicted = windows[:, 1:].numel()
                nats += float(model(windows.to(device))) * predicted
                count += predicted
        loss = nats / count
        return Score(
            loss=loss,
            samples=count,
            extra={
                "bits_per_byte": loss / math.log(2),
                "perplexity": math.exp(min(loss, _LARGEST_EXP)),
            },
            about=f"windows of {self.options.context} end to end",
        )
