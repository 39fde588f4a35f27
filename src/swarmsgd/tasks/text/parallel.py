"""Pairs of files whose lines match: where they are, and what is in them, pair by pair.

A file is read from its beginning and never held in memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from swarmsgd.errors import DataError
from swarmsgd.tasks.lookup import DATA_VARIABLE, cache_folder, first_with, given_folder


class Files(NamedTuple):
    """A source and its translation, plain or .gz; line i of one matches line i of the other."""

    source: Path
    target: Path


class LinePair(NamedTuple):
    """A sentence and its translation, without space around them; `line` counts from 1."""

    line: int
    source: str
    target: str

    @property
    def words(self) -> int:
        """Of the longer side."""
        return max(len(self.source.split()), len(self.target.split()))


Splits = Mapping[str, Files]
"""`train`, `test` and perhaps `valid`."""


class _Corpus(NamedTuple):
    find: Callable[[Path | None], Splits]
    help: str


_MULTI30K = {
    "train": ("train.en.gz", "train.de.gz"),
    "valid": ("val.en.gz", "val.de.gz"),
    "test": ("test_2016_flickr.en.gz", "test_2016_flickr.de.gz"),
}


def find_multi30k(data: Path | None) -> Splits:
    """Multi30k (Elliott et al. 2016, arXiv 1605.00459), English to German: 29,000 pairs to train
    on, 1,014 to validate, 1,000 to test (the Flickr set of 2016).

    It is nowhere to be had with a licence that is stated, so nothing fetches it.
    """
    names = [name for pair in _MULTI30K.values() for name in pair]
    given = given_folder(data)
    places = [] if given is None else [given / "multi30k", given]
    cached = cache_folder() / "multi30k"
    folder = first_with(names, [*places, cached])
    if folder is None:
        raise DataError(
            f"Multi30k is not on this machine: put {', '.join(names)} into {cached}, or name the "
            f"folder that has them (or has a folder multi30k with them) by --data or "
            f"{DATA_VARIABLE}; any other two files of matching lines do as well: --train-src, "
            "--train-tgt, --test-src and --test-tgt"
        )
    return {
        split: Files(folder / source, folder / target)
        for split, (source, target) in _MULTI30K.items()
    }


CORPORA = {
    "multi30k": _Corpus(find_multi30k, "29,000 captions, English to German; from --data"),
}
"""Name -> how its files are found, and a line of help."""


def read_pairs(files: Files) -> Iterator[LinePair]:
    """All pairs, in order. Raises DataError for a file that is missing, broken or not UTF-8, and at
    the end of the shorter file if one is longer.
    """
    both = zip_longest(_lines(files.source), _lines(files.target))
    for number, (source, target) in enumerate(both, 1):
        if source is None or target is None:
            longer, extra = (files.source, source) if target is None else (files.target, target)
            more = 1 + sum(1 for _ in both)
            raise _unequal(files, longer, number - 1, more, str(extra))
        yield LinePair(number, source, target)


def _unequal(files: Files, longer: Path, common: int, more: int, extra: str) -> DataError:
    counts = " and ".join(
        f"{path} has {common + more * (path == longer):,} lines" for path in files
    )
    return DataError(
        f"{counts}, wanted as many in both, each the translation of the other's; the first extra "
        f"line is line {common + 1:,} of {longer.name}: {extra[:60]!r}"
    )


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text, without space around them."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode().strip()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"line {number:,} of {path} is not UTF-8 (byte {error.start + 1} of it is "
                        f"0x{line[error.start]:02x}): convert the file, for instance with iconv"
                    ) from None
                yield text
    except FileNotFoundError:
        raise DataError(f"there is no file {path}: check the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
