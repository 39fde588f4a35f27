"""CIFAR-10 and CIFAR-100: Krizhevsky 2009, "Learning multiple layers of features from tiny images".

Each 50,000 training and 10,000 test images, 32x32 RGB. Read from the standard folders, whose files
are pickles: a pickle can run any code when it is loaded, so these are read by an unpickler that
knows arrays and plain containers and nothing else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


class Cifar(NamedTuple):
    """What differs between the two."""

    name: str
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    labels: bytes
    """Key of the labels in each file."""
    num_classes: int
    archive: str
    checksum: str
    """Of the archive."""


CIFAR10 = Cifar(
    "CIFAR-10",
    "cifar-10-batches-py",
    tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_batch",
    b"labels",
    10,
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100 = Cifar(
    "CIFAR-100",
    "cifar-100-python",
    ("train",),
    "test",
    b"fine_labels",
    100,
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    "md5:eb9058c3a382ffc7106e4002c42a8d85",  # the authors publish this one and no other
)

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
    return _load(CIFAR10, data, notify, sources)


def load_cifar100(
    data: Path | None, notify: Notify, sources: Sequence[Source] | None = None
) -> Arrays:
    """The same for CIFAR-100, with its 100 fine labels."""
    return _load(CIFAR100, data, notify, sources)


def _load(
    cifar: Cifar, data: Path | None, notify: Notify, sources: Sequence[Source] | None
) -> Arrays:
    given = given_folder(data)
    places = [] if given is None else [given / cifar.folder, given]
    cached = cache_folder() / cifar.folder
    moves = [
        f"unpack {cifar.archive} into {cached.parent}",
        f"name the folder that has {cifar.folder} by --data or {DATA_VARIABLE}",
        "use the data set 'fashion-mnist' or 'digits'",
    ]
    if sources is None:
        sources = [Source("its authors", partial(_from_authors, cifar))]
    names = [*cifar.train_files, cifar.test_file]
    folder = first_with(names, [*places, cached]) or fetch_into(
        cached, sources, partial(_read, cifar), notify, what=cifar.name, moves=moves
    )
    return _read(cifar, folder)


def read_batch(path: Path, cifar: Cifar = CIFAR10) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``[N, 3, 32, 32]`` and labels ``[N]`` of one batch file; DataError if it is not."""
    broken = partial(_broken, cifar, path)
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        raise broken(f"it cannot be read: {error}") from error
    pixels, labels = (
        (content.get(key) for key in (b"data", cifar.labels))
        if isinstance(content, dict)
        else (None, None)
    )
    if not (isinstance(pixels, np.ndarray) and isinstance(labels, list)):
        raise broken(f"it does not hold a dictionary with {b'data'!r} and {cifar.labels!r}")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072) or not labels:
        raise broken(
            f"its data are {pixels.dtype} of shape {pixels.shape} for {len(labels)} labels, "
            f"wanted uint8 of shape ({len(labels)}, 3072)"
        )
    last = cifar.num_classes - 1
    if not all(isinstance(label, int) and 0 <= label <= last for label in labels):
        raise broken(f"its labels are not all integers from 0 to {last}")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads arrays, bytes, strings, numbers, lists and dictionaries; refuses all else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) in _ALLOWED:
            return _ALLOWED[module_name, global_name]
        raise pickle.UnpicklingError(
            f"it asks for {module_name}.{global_name}, which no data set needs"
        )


def _read(cifar: Cifar, folder: Path) -> Arrays:
    parts = [read_batch(folder / name, cifar) for name in cifar.train_files]
    images, labels = zip(*parts, strict=True)
    test_images, test_labels = read_batch(folder / cifar.test_file, cifar)
    return {
        "train_images": np.concatenate(images),
        "train_labels": np.concatenate(labels),
        "test_images": test_images,
        "test_labels": test_labels,
    }


def _from_authors(cifar: Cifar, folder: Path, notify: Notify) -> None:
    archive = folder.with_suffix(".tar.gz")
    download(cifar.archive, archive, notify, checksum=cifar.checksum)
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for name in [*cifar.train_files, cifar.test_file]:
            if member := tar.extractfile(f"{cifar.folder}/{name}"):
                (folder / name).write_bytes(member.read())


def _broken(cifar: Cifar, path: Path, why: str) -> DataError:
    return DataError(f"{path} cannot be used: {why}. Get {cifar.name} anew from {cifar.archive}")
