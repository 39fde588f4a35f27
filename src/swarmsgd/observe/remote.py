"""Files behind URLs, by fsspec: s3://, gs://, https://, memory://, ..."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

from swarmsgd.errors import DataError


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it is no path of this machine."""
    return "://" in str(path)


def open_url(url: str) -> BinaryIO:
    """All of it, to be read. Raises DataError, or OSError if it cannot be had."""
    files, name = _found(url)
    return io.BytesIO(files.cat_file(name))


def remote_files(url: str) -> list[str]:
    """URLs of the files of records: of this one itself, or of those in this folder. Raises
    DataError.
    """
    files, name = _found(url)
    if name.endswith(".jsonl"):
        return [url]
    try:
        found = files.glob(f"{name.rstrip('/')}/*.jsonl")
    except OSError as error:
        raise DataError(f"cannot look into {url}: {error}") from None
    return sorted(map(files.unstrip_protocol, found))


def _found(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the name in it."""
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(
            f"{url} cannot be opened: {error}. Install fsspec and the package for this kind of "
            "address: pip install 'swarmsgd[remote]'"
        ) from None
