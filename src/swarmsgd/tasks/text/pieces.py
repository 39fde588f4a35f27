"""Byte pair encoding (Sennrich et al. 2016) of both languages together, by sentencepiece."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from swarmsgd.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

PAD, BEGIN, END, UNKNOWN = range(4)
"""The pieces that are no text; BEGIN stands in front of a target only."""

COVERED = 0.9999
"""Share of the text's characters that get a piece; the rarest others are UNKNOWN."""


def learn(sentences: Iterator[str], vocabulary: int) -> bytes:
    """A model of `vocabulary` pieces, as sentencepiece keeps it in a file; the same for the same
    sentences. Raises ConfigError where the text has not so many, or needs more.
    """
    sp = sentencepiece()
    model = io.BytesIO()
    try:
        sp.SentencePieceTrainer.train(
            sentence_iterator=sentences,
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary,
            character_coverage=COVERED,
            pad_id=PAD,
            bos_id=BEGIN,
            eos_id=END,
            unk_id=UNKNOWN,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(str(error), vocabulary) from None
    return model.getvalue()


def processor(model: bytes) -> SentencePieceProcessor:
    """What encodes and decodes by a model of `learn`."""
    return sentencepiece().SentencePieceProcessor(model_proto=model)


def sentencepiece():
    """The package; DataError if it is not there."""
    try:
        import sentencepiece as package
    except ImportError:
        raise DataError(
            "text needs the package sentencepiece; install it by: pip install 'swarmsgd[text]'"
        ) from None
    return package


def _explained(complaint: str, vocabulary: int) -> Exception:
    """What sentencepiece says, as an error of this package."""
    if most := re.search(r"set it to a value <= (\d+)", complaint):
        return ConfigError(
            f"vocabulary is {vocabulary:,}, but the training text has only {int(most[1]):,} "
            "different pieces: give so many or fewer"
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", complaint):
        return ConfigError(
            f"vocabulary is {vocabulary:,}, but the characters of the training text alone are "
            f"{int(least[1]):,}: give more"
        )
    return DataError(f"sentencepiece cannot learn pieces from the training text: {complaint}")
