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
from swarmsgd.tasks.lookup import Source, cache_folder, fetch, first_with, given_folder

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
) -> dict[str, NDArray[Any]]:
    """Arrays train_images ``[50000, 3, 32, 32]``, train_labels, test_images, test_labels."""
    given = given_folder(data)
    places = [] if given is None else [given, given / FOLDER]
    cached = cache_folder() / FOLDER
    folder = first_with([*TRAIN_FILES, TEST_FILE], [*places, cached])
    if folder is None:
        failures = fetch(cached, SOURCES if sources is None else sources, _read, notify)
        if not cached.exists():
            raise DataError(_help(cached, failures))
        folder = cached
    return _read(folder)


def read_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]`` of one batch file; DataError if it is not."""
    content = _unpickle(path)
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
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module_name}.{global_name}, which no data set needs"
            ) from None


def _unpickle(path: Path) -> object:
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise _broken(path, f"it cannot be read ({error.strerror})") from error
    try:
        return _ArrayUnpickler(io.BytesIO(packed), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        raise _broken(path, f"its {len(packed):,} bytes do not unpickle: {error}") from error


def _read(folder: Path) -> dict[str, NDArray[Any]]:
    train = [read_batch(folder / name) for name in TRAIN_FILES]
    test = read_batch(folder / TEST_FILE)
    return {
        "train_images": np.concatenate([images for images, _ in train]),
        "train_labels": np.concatenate([labels for _, labels in train]),
        "test_images": test[0],
        "test_labels": test[1],
    }


def _from_authors(folder: Path, notify: Notify) -> None:
    archive = folder.with_name("cifar-10-python.tar.gz")
    download(ARCHIVE, archive, notify, sha256=ARCHIVE_SHA256)
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for name in [*TRAIN_FILES, TEST_FILE]:
            member = tar.extractfile(f"{FOLDER}/{name}")
            if member is None:
                raise DataError(f"{ARCHIVE} has no file {FOLDER}/{name}")
            (folder / name).write_bytes(member.read())


SOURCES = [Source("its authors", _from_authors)]


def _help(folder: Path, failures: list[str]) -> str:
    return "\n".join(
        [
            "CIFAR-10 is not on this machine and could not be fetched:",
            *(f"  - {failure}" for failure in failures),
            "Do one of these:",
            f"  - unpack {ARCHIVE} into {folder.parent}",
            f"  - name the folder that has {FOLDER} by --data or SWARMSGD_DATA",
            "  - use the data set 'fashion-mnist' or 'digits'",
        ]
    )


def _broken(path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be used: {why}. Get CIFAR-10 anew from {ARCHIVE}")
