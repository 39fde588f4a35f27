"""The image files of a folder as data sets lie on disks: one folder a class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swarmsgd.checks import closest
from swarmsgd.errors import DataError

TRAIN, TESTS = "train", ("val", "test")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True)
class Listing:
    """Image files of one split. Names are kept as bytes in one array: there may be millions."""

    root: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    """``[N]`` names of files, each in the folder of its class."""
    labels: NDArray[np.int64]
    """``[N]`` places in `classes`."""

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> Path:
        """Where image `row` lies."""
        return self.root / self.classes[self.labels[row]] / os.fsdecode(bytes(self.names[row]))

    def part(self, rows: NDArray[np.int64]) -> Listing:
        """These images alone, in this order."""
        return Listing(self.root, self.classes, self.names[rows], self.labels[rows])


def list_folder(root: Path) -> tuple[Listing, Listing]:
    """The training and the test images below `root`, sorted by class and name, so that every
    process lists the same. Raises DataError.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name the one that has {TRAIN} and {TESTS[0]} in it")
    train = root / TRAIN
    test = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if test is None or not train.is_dir():
        missing = " or ".join(TESTS) if test is None else TRAIN
        has = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{root} has no folder {missing}, but {has}; wanted {TRAIN} and {TESTS[0]}, "
            "each with one folder a class"
        )
    classes = _classes(train)
    places = {name: place for place, name in enumerate(classes)}
    for name in _classes(test):
        if name not in places:
            raise DataError(
                f"{test} has the class {name!r}, which {train} has not{closest(name, classes)}"
            )
    return _listed(train, places, classes), _listed(test, places, _classes(test))


def _classes(split: Path) -> list[str]:
    entries = [entry for entry in os.scandir(split) if not entry.name.startswith(".")]
    if found := sorted(entry.name for entry in entries if entry.is_dir()):
        return found
    raise DataError(
        f"{split} has no folders, but {len(entries):,} files; wanted one folder a class, "
        "with the images of the class in it"
    )


def _listed(split: Path, places: Mapping[str, int], classes: list[str]) -> Listing:
    names: list[bytes] = []
    labels: list[NDArray[np.int64]] = []
    for name in classes:
        found = _images(split / name)
        names += found
        labels.append(np.full(len(found), places[name], np.int64))
    return Listing(split, tuple(places), np.array(names, np.bytes_), np.concatenate(labels))


def _images(folder: Path) -> list[bytes]:
    names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    if not names:
        raise DataError(f"{folder} is empty; put the images of the class there, or take it away")
    for name in names:
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(
                f"{folder / name} is no image by its name; take it away "
                f"(wanted {', '.join(sorted(IMAGE_SUFFIXES))})"
            )
    return [os.fsencode(name) for name in names]
