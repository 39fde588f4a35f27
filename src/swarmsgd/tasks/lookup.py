"""Where data sets lie, and how they get there.

A data set is looked for in this order, and the first place that has any of its files is used:

1. the folder given (``--data``, or else the variable SWARMSGD_DATA), and there also in a folder
   of the data set's own name;
2. the folder of the system's package, where there is one
   (Debian's dataset-fashion-mnist: ``/usr/share/datasets/fashion-mnist``);
3. the cache, ``$XDG_CACHE_HOME/swarmsgd`` or else ``~/.cache/swarmsgd`` (see `swarmsgd.caches`).

If none has it, it is fetched into the cache, from the first source that works:

4. the system's package by apt-get, if apt knows it already (Debian, Ubuntu; no root needed);
5. its authors' server, over HTTP, with checksums;
6. the system's package by apt-get, after getting package lists into a folder of our own.

Fetching costs a few seconds. Where nothing can be fetched a DataError says what to install or where
to put the files: at once without a network, within a few minutes if the network swallows packets
(every wait has a limit, but there are several addresses to wait for).

Any number of processes may do this at once: each fetches into a folder of its own, and renames it
when it is complete and checked. A launcher that loads the data before it starts its processes
spares them the work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from swarmsgd import caches
from swarmsgd.errors import ConfigError, DataError
from swarmsgd.tasks.base import Notify

DATA_VARIABLE = "SWARMSGD_DATA"

Arrays = dict[str, NDArray[Any]]
"""A data set: train_images, train_labels, test_images, test_labels."""


def given_folder(data: Path | None) -> Path | None:
    """The folder the user named, by argument or by SWARMSGD_DATA; ConfigError if it is none."""
    source = "the data folder"
    if data is None and (named := os.environ.get(DATA_VARIABLE)):
        data, source = Path(named), DATA_VARIABLE
    if data is None:
        return None
    data = data.expanduser()
    if not data.is_dir():
        raise ConfigError(f"{source} is {str(data)!r}, which is not a folder; create it or fix it")
    return data


def cache_folder() -> Path:
    """Where fetched and decoded data are kept between runs; may not exist yet."""
    return caches.cache().folder


def first_with(files: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """The first folder that has any of the files, so that a missing one is noticed, not hidden."""
    for folder in folders:
        if any((folder / name).exists() for name in files):
            return folder
    return None


def install(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make `target` (a file or a folder) by ``fill(path)``: completely or not at all.

    `fill` writes to a path in a folder of its own on the same disk, which is then renamed. If
    another process was faster, its result stays.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    except OSError as error:
        raise DataError(
            f"cannot write to the cache {target.parent}: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    try:
        fill(work / target.name)
        try:
            (work / target.name).rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


class Source(NamedTuple):
    """One way to fetch a data set: `fill` makes the folder it is given, or raises DataError."""

    name: str
    fill: Callable[[Path, Notify], None]


def fetch_into(
    target: Path,
    sources: Sequence[Source],
    check: Callable[[Path], object],
    notify: Notify,
    *,
    what: str,
    moves: Sequence[str],
) -> Path:
    """Install `target` from the first source that works and passes `check`.

    If none does, the DataError says why, a line for each, and what the user can do: `moves`.
    """
    failures: list[str] = []
    for source in sources:

        def fill(folder: Path, source: Source = source) -> None:
            source.fill(folder, notify)
            check(folder)

        try:
            install(target, fill)
        except (DataError, OSError) as error:
            failures.append(f"{source.name}: {error}")
            notify(f"{target.name}: not from {source.name}: {error}")
        else:
            notify(f"{target.name}: fetched from {source.name} into {target}")
            break
    if not target.exists():
        head = f"{what} is not on this machine and could not be fetched:"
        tried, next_moves = (
            "".join(f"\n  - {line}" for line in part) for part in (failures, moves)
        )
        raise DataError(f"{head}{tried}\nDo one of these:{next_moves}")
    return target
