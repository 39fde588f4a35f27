"""Output neither waits nor raises: what is printed arrives in order, or is dropped and counted."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmsgd.observe import output
from swarmsgd.observe.folder import COMMAND, RunFolder
from swarmsgd.observe.output import MOST_BYTES, Stream, Writer, unhindered
from swarmsgd.observe.records import read_records


class Pipe:
    """A pipe with a text stream on its writing end."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.target = os.fdopen(writer, "w")

    def read_all(self) -> bytes:
        self.target.close()
        with os.fdopen(self.reader, "rb") as file:
            return file.read()

    def close_reader(self) -> None:
        os.close(self.reader)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.setattr(output, "QUIET_S", 600.0)  # a reader that reads does so some time
    monkeypatch.setattr(output, "_LAST_S", 600.0)
    made = Writer()
    yield made
    made.close()


def test_all_that_is_printed_arrives_in_order_where_somebody_reads(writer: Writer) -> None:
    pipe, got = Pipe(), []
    stream = Stream(pipe.target, writer)
    file = os.fdopen(pipe.reader, "rb")
    reading = threading.Thread(target=lambda: got.append(file.read()))
    reading.start()
    lines = [f"line {i} " + "x" * (37 * i % 9000) for i in range(700)]
    assert sum(map(len, lines)) < MOST_BYTES
    for line in lines:
        print(line, file=stream)
    writer.drain()
    pipe.target.close()
    reading.join()
    file.close()
    assert got[0].decode().splitlines() == lines
    assert stream.dropped == 0


def test_two_streams_of_one_terminal_keep_the_order_of_their_lines(
    writer: Writer, tmp_path: Path
) -> None:
    with (tmp_path / "a").open("w") as file, (tmp_path / "a").open("a") as same:
        out, err = Stream(same, writer), Stream(same, writer)
        for i in range(500):
            print(i, file=out if i % 3 else err)
        writer.drain()
        file.flush()
    assert [int(line) for line in (tmp_path / "a").read_text().splitlines()] == list(range(500))


def test_a_reader_that_does_not_read_stops_nobody_and_loses_the_newest_lines(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipe()
    stream = Stream(pipe.target, writer)
    count = 2 * MOST_BYTES // 1000
    for i in range(count):
        print(f"{i:999}", file=stream)
    assert 0 < stream.dropped < count
    assert stream.trouble == "nobody reads it fast enough"
    other = Pipe()
    seen = Stream(other.target, writer)
    print("heard", file=seen)
    assert os.read(other.reader, 100) == b"heard\n"  # one stream does not hold up the other
    monkeypatch.setattr(output, "QUIET_S", 0.1)
    writer.drain()
    assert stream.waiting == 0
    other.read_all()
    pipe.close_reader()
    pipe.target.close()


def test_a_reader_that_ended_and_a_full_disk_are_told_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe, told = Pipe(), io.StringIO()
    pipe.close_reader()
    monkeypatch.setattr(sys, "stdout", pipe.target)
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.chdir(tmp_path)
    with unhindered(), RunFolder(Path("run"), "run").owned("{}"):
        for _ in range(3):
            print("to nobody")
    assert told.getvalue() == "swarmsgd: could not print 3 lines on stdout (Broken pipe)\n"
    assert sys.stdout is pipe.target
    pipe.target.close()
    (record,) = read_records(Path("run") / COMMAND, "event")
    assert record["what"] == "output"
    assert "on stdout (Broken pipe)" in record["text"]


def test_nothing_is_told_or_recorded_where_nothing_was_dropped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with unhindered(), RunFolder(tmp_path / "run", "run").owned("{}"):
        print("out")
        print("err", file=sys.stderr)
        print("no line end", end="")
    assert capsys.readouterr() == ("out\nno line end", "err\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_letters_that_an_encoding_lacks_are_printed_as_escapes(writer: Writer) -> None:
    reader, end = os.pipe()
    with os.fdopen(end, "w", encoding="latin-1", errors="strict") as target:
        print("\u20ac \u00e9 \ud800", file=Stream(target, writer))
        writer.drain()
    with os.fdopen(reader, "rb") as file:
        assert file.read() == b"\\u20ac \xe9 \\ud800\n"


def test_streams_that_are_closed_take_what_they_get(writer: Writer) -> None:
    stream = Stream(None, writer)
    print("nobody", file=stream, flush=True)
    assert not stream.isatty()
    assert (stream.dropped, stream.trouble) == (1, "it is closed")
    pipe = Pipe()
    closed = Stream(pipe.target, writer)
    pipe.target.close()
    pipe.close_reader()
    print("nobody", file=closed)
    writer.drain()
    assert (closed.dropped, closed.trouble) == (1, "Bad file descriptor")
