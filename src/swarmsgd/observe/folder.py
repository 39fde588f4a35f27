"""The folder that a run writes into, and that no other run may write into meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe import output
from swarmsgd.observe.records import Recorder

try:
    import fcntl
except ImportError:  # not Unix: folders are told apart by their names alone
    fcntl = None

CONFIG = "config.json"
SUMMARY = "summary.json"
MODEL = "model.safetensors"
CURVE = "curve.jsonl"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
"""A folder in it, with the nodes' checkpoints."""
COMMAND = "command.jsonl"
"""Records of the command itself, if there is anything to say."""
OWN_FILES = (
    CONFIG, MODEL, f".{MODEL}", SUMMARY, CURVE, REPORT, COMMAND, "node-*.jsonl",
    f"{CHECKPOINTS}/*/*", "tensorboard/*",
)  # fmt: skip
"""What a run writes into its folder, and what --overwrite replaces."""
OWNER = ".owner"
"""A file in the folder, locked while a run owns it; its text says which run that is."""


class RunFolder:
    """The one folder of one run: `out`, or a new one in runs/, named `name` and the time.

    Making it checks, and creates nothing: raises ConfigError if a run cannot be written there.
    """

    def __init__(self, out: Path | None, name: str, *, overwrite: bool = False) -> None:
        self._out = out
        self._new = Path("runs") / time.strftime(f"{name}-%Y%m%d-%H%M%S")
        self._overwrite = overwrite
        if out is None:
            check_folder(self._new.parent, overwrite=True)
        else:
            _check_free(out)
            check_folder(out, overwrite=overwrite)

    @contextlib.contextmanager
    def owned(self, config_json: str, own: Iterable[str] = OWN_FILES) -> Iterator[Path]:
        """Create it, without what an earlier run left, with the run's config in it. Until the block
        ends no other run can own it. Raises ConfigError if another does, or it cannot be written
        to.
        """
        try:
            path = _make_new(self._new) if self._out is None else _make(self._out)
            lock = _lock(path)
        except OSError as error:
            raise _unwritable(self._out or self._new, error) from None
        try:
            check_folder(path, overwrite=self._overwrite)  # again: it was not ours before
            make_folder(path, config_json, own)
            yield path
            _note_lost_output(path)
        finally:
            _unlock(path, lock)


@contextlib.contextmanager
def resumed(folder: Path) -> Iterator[Path]:
    """The folder of a run that was interrupted, with all that is in it; owned until the block ends.

    Raises ConfigError if it has no such run, or another run owns it.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(f"--resume is {folder}, where no run was begun: name a run's folder")
    if (folder / MODEL).exists():
        raise ConfigError(
            f"--resume is {folder}, whose run has ended: its {MODEL} is there. Begin another run"
        )
    if not any(folder.glob(f"{CHECKPOINTS}/*/node-*")):
        raise ConfigError(
            f"--resume is {folder}, which has no checkpoints: begin the run with "
            "--checkpoint-every 500, for instance"
        )
    try:
        lock = _lock(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield folder
        _note_lost_output(folder)
    finally:
        _unlock(folder, lock)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raise ConfigError if a run cannot be written to `folder`; creates nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"--out is {folder}, but {existing} is a file: choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--out is {folder}, but {existing} cannot be written to")
    names = (path.name for path in folder.iterdir()) if existing == folder else ()
    found = sorted(name for name in names if name != OWNER)
    if found and not overwrite:
        raise ConfigError(
            f"--out is {folder}, which is not empty ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}): choose another folder, or --overwrite"
        )


def make_folder(folder: Path, config_json: str, own: Iterable[str] = OWN_FILES) -> None:
    """Create the folder, free of what an earlier run left, with the run's config in it."""
    try:
        _make(folder)
        for pattern in own:
            for path in folder.glob(pattern):
                path.unlink()
        (folder / CONFIG).write_text(config_json + "\n")
    except OSError as error:
        raise _unwritable(folder, error) from None


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_new(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that nobody else has made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    number, path = 1, folder
    while True:
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1
            path = folder.with_name(f"{folder.name}-{number}")


def _lock(folder: Path) -> int | None:
    """Lock the folder's OWNER; a descriptor, or None where files cannot be locked.

    Raises ConfigError if a live run holds the lock. A dead one's was given up with its process.
    """
    if fcntl is None:
        return None
    path = folder / OWNER
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise ConfigError(
                f"--out is {folder}, which another run is writing to ({who or 'it just began'}): "
                "choose another folder, or wait until that run has ended"
            ) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            me = f"process {os.getpid()} on {socket.gethostname()}, since "
            with contextlib.suppress(OSError):  # no room: the lock holds without a text
                os.truncate(descriptor, 0)
                os.write(descriptor, (me + time.strftime("%Y-%m-%d %H:%M:%S")).encode())
            return descriptor
        os.close(descriptor)  # its owner has just removed it: that lock keeps nobody out


def is_owned(folder: Path) -> bool:
    """Whether a live run writes into it, as far as can be told: locks are of one machine."""
    path = folder / OWNER
    if fcntl is None or not path.exists():
        return path.exists()
    with contextlib.suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def record_files(folder: Path) -> list[Path]:
    """The files of records in a run's folder, by node. Raises DataError if it is none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}: name the folder of a run")
    found = [path for path in folder.glob("*.jsonl") if path.is_file()]
    if not found:
        raise DataError(
            f"{folder} is no run's folder: it has no records (node-0.jsonl, ... or {CURVE}); name "
            "what --out named, or a folder in runs/"
        )
    return sorted(found, key=_by_number)


def check_begun(folder: Path) -> None:
    """Raise DataError if no run was begun in `folder`."""
    if not (folder / CONFIG).exists():
        record_files(folder)


def _by_number(path: Path) -> tuple[str, int]:
    match = re.search(r"\d{1,9}$", path.stem)
    return (path.stem[: match.start()], int(match[0])) if match else (path.stem, -1)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _unlock(folder: Path, lock: int | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            (folder / OWNER).unlink()  # while it is locked: nobody else's is removed
        os.close(lock)


def _note_lost_output(folder: Path) -> None:
    """Leave a record of what the command could not print so far."""
    output.settle()
    lost = output.trouble()
    if lost is not None:
        with contextlib.suppress(ConfigError), Recorder(folder / COMMAND, -1) as recorder:
            recorder.write("event", what="output", peer=None, text=lost)


def _check_free(folder: Path) -> None:
    """Raise ConfigError if a live run owns the folder."""
    if (folder / OWNER).exists() and os.access(folder / OWNER, os.W_OK):
        lock = _lock(folder)
        if lock is not None:
            os.close(lock)


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"--out is {folder}, which cannot be written to: {error.strerror or error}")
