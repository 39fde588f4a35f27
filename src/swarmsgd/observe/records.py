"""What a node writes down while it runs: one JSON object a line, one file a node.

Every line has `t` (seconds since the recorder was opened), `node` and `kind`; which kinds there are
and what fields they have is in `swarmsgd.observe.schema`. The first one is of kind "file": which
version of the format follows, and when `t` was 0. A float that is not finite is written as null, so
every line is valid JSON.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.remote import is_url, open_url, remote_files

Record = dict[str, Any]
"""One line: the fields in `COMMON`, and those of its kind (`swarmsgd.observe.schema`)."""

COMMON = ("t", "node", "kind")
WRITTEN_HERE: set[Path] = set()
"""Files that recorders of this process have open."""
RECORDS_VERSION = 1
"""Of the format. A reader that finds another says so; new fields and kinds do not change it."""
FLUSH_S = 1.0
FLUSH_BYTES = 1 << 16
URGENT = frozenset({"start", "plan", "event", "eval", "result", "end"})
"""Kinds that go to the file at once: rare, and what one looks for after a crash."""
THIN_AFTER = 20_000
THINNED = {"exchange": 1 << 20, "progress": 8}
"""Kinds of which a long run writes fewer and fewer lines: each time `THIN_AFTER` lines were written
only every second of those that would have been is from then on, but one of so many at least. A week
with ten exchanges a second takes some 40 MB."""
MOST_LINE = 1 << 20
"""Bytes of a line beyond which it is no record."""

_log = logging.getLogger("swarmsgd")


class Recorder:
    """Writes one node's lines to `path`; with None it drops them.

    Lines are stamped with the seconds since `start`, by default since this was made.

    Any thread may write. Lines gather in memory and go to the file when one is written more than
    a second after the last flush, at once for the kinds in `URGENT`, and on `flush` and `close`. A
    writer never waits for another thread's flush. A file that exists is continued: a node that was
    started again adds to what it wrote before.

    Raises ConfigError if the file cannot be opened. Later failures (a full disk) never raise:
    they are logged once, the lines are lost, and `trouble` says so.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        node: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: float | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self._written_here = None if path is None else Path(path).absolute()
        self.node = node
        self.trouble: str | None = None
        """Why lines were lost, if any were."""
        self.lost_lines = 0
        self._clock = clock
        self._start = clock() if start is None else start
        self._flushed_at = clock()
        self._lines: list[bytes] = []
        self._size = 0
        self._unix_s = time.time() if clock is time.monotonic else None
        self._seen: Counter[str] = Counter()
        self._headed = False
        self._lock = threading.Lock()
        self._file_lock = threading.Lock()
        self._descriptor = None if self.path is None else _open(self.path)
        if self._written_here is not None:
            WRITTEN_HERE.add(self._written_here)

    def write(self, kind: str, /, **fields: Any) -> None:
        """Add one line. Fields may be numbers (numpy's and one-element tensors too), texts, lists,
        dicts.
        """
        if self._descriptor is None:
            return
        for name in COMMON:
            if name in fields:
                raise ConfigError(f"field {name!r} is written by the recorder: name it otherwise")
        if kind in THINNED:
            every = self._every(kind)
            if not every:
                return
            fields |= {"every": every}
        now = self._clock()
        head = {"t": round(now - self._start, 6), "node": self.node, "kind": kind}
        line = _dump(head | fields)
        with self._lock:
            if not self._headed:
                line = self._header() + line
                self._headed = True
            self._lines.append(line)
            self._size += len(line)
            due = now - self._flushed_at >= FLUSH_S or self._size >= FLUSH_BYTES or kind in URGENT
        if due and self._file_lock.acquire(blocking=False):
            try:
                self._flush(now)
            finally:
                self._file_lock.release()

    def _every(self, kind: str) -> int:
        """Of how many lines of a kind in `THINNED` the next one is written; 0: it is not."""
        with self._lock:
            self._seen[kind] += 1
            every, written = 1, THIN_AFTER  # so many lines at 1, as many at 2, at 4, ...
            while self._seen[kind] > written and every < THINNED[kind]:
                every *= 2
                written += THIN_AFTER * every
            return every if self._seen[kind] % every == 0 else 0

    def _header(self) -> bytes:
        head = {"t": 0.0, "node": self.node, "kind": "file"}
        return _dump(head | {"version": RECORDS_VERSION, "unix_s": self._unix_s})

    def flush(self) -> None:
        """Hand all lines to the system; waits for a flush that is under way."""
        with self._file_lock:
            self._flush(self._clock())

    def close(self) -> None:
        """Flush and close; later writes are dropped. May be called twice."""
        with self._file_lock:
            self._flush(self._clock())
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None and self._written_here is not None:
                os.close(descriptor)
                WRITTEN_HERE.discard(self._written_here)
                if self.lost_lines:
                    _log.warning(
                        "node %d: %d lines are missing from %s: %s",
                        self.node,
                        self.lost_lines,
                        self.path,
                        self.trouble,
                    )

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self, now: float) -> None:
        with self._lock:
            lines, self._lines, self._size, self._flushed_at = self._lines, [], 0, now
        if not lines or self._descriptor is None:
            return
        if self.trouble is None:
            try:
                left = memoryview(b"".join(lines))
                while left:
                    left = left[os.write(self._descriptor, left) :]
                return
            except OSError as error:
                self.trouble = error.strerror or str(error)
                _log.warning(
                    "node %d cannot write to %s any more (%s): training goes on without records",
                    self.node,
                    self.path,
                    self.trouble,
                )
        self.lost_lines += len(lines)


def _open(path: Path) -> int:
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            os.write(descriptor, b"\n")  # the last line of a killed process: keep it apart
        return descriptor
    except OSError as error:
        raise ConfigError(
            f"cannot write records to {path}: {error.strerror}; give a path that can be written to"
        ) from None


def _dump(record: Record) -> bytes:
    try:
        text = json.dumps(record, allow_nan=False, separators=(",", ":"), default=_plain)
    except (ValueError, TypeError):  # NaN, Inf, odd keys: rare, so the usual line pays nothing
        text = json.dumps(_finite(record), separators=(",", ":"))
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy and torch values by their `tolist`, others as text."""
    tolist = getattr(value, "tolist", None)
    return str(value) if tolist is None else tolist()


def _finite(value: Any) -> Any:
    match value:
        case bool() | None | int() | str():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        case dict():
            return {str(key): _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return _finite(_plain(value))


class Tail:
    """Reads a file of records that is still being written: each `new()` returns what was added
    since.

    A file that cannot be read (yet) has no records; a line that is not whole yet is left for next
    time; a damaged one is skipped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._offset = 0
        self._rest = b""

    def new(self) -> list[Record]:
        """The records whose lines were completed since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                got = file.read()
        except OSError:
            return []
        self._offset += len(got)
        *lines, self._rest = (self._rest + got).split(b"\n")
        return [record for line in lines if (record := _parse(line)) is not None]


def read_records(path: str | os.PathLike[str], kind: str | None = None) -> list[Record]:
    """All records of a file, in the order they were written; or of all the files of a run's folder,
    file by file; `path` may be a URL that fsspec opens (s3://, https://, ...). With `kind` only
    those, which have all the same fields: the rows of a table, as `pandas.DataFrame` takes them.

    Tolerates what a killed process leaves behind: a torn last line, also where a node that was
    started again went on after it. Raises DataError for a file that is missing, or damaged
    otherwise.
    """
    paths = remote_files(str(path)) if is_url(path) else local_files(Path(path))
    if not paths:
        raise DataError(f"there are no records in the folder {path}: name a run's folder or file")
    return [r for one in paths for r in each_record(one) if kind is None or r["kind"] == kind]


def each_record(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of one file as `read_records` has them, one at a time: local ones may be huge."""
    torn = b""
    try:
        with open_url(str(path)) if is_url(path) else Path(path).open("rb") as file:
            number = 0
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), 1):
                if line == b"\n":
                    continue
                record = _parse(line)
                if torn and (record is None or record["kind"] not in ("file", "start")):
                    raise _damaged(path, number - 1, torn)
                if record is None and line[-1:] != b"\n" and len(line) >= MOST_LINE:
                    raise _damaged(path, number, line)
                torn = line if record is None else b""
                if record is not None:
                    check_version(record, path)
                    yield record
            if torn and number == 1 and not torn.startswith(b"{"):
                raise _damaged(path, number, torn)
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"cannot read records from {path}: {why}") from None


def local_files(path: Path) -> list[Path]:
    """A file of records itself, or those of a folder."""
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]


def check_version(record: Record, path: str | os.PathLike[str]) -> None:
    """Raise DataError for a file that a newer version of this package wrote."""
    if record["kind"] == "file" and record.get("version") != RECORDS_VERSION:
        raise DataError(
            f"{path} is of version {str(record.get('version'))[:20]} of the format of records, "
            f"and this package reads {RECORDS_VERSION}: read it with the version that wrote it"
        )


def _damaged(path: str | os.PathLike[str], number: int, line: bytes) -> DataError:
    return DataError(f"{path}, line {number} is not a record: {line[:60].rstrip()!r}")


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and all(name in record for name in COMMON) else None
