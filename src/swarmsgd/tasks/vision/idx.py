"""The idx files of MNIST and its kin, gzipped: a header of known size, then bytes."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmsgd.errors import DataError


class IdxFile(NamedTuple):
    """A file that is known beforehand; `sha256` is of its unpacked bytes.

    Of the unpacked bytes, because distributors pack the same file anew.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str


def read_idx(folder: Path, file: IdxFile) -> NDArray[np.uint8]:
    """The array in ``folder/file.name``, checked; DataError if it is not exactly that file."""
    path = folder / file.name
    header = 4 * (1 + len(file.shape))  # the type and the number of dimensions, then each of them
    size = header + math.prod(file.shape)
    try:
        with gzip.open(path) as packed:
            raw = packed.read(size + 1)  # no more, however long it unpacks
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, f"it cannot be unpacked ({error})") from error
    if (got := hashlib.sha256(raw).hexdigest()) != file.sha256:
        more = "at least " if len(raw) > size else ""
        raise _broken(
            path,
            f"it unpacks to {more}{len(raw):,} bytes with sha256 {got}, "
            f"wanted {size:,} with {file.sha256}",
        )
    return np.frombuffer(bytearray(raw), np.uint8, offset=header).reshape(file.shape)


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be used: {why}. Delete it, or the folder it is in, and run again "
        "to have it fetched anew"
    )
