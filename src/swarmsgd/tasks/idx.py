"""The idx file format of MNIST and its kin, gzipped."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swarmsgd.errors import DataError

_UINT8 = 8
_GZIP = 31  # zlib's code for "a gzip header must be there"


class IdxFile(NamedTuple):
    """A file that is known beforehand; `sha256` is of its unpacked bytes.

    Of the unpacked bytes, because distributors pack the same file anew.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def header(self) -> bytes:
        """Two zeros, the type, the number of dimensions, then each dimension, big-endian."""
        dims = len(self.shape)
        return struct.pack(f">HBB{dims}I", 0, _UINT8, dims, *self.shape)

    @property
    def size(self) -> int:
        return len(self.header) + math.prod(self.shape)


def read_idx(folder: Path, file: IdxFile) -> NDArray[np.uint8]:
    """The array in ``folder/file.name``, checked; DataError if it is not exactly that file."""
    path = folder / file.name
    raw, whole = _unpack(path, file)
    if raw[: len(file.header)] != file.header[: len(raw)]:
        raise _broken(
            path,
            f"it begins with {raw[: len(file.header)].hex()}, wanted {file.header.hex()} "
            f"(idx, bytes, shape {file.shape})",
        )
    if not whole or len(raw) != file.size:
        more = "at least " if len(raw) > file.size else ""
        raise _broken(
            path,
            f"its {path.stat().st_size:,} bytes unpack to {more}{len(raw):,} bytes, "
            f"wanted {file.size:,}",
        )
    if (got := hashlib.sha256(raw).hexdigest()) != file.sha256:
        raise _broken(path, f"its unpacked bytes have sha256 {got}, wanted {file.sha256}")
    return np.frombuffer(bytearray(raw), np.uint8, offset=len(file.header)).reshape(file.shape)


def _unpack(path: Path, file: IdxFile) -> tuple[bytes, bool]:
    """At most one byte more than wanted, and whether the gzip stream came to its end."""
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise _broken(path, f"it cannot be read ({error.strerror})") from error
    stream = zlib.decompressobj(wbits=_GZIP)
    try:
        raw = stream.decompress(packed, file.size + 1)
    except zlib.error as error:
        raise _broken(
            path, f"its {len(packed):,} bytes are not a gzip file that unpacks ({error})"
        ) from error
    return raw, stream.eof


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be used: {why}. Delete it, or the folder it is in, and run again "
        "to have it fetched anew"
    )
