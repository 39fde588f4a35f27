"""Where checkpoints lie: a local folder, or whatever `fsspec` opens (s3://, gs://, memory://, ...).

A file appears whole or not at all, under a name of its own: it is written beside, then renamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from swarmsgd.errors import ConfigError, DataError

_NAME = re.compile(r"era-(\d+)-nodes-(\d+)/node-(\d+)-step-(\d+)\.safetensors")


class Entry(NamedTuple):
    """One node's checkpoint, as its name says it.

    An *era* is the time for which a run has the same nodes: it grows when the run goes on with
    another number of them.
    """

    era: int
    nodes: int
    """How many the run had."""
    rank: int
    steps: int
    """Local steps that this node had made."""

    @property
    def name(self) -> str:
        """Path within the folder."""
        return (
            f"era-{self.era}-nodes-{self.nodes}/node-{self.rank}-step-{self.steps:08d}.safetensors"
        )

    @property
    def unfinished(self) -> str:
        """Where it is written: one name for a node, so that a kill leaves one such file at most."""
        return f"era-{self.era}-nodes-{self.nodes}/.node-{self.rank}.unfinished"

    @classmethod
    def of(cls, name: str) -> Entry | None:
        """From a path within the folder; None for one that is no checkpoint's."""
        match = _NAME.fullmatch(name)
        return None if match is None else cls(*map(int, match.groups()))


class FileStore(Protocol):
    """A place for files. Every method may raise OSError."""

    where: str
    """The same text for the same place."""

    def names(self) -> list[str]:
        """Paths of the files in it, relative to it; none if it is not there."""
        ...

    def fetch(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local file with the contents of `name`, to be opened within the block."""
        ...

    def put(self, name: str, beside: str, write: Callable[[BinaryIO], None]) -> None:
        """Let `write` write `beside`, then let that be `name`."""
        ...

    def remove(self, name: str) -> None: ...


class Folder:
    """The checkpoints of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._files: FileStore = _files(path)
        self.where = self._files.where

    def entries(self) -> list[Entry]:
        """All that are there, in order. Raises DataError if the place cannot be read."""
        try:
            names = self._files.names()
        except OSError as error:
            raise DataError(f"{self.where} cannot be read: {_reason(error)}") from None
        return sorted(entry for name in names if (entry := Entry.of(name)) is not None)

    @contextlib.contextmanager
    def fetch(self, entry: Entry) -> Iterator[tuple[Path, str]]:
        """A local file, to be opened within the block, and the name for errors."""
        where = f"{self.where}/{entry.name}"
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(self._files.fetch(entry.name))
            except OSError as error:
                raise DataError(f"{where} cannot be read: {_reason(error)}") from None
            yield path, where

    def put(self, entry: Entry, write: Callable[[BinaryIO], None], keep: int) -> None:
        """Write a checkpoint; then leave this node the newest `keep` of this era, of those that are
        not ahead of it: a run that went back has no use for what it gave up.

        Raises DataError, with all former checkpoints as they were, if it cannot be written.
        """
        try:
            self._files.put(entry.name, entry.unfinished, write)
            mine = [e for e in self.entries() if e[:3] == entry[:3]]
            kept = [e for e in mine if e.steps <= entry.steps][-keep:]
            for old in set(mine) - set(kept):
                self._files.remove(old.name)
        except OSError as error:
            raise DataError(
                f"{self.where}/{entry.name} could not be written: {_reason(error)}. The former "
                "checkpoint is as it was. Make room, or save to another folder"
            ) from None


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _files(path: str | os.PathLike[str]) -> FileStore:
    text = os.fspath(path)
    if "://" in text and not text.startswith("file://"):
        return _Remote(text)
    return _Local(Path(text.removeprefix("file://")))


class _Local:
    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()
        self.where = str(self._path)
        if self._path.exists() and not self._path.is_dir():
            raise ConfigError(
                f"{path} is a file: checkpoints want a folder, one for each run, in which each "
                "node has files of its own"
            )

    def names(self) -> list[str]:
        return [
            path.relative_to(self._path).as_posix()
            for path in self._path.glob("*/*")
            if path.is_file()
        ]

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        yield self._path / name

    def put(self, name: str, beside: str, write: Callable[[BinaryIO], None]) -> None:
        target, unfinished = self._path / name, self._path / beside
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """So that the new name outlives a loss of power; not all file systems can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Remote:
    """By fsspec. Moving an object is a copy on the server's side, which shows it whole at once."""

    def __init__(self, url: str) -> None:
        self.where = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            self._fs, root = url_to_fs(self.where)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{url} cannot be opened: {error}. Install fsspec and the package for this kind of "
                "place (s3fs for s3://, gcsfs for gs://), or use a local folder"
            ) from None
        self._fs: Any
        self._root = str(root).rstrip("/")

    def names(self) -> list[str]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._root)
        except FileNotFoundError:
            return []
        return [str(name).removeprefix(f"{self._root}/") for name in found]

    @contextlib.contextmanager
    def fetch(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "fetched.safetensors"
            self._fs.get_file(f"{self._root}/{name}", str(path))
            yield path

    def put(self, name: str, beside: str, write: Callable[[BinaryIO], None]) -> None:
        target, unfinished = f"{self._root}/{name}", f"{self._root}/{beside}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        with self._fs.open(unfinished, "wb") as file:
            write(file)
        self._fs.mv(unfinished, target)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")
