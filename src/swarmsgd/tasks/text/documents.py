"""Text files as documents."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmsgd.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")
"""Of the files that are read in a folder and those below it."""

_CHUNK = 1 << 20
_MAPPED_FROM = 1 << 26
"""Bytes from which on a file stays on the disk and is read where it is needed."""


class Document(NamedTuple):
    """A text: its name, and its UTF-8 bytes, uint8 ``[N]``."""

    name: str
    content: NDArray[np.uint8]


def read_documents(path: Path) -> list[Document]:
    """The file, or each text file of the folder and of those below it, ordered by name.

    Files without text are left out. Raises DataError if nothing is there, if no file has text, or
    for a file that is not UTF-8.
    """
    path = path.expanduser()
    if path.is_file():
        documents = [_read(path, path.name)]
    elif path.is_dir():
        # By the parts of the name, so that the files of a folder are neighbours.
        found = sorted(p.relative_to(path).parts for p in path.rglob("*") if _is_text(p))
        if not found:
            raise DataError(f"{path} has no file that ends in {', '.join(TEXT_SUFFIXES)}")
        documents = [_read(path.joinpath(*parts), "/".join(parts)) for parts in found]
    else:
        raise DataError(f"there is no text at {path}; name a UTF-8 text file or a folder of them")
    documents = [document for document in documents if len(document.content)]
    if not documents:
        raise DataError(f"{path} is empty; name a UTF-8 text file or a folder of them")
    return documents


def _is_text(path: Path) -> bool:
    return path.suffix.lower() in TEXT_SUFFIXES and path.is_file()


def _read(path: Path, name: str) -> Document:
    try:
        _check_utf8(path)
        if path.stat().st_size >= _MAPPED_FROM:
            return Document(name, np.memmap(path, dtype=np.uint8, mode="r"))
        return Document(name, np.fromfile(path, dtype=np.uint8))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _check_utf8(path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    before, lines = 0, 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            held = len(decoder.getstate()[0])  # of a character that the last chunk cut
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # `start` counts from the bytes that were held back.
                line = lines + chunk[: max(0, error.start - held)].count(b"\n") + 1
                raise DataError(
                    f"{path} is not UTF-8: line {line:,}, byte {before - held + error.start:,}: "
                    f"{error.reason}; convert it, for instance by iconv -t utf-8"
                ) from None
            if not chunk:
                return
            before, lines = before + len(chunk), lines + chunk.count(b"\n")
