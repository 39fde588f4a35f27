"""A parallel corpus as numbers on disk: encoded once, then read by index from there.

A folder in the cache holds for each split and side the pieces of all sentences end to end
(``train.source.ids``, uint16) and where each ends (``train.source.ends.npy``, int64), besides the
vocabulary (``pieces.model``) and the references of those splits that are translated
(``valid.txt``, ``test.txt``). Its name is a digest of all that goes into it, so that another
vocabulary or a changed file make another folder. However large the corpus is, memory holds the ends
and the lengths of its sentences.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmsgd.errors import DataError
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.lookup import cache_folder, install
from swarmsgd.tasks.text.parallel import Files, LinePair, Splits, read_pairs
from swarmsgd.tasks.text.pieces import learn, processor

VOCABULARY_FILE = "pieces.model"
LEARN_FROM = 500_000
"""At most so many pairs, spread evenly over the corpus, are what pieces are learnt from."""

_AT_A_TIME = 10_000
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What becomes of the text."""

    vocabulary: int
    max_pieces: int
    max_words: int
    """0: no limit."""
    pairs: int
    """0: all."""


class Sentences:
    """Encoded sentences, read from disk as they are asked for."""

    def __init__(self, stem: Path) -> None:
        ends = np.load(f"{stem}.ends.npy")
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        self._ids = np.memmap(f"{stem}.ids", dtype=np.uint16, mode="r")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        return self._ids[self._starts[index] : self._starts[index + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """In pieces."""
        return np.diff(self._starts)


class Bitext(NamedTuple):
    """Sentence i of one side is the translation of that of the other."""

    source: Sentences
    target: Sentences


def encoded(splits: Splits, encoding: Encoding, notify: Notify) -> Path:
    """The folder of the corpus; made now if it is not in the cache. Raises DataError for a file
    that cannot be used, ConfigError for a vocabulary that does not fit the text.
    """
    folder = cache_folder() / "text" / _digest(splits, encoding)
    if not folder.exists():
        install(folder, lambda path: _build(path, splits, encoding, notify))
    return folder


def bitext(folder: Path, split: str) -> Bitext:
    """A split of an encoded corpus."""
    return Bitext(Sentences(folder / f"{split}.source"), Sentences(folder / f"{split}.target"))


def references(folder: Path, split: str) -> list[str]:
    """The translations of a split as they were written."""
    return (folder / f"{split}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def _digest(splits: Splits, encoding: Encoding) -> str:
    files = [(split, path) for split, pair in sorted(splits.items()) for path in pair]
    try:
        stats = [(path, path.stat()) for _, path in files]
    except OSError as error:
        raise DataError(f"there is no file {error.filename}: check the path") from None
    content = [
        _FORMAT,
        vars(encoding),
        [split for split, _ in files],
        [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in stats],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _build(folder: Path, splits: Splits, encoding: Encoding, notify: Notify) -> None:
    folder.mkdir()
    train = _Training(splits["train"], encoding)
    count = sum(1 for _ in train.pairs())  # whatever is wrong with the files shows now
    if not count:
        raise DataError(f"there is no pair to train on in {splits['train'].source}: {train.said()}")
    for split in splits.keys() - {"train"}:
        _write_references(folder / f"{split}.txt", _scored(split, splits[split], encoding))
    notify(f"learning {encoding.vocabulary:,} pieces from {count:,} pairs, once; then it is cached")
    every = -(-count // LEARN_FROM)
    sample = islice(train.pairs(), 0, None, every)
    model = learn((text for pair in sample for text in pair[1:]), encoding.vocabulary)
    (folder / VOCABULARY_FILE).write_bytes(model)
    encoder = _Encoder(model, encoding.max_pieces)
    left_out = encoder.write(folder / "train", train.pairs(), leave_out=True)
    if left_out == count:
        raise DataError(
            f"all {count:,} pairs to train on have more than {encoding.max_pieces} pieces: "
            "raise max_pieces"
        )
    if why := train.said(left_out):
        notify(f"{count - left_out:,} pairs to train on; left out: {why}")
    for split in splits.keys() - {"train"}:
        pairs = _scored(split, splits[split], encoding)
        if cut := encoder.write(folder / split, pairs, leave_out=False):
            notify(
                f"{split}: {cut:,} pairs are longer than {encoding.max_pieces} pieces; they are "
                "translated and scored up to there"
            )


class _Training:
    """The pairs to train on, and how many are not."""

    def __init__(self, files: Files, encoding: Encoding) -> None:
        self.files, self.encoding = files, encoding
        self.empty = self.wordy = 0

    def pairs(self) -> Iterator[LinePair]:
        kept = self._kept()
        return islice(kept, self.encoding.pairs) if self.encoding.pairs else kept

    def _kept(self) -> Iterator[LinePair]:
        self.empty = self.wordy = 0
        for pair in read_pairs(self.files):
            if not (pair.source and pair.target):
                self.empty += 1
            elif self.encoding.max_words and pair.words > self.encoding.max_words:
                self.wordy += 1
            else:
                yield pair

    def said(self, too_long: int = 0) -> str:
        """What was left out of the last `pairs`, and why."""
        reasons = [
            (self.empty, "with an empty line"),
            (self.wordy, f"of more than {self.encoding.max_words} words"),
            (too_long, f"of more than {self.encoding.max_pieces} pieces"),
        ]
        return ", ".join(f"{count:,} {why}" for count, why in reasons if count)


def _scored(split: str, files: Files, encoding: Encoding) -> Iterator[LinePair]:
    """The pairs of a split that is scored. An empty line among them is refused: it would change
    the score unseen.
    """
    none = True
    for pair in read_pairs(files):
        for path, text in zip(files, pair[1:], strict=True):
            if not text:
                raise DataError(
                    f"line {pair.line:,} of {path} is empty, and {split} pairs are all scored: "
                    "remove the line from both files"
                )
        if not encoding.max_words or pair.words <= encoding.max_words:
            none = False
            yield pair
    if none:
        raise DataError(f"there is no {split} pair in {files.source} that max_words lets pass")


def _write_references(path: Path, pairs: Iterator[LinePair]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{pair.target}\n" for pair in pairs)


class _Encoder:
    def __init__(self, model: bytes, max_pieces: int) -> None:
        self.processor = processor(model)
        self.max_pieces = max_pieces

    def write(self, stem: Path, pairs: Iterator[LinePair], *, leave_out: bool) -> int:
        """Encode pairs into files; how many were longer than the limit, which are left out or cut
        to it.
        """
        too_long = 0
        ends = array("q"), array("q")
        with ExitStack() as stack:
            files = [
                stack.enter_context(Path(f"{stem}.{side}.ids").open("wb"))
                for side in Bitext._fields
            ]
            while chunk := list(islice(pairs, _AT_A_TIME)):
                sides = [
                    self.processor.encode([getattr(pair, side) for pair in chunk], num_threads=1)
                    for side in Bitext._fields
                ]
                for both in zip(*sides, strict=True):
                    if max(map(len, both)) > self.max_pieces:
                        too_long += 1
                        if leave_out:
                            continue
                    for file, at, ids in zip(files, ends, both, strict=True):
                        cut = np.array(ids[: self.max_pieces], np.uint16)
                        file.write(cut.tobytes())
                        at.append((at[-1] if at else 0) + len(cut))
        for side, at in zip(Bitext._fields, ends, strict=True):
            np.save(f"{stem}.{side}.ends.npy", np.array(at, np.int64))
        return too_long
