"""CIFAR-10: Krizhevsky 2009, "Learning multiple layers of features from tiny images".

50,000 training and 10,000 test images, 32x32 RGB, 10 classes. Read from the standard folder
``cifar-10-batches-py``, whose files are pickles: a pickle can run any code when it is loaded, so
these are read by an unpickler that knows arrays and plain containers and nothing else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmsgd.errors import DataError
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.http import download
from swarmsgd.tasks.lookup import (
    DATA_VARIABLE,
    Arrays,
    Source,
    cache_folder,
    fetch_into,
    first_with,
    given_folder,
)

FOLDER = "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]
TEST_FILE = "test_batch"
ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

# What a pickled array refers to, by the names of old and of new numpy.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def load_cifar10(
    data: Path | None, notify: Notify, sources: Sequence[Source] | None = None
) -> Arrays:
    """Arrays train_images ``[50000, 3, 32, 32]``, train_labels, test_images, test_labels."""
    given = given_folder(data)
    places = [] if given is None else [given, given / FOLDER]
    cached = cache_folder() / FOLDER
    moves = [
        f"unpack {ARCHIVE} into {cached.parent}",
        f"name the folder that has {FOLDER} by --data or {DATA_VARIABLE}",
        "use the data set 'fashion-mnist' or 'digits'",
    ]
    folder = first_with([*TRAIN_FILES, TEST_FILE], [*places, cached]) or fetch_into(
        cached, _SOURCES if sources is None else sources, _read, notify,
        what="CIFAR-10", moves=moves,
    )  # fmt: skip
    return _read(folder)


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]`` of one batch file; DataError if it is not."""
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        raise _broken(path, f"it cannot be read: {error}") from error
    match content:
        case {b"data": np.ndarray() as pixels, b"labels": list() as labels}:
            pass
        case _:
            raise _broken(path, "it does not hold a dictionary with b'data' and b'labels'")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072) or not labels:
        raise _broken(
            path,
            f"its data are {pixels.dtype} of shape {pixels.shape} for {len(labels)} labels, "
            f"wanted uint8 of shape ({len(labels)}, 3072)",
        )
    if not all(isinstance(label, int) and 0 <= label <= 9 for label in labels):
        raise _broken(path, "its labels are not all integers from 0 to 9")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, bytes, strings, numbers, lists and dictionaries; refuses all else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) in _ALLOWED:
            return _ALLOWED[module_name, global_name]
        raise pickle.UnpicklingError(
            f"it asks for {module_name}.{global_name}, which no data set needs"
        )


def _read(folder: Path) -> Arrays:
    images, labels = zip(*(read_batch(folder / name) for name in TRAIN_FILES), strict=True)
    test_images, test_labels = read_batch(folder / TEST_FILE)
    return {
        "train_images": np.concatenate(images),
        "train_labels": np.concatenate(labels),
        "test_images": test_images,
        "test_labels": test_labels,
    }


def _from_authors(folder: Path, notify: Notify) -> None:
    archive = folder.with_suffix(".tar.gz")
    download(ARCHIVE, archive, notify, sha256=ARCHIVE_SHA256)
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for name in [*TRAIN_FILES, TEST_FILE]:
            if member := tar.extractfile(f"{FOLDER}/{name}"):
                (folder / name).write_bytes(member.read())


_SOURCES = [Source("its authors", _from_authors)]


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be used: {why}. Get CIFAR-10 anew from {ARCHIVE}")
