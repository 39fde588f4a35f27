"""CIFAR-10 as JPEG files of quality 75: a tenth of the size, not the same images.

Two files, ``cifar10_jpeg75_train.npz`` and ``cifar10_jpeg75_test.npz``, each with ``blob`` (the
JPEG files end to end, uint8), ``offsets`` (where each begins, and the end of the last) and
``labels``. Figures from it compare methods with each other, not with published numbers.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from swarmsgd.errors import DataError
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.lookup import (
    DATA_VARIABLE,
    Arrays,
    cache_folder,
    first_with,
    given_folder,
    install,
)

NAMES = {"train": "cifar10_jpeg75_train.npz", "test": "cifar10_jpeg75_test.npz"}


def load_cifar10_jpeg75(data: Path | None, notify: Notify) -> Arrays:
    """Arrays train_images ``[N, 3, 32, 32]``, train_labels, test_images, test_labels."""
    given = given_folder(data)
    cached = cache_folder()
    places = [] if given is None else [given, given / "cifar10-jpeg75"]
    folder = first_with(list(NAMES.values()), [*places, cached])
    if folder is None:
        raise DataError(
            f"{' and '.join(NAMES.values())} are not in {given or 'a folder given'} nor in "
            f"{cached}; name the folder they are in by --data or {DATA_VARIABLE}"
        )
    splits = {split: _decoded(folder / name, notify) for split, name in NAMES.items()}
    return {f"{split}_{key}": array for split, s in splits.items() for key, array in s.items()}


def _decoded(path: Path, notify: Notify) -> Arrays:
    """Images and labels of one file; decoded once, then kept in the cache."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); both files are wanted"
        ) from error
    # Named by the content, so a file that changed is decoded anew.
    kept = cache_folder() / "decoded" / f"{path.stem}-{digest[:16]}.npz"
    if not kept.exists():
        notify(f"{path.name}: decoding, once")
        arrays = decode_jpegs(path)
        install(kept, lambda new: np.savez(new, images=arrays["images"], labels=arrays["labels"]))
    return _load(kept, ("images", "labels"))


def decode_jpegs(path: Path) -> Arrays:
    """The images, ``[N, 3, 32, 32]`` uint8, and labels of a file of JPEGs."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "decoding JPEG images needs Pillow; install it by: pip install 'swarmsgd[tasks]'"
        ) from error
    packed = _load(path, ("blob", "offsets", "labels"))
    blob, offsets, labels = packed["blob"], packed["offsets"], packed["labels"]
    if len(offsets) != len(labels) + 1 or offsets[-1] != len(blob) or (np.diff(offsets) < 0).any():
        raise DataError(
            f"{path} is inconsistent: {len(labels):,} labels, {len(offsets):,} offsets "
            f"up to {offsets[-1]:,}, {len(blob):,} bytes of images; get it anew"
        )
    images = np.empty((len(labels), 3, 32, 32), np.uint8)
    for i, (start, end) in enumerate(pairwise(offsets)):
        try:
            with Image.open(io.BytesIO(blob[start:end].tobytes()), formats=["JPEG"]) as image:
                pixels = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise DataError(f"{path}: image {i} is not a JPEG: {error}; get it anew") from error
        if pixels.shape != (32, 32, 3):
            raise DataError(f"{path}: image {i} is {pixels.shape}, wanted 32x32; get it anew")
        images[i] = pixels.transpose(2, 0, 1)
    return {"images": images, "labels": labels.astype(np.int64)}


def _load(path: Path, keys: tuple[str, ...]) -> Arrays:
    try:
        # Opened here, because numpy leaves a file open that it cannot read.
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            return {key: arrays[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be used: {error}. It should be an npz "
            f"file with {', '.join(keys)}; delete it and get it anew"
        ) from error
