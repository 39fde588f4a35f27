"""The files of a run, brought onto one clock: read whole, followed while they grow, or replayed."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from swarmsgd.errors import DataError
from swarmsgd.observe.folder import CONFIG, SUMMARY, check_begun, record_files
from swarmsgd.observe.records import Record, Tail, each_record
from swarmsgd.observe.story import Story, finite

HEAD = 8
"""Among so many first records of a file is what tells when its clock began."""
MOST_REPLAYED = 500
"""Files that a replay has open at once."""
MOST_JSON = 16 << 20
"""Bytes of a config or summary beyond which it is none of ours."""


@dataclass
class Run:
    """A run's folder: its settings, what it came to, and what its records tell."""

    folder: Path
    label: str
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    story: Story = field(default_factory=Story)


def read_whole(folder: Path, label: str | None = None) -> Run:
    """Everything in a run's folder. Raises DataError for a folder that is no run's, or with a file
    that is damaged.
    """
    paths = record_files(folder)
    run = Run(folder, label or folder.absolute().name)
    run.config, run.summary = read_object(folder / CONFIG), read_object(folder / SUMMARY)
    clock = Clock()
    for path in paths:
        clock.learn(path, islice(each_record(path), HEAD))
    for path in paths:
        for t, record in clock.timed(path, each_record(path)):
            run.story.add(record, t)
    if not run.story.records:
        raise DataError(f"{folder} holds no record yet: the run has not begun, or wrote none")
    run.story.events.sort(key=lambda event: event.t)
    return run


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file. Raises DataError if it holds anything else."""
    try:
        if not path.exists():
            return {}
        if path.stat().st_size > MOST_JSON:
            raise DataError(f"{path} has {path.stat().st_size:,} bytes: it is none of a run's")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {str(error)[:120]}; it is none of a run's") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} holds {type(found).__name__}, not an object: none of a run's")
    return found


class Clock:
    """When the clocks of the files began: `t` of one is brought to the earliest's. That of a node
    that was started again began anew in the middle of its file.
    """

    def __init__(self) -> None:
        self._began: dict[Path, float] = {}
        self._begun_again: dict[Path, float] = {}

    def learn(self, path: Path, records: Iterator[Record] | list[Record]) -> None:
        """From the first records of a file; later ones change nothing."""
        for record in records:
            unix_s, t = finite(record.get("unix_s")), finite(record["t"])
            if path not in self._began and unix_s is not None and t is not None:
                self._began[path] = unix_s - t

    def timed(self, path: Path, records: Iterable[Record]) -> Iterator[tuple[float, Record]]:
        """The next records of a file with the run's time; `t` itself if the file does not tell.
        What has no time is left out.
        """
        for record in records:
            unix_s, t = finite(record.get("unix_s")), finite(record["t"])
            if record["kind"] == "file" and unix_s is not None and t is not None:
                self._begun_again[path] = unix_s - t
            if t is not None:
                yield t + self._shift(path), record

    def _shift(self, path: Path) -> float:
        began = self._begun_again.get(path, self._began.get(path))
        return 0.0 if began is None else began - min(self._began.values(), default=began)


class Following:
    """A run while it is written: `refresh` takes in what is new, files that came up too."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(folder, folder.absolute().name)
        self._tails: dict[Path, Tail] = {}
        self._clock = Clock()
        check_begun(folder)

    @property
    def over(self) -> bool:
        """Whether the run has been summed up."""
        return bool(self.run.summary)

    def refresh(self) -> Run:
        """The run as it is now."""
        run, folder = self.run, self.run.folder
        for path in folder.glob("*.jsonl"):
            self._tails.setdefault(path, Tail(path))
        run.config = run.config or _lenient(folder / CONFIG)
        run.summary = _lenient(folder / SUMMARY)
        news = {path: tail.new() for path, tail in self._tails.items()}
        for path, records in news.items():
            self._clock.learn(path, records[:HEAD])
        for path, records in news.items():
            for t, record in self._clock.timed(path, records):
                run.story.add(record, t)
        return run


def _lenient(path: Path) -> dict[str, Any]:
    """As `read_object`, empty while the file is being written."""
    try:
        return read_object(path)
    except DataError:
        return {}


class Replaying:
    """A finished run told again from `begin_s` on, `speed` times as fast as it was."""

    def __init__(
        self,
        folder: Path,
        speed: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        begin_s: float = 0.0,
    ) -> None:
        self.run = Run(folder, folder.absolute().name, read_object(folder / CONFIG))
        self._speed, self._clock = speed, clock
        self._begin_s = begin_s
        self._begin: float | None = None
        times, paths = Clock(), record_files(folder)
        if len(paths) > MOST_REPLAYED:
            raise DataError(
                f"{folder} has records of {len(paths):,} nodes, and at most {MOST_REPLAYED} can be "
                "replayed: look at its report"
            )
        for path in paths:
            times.learn(path, islice(each_record(path), HEAD))
        streams = (times.timed(path, each_record(path)) for path in paths)
        self._records = heapq.merge(*streams, key=lambda pair: pair[0])
        self._next = next(self._records, None)

    @property
    def over(self) -> bool:
        """Whether all has been told."""
        return self._next is None

    def refresh(self) -> Run:
        """The run as it was at this time of the replay."""
        now = self._clock()
        self._begin = now if self._begin is None else self._begin
        until = self._begin_s + (now - self._begin) * self._speed
        while self._next is not None and self._next[0] <= until:
            t, record = self._next
            self.run.story.add(record, t)
            self._next = next(self._records, None)
        if self.over:
            self.run.summary = _lenient(self.run.folder / SUMMARY)
        return self.run
