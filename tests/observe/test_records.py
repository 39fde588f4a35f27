"""The schema of records, and a recorder that loses nothing it could keep and never raises late."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.records import (
    FLUSH_S,
    RECORDS_VERSION,
    THIN_AFTER,
    Recorder,
    Tail,
    read_records,
)
from swarmsgd.observe.schema import KINDS, filled, records_table, wrong


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_line_says_when_who_and_what(tmp_path: Path) -> None:
    clock = Clock()
    with Recorder(tmp_path / "node.jsonl", 3, clock=clock) as recorder:
        recorder.write("start", num_nodes=4)
        clock.now += 1.5
        recorder.write("progress", steps=7)
    assert read_records(tmp_path / "node.jsonl") == [
        {"t": 0.0, "node": 3, "kind": "file", "version": RECORDS_VERSION, "unix_s": None},
        {"t": 0.0, "node": 3, "kind": "start", "num_nodes": 4},
        {"t": 1.5, "node": 3, "kind": "progress", "steps": 7, "every": 1},
    ]


def test_a_line_is_valid_json_whatever_the_values(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r.jsonl", 0) as recorder:
        recorder.write("x", a=float("nan"), b=[1.0, float("inf")], c={"d": -np.inf, (1, 2): 3})
        recorder.write("x", a=np.float32(0.5), b=np.int64(7), c=np.bool_(True), d=np.arange(2))
        recorder.write("x", a=torch.tensor(0.25), b=torch.tensor(float("nan")), c=np.float32("inf"))
        recorder.write("x", a=Path("/a"), b="line\nbreak", c=None)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    values = [json.loads(line, parse_constant=refuse) for line in lines[1:]]
    values = [{k: v for k, v in value.items() if k in "abcd"} for value in values]
    assert values == [
        {"a": None, "b": [1.0, None], "c": {"d": None, "(1, 2)": 3}},
        {"a": 0.5, "b": 7, "c": True, "d": [0, 1]},
        {"a": 0.25, "b": None, "c": None},
        {"a": "/a", "b": "line\nbreak", "c": None},
    ]


def test_lines_reach_the_file_a_second_later_and_urgent_ones_at_once(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "r.jsonl"
    recorder = Recorder(path, 0, clock=clock)
    recorder.write("exchange", peer=1)
    clock.now += FLUSH_S / 2
    recorder.write("exchange", peer=2)
    assert read_records(path) == []
    clock.now += FLUSH_S / 2
    recorder.write("exchange", peer=3)
    assert [r["peer"] for r in read_records(path, "exchange")] == [1, 2, 3]
    recorder.write("event", what="lost", peer=1)
    assert len(read_records(path, "event")) == 1
    recorder.close()


def test_no_path_drops_everything_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Recorder(None, 0) as recorder:
        recorder.write("start")
        recorder.flush()
    recorder.write("late")
    assert list(tmp_path.iterdir()) == []


def test_writes_after_close_are_dropped(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.jsonl", 0)
    recorder.close()
    recorder.write("start")
    recorder.close()
    assert read_records(tmp_path / "r.jsonl") == []


def test_threads_write_whole_lines_and_none_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    recorder = Recorder(tmp_path / "r.jsonl", 0, clock=clock)

    def write(thread: int) -> None:
        for i in range(500):
            clock.now += FLUSH_S / 7
            recorder.write("event" if i % 5 == 0 else "exchange", thread=thread, i=i)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.close()
    records = [r for r in read_records(tmp_path / "r.jsonl") if r["kind"] != "file"]
    for thread in range(4):
        assert [r["i"] for r in records if r["thread"] == thread] == list(range(500))


def test_a_reserved_field_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "r.jsonl", 0) as recorder, pytest.raises(ConfigError, match="'node'"):
        recorder.write("x", node=3)


def test_an_unwritable_path_is_a_clear_error_at_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write records to .*file/r\.jsonl: Not a dir"):
        Recorder(tmp_path / "file" / "r.jsonl", 0)
    with pytest.raises(ConfigError, match="Is a directory"):
        Recorder(tmp_path, 0)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    Recorder(tmp_path / "a" / "b" / "r.jsonl", 0).close()
    assert (tmp_path / "a" / "b" / "r.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder("/dev/full", 2)
    for i in range(3):
        recorder.write("event", text=str(i))
    assert recorder.trouble == "No space left on device"
    assert caplog.messages == [
        "node 2 cannot write to /dev/full any more (No space left on device): "
        "training goes on without records"
    ]
    recorder.close()
    assert caplog.messages[1:] == [
        "node 2: 3 lines are missing from /dev/full: No space left on device"
    ]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Recorder(path, 0) as recorder:
        recorder.write("start")
        recorder.write("end")
    os.truncate(path, path.stat().st_size - 5)
    assert [r["kind"] for r in read_records(path)] == ["file", "start"]


def test_a_node_that_starts_again_goes_on_after_its_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Recorder(path, 0) as recorder:
        recorder.write("start")
        recorder.write("end")
    os.truncate(path, path.stat().st_size - 5)
    with Recorder(path, 0) as recorder:
        recorder.write("start", incarnation=1)
        recorder.write("progress")
    kinds = [r["kind"] for r in read_records(path)]
    assert kinds == ["file", "start", "file", "start", "progress"]


def test_other_damage_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    good = '{"t":0,"node":0,"kind":"progress"}'
    path.write_text("\n".join([good, "rubbish", good, ""]))
    with pytest.raises(DataError, match=r"line 2 is not a record: b'rubbish'"):
        read_records(path)
    path.write_text("\n".join([good, "[1]", "3"]))
    with pytest.raises(DataError, match="line 2"):
        read_records(path)
    with pytest.raises(DataError, match="No such file"):
        read_records(tmp_path / "none.jsonl")


def test_a_file_of_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"t":0,"node":0,"kind":"file","version":99,"unix_s":null}\n')
    with pytest.raises(DataError, match=f"is of version 99 .* reads {RECORDS_VERSION}"):
        read_records(path)


def test_a_file_that_is_no_record_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(bytes(range(256)) * 10_000)
    with pytest.raises(DataError, match="line 1 is not a record"):
        read_records(path)
    path.write_text("hello")
    with pytest.raises(DataError, match="line 1 is not a record: b'hello'"):
        read_records(path)


def test_a_folder_is_read_as_one_table(tmp_path: Path) -> None:
    for node in range(2):
        with Recorder(tmp_path / f"node-{node}.jsonl", node) as recorder:
            recorder.write("event", what="lost", peer=1 - node, text="")
    assert [(r["node"], r["peer"]) for r in read_records(tmp_path, "event")] == [(0, 1), (1, 0)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no records in the folder .*empty"):
        read_records(tmp_path / "empty")


def test_a_long_file_is_thinned_and_says_what_each_line_stands_for(tmp_path: Path) -> None:
    path, count = tmp_path / "r.jsonl", 5 * THIN_AFTER
    with Recorder(path, 0) as recorder:
        for i in range(count):
            recorder.write("exchange", peer=1, counter=i)
        recorder.write("event", what="lost", peer=1)
    records = read_records(path, "exchange")
    assert [r["every"] for r in records[: THIN_AFTER + 1]] == [1] * THIN_AFTER + [2]
    assert len(records) < 2.6 * THIN_AFTER
    assert abs(sum(r["every"] for r in records) - count) <= 4
    assert len(read_records(path, "event")) == 1, "rare kinds are all kept"


def test_a_tail_sees_each_line_once_and_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    line = b'{"t":0,"node":0,"kind":"progress","steps":%d}\n'
    with path.open("ab", buffering=0) as file:
        file.write(line % 1 + (line % 2)[:9])
        assert [r["steps"] for r in tail.new()] == [1]
        assert tail.new() == []
        file.write((line % 2)[9:] + b"rubbish\n" + line % 3)
        assert [r["steps"] for r in tail.new()] == [2, 3]


def test_records_behind_a_url_are_read_like_local_ones(tmp_path: Path) -> None:
    for node in (0, 1):
        with Recorder(tmp_path / f"node-{node}.jsonl", node) as recorder:
            recorder.write("event", what="x", peer=None, text="")
    here = read_records(tmp_path, "event")
    assert len(here) == 2 and read_records(f"file://{tmp_path}", "event") == here
    with serving(tmp_path) as address:
        assert read_records(f"{address}/node-1.jsonl", "event") == here[1:]
        with pytest.raises(DataError, match="node-7"):
            read_records(f"{address}/node-7.jsonl")
    with pytest.raises(DataError, match="gopher://x cannot be opened"):
        read_records("gopher://x")


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The files of a folder, over http."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_the_table_lists_every_field_and_wrong_names_what_it_lacks() -> None:
    text = records_table()
    for name, kind in KINDS.items():
        assert f"### {name}" in text
        for field, (unit, meaning) in kind.fields.items():
            assert f"| {field} | {unit} | {meaning} |" in text
    head = {"t": 0, "node": 0}
    event = {**head, "kind": "event", "what": "lost", "peer": 1, "text": "gone"}
    assert wrong(event) == []
    assert wrong({**event, "texd": "gone"}) == ["texd"]
    assert wrong({name: value for name, value in event.items() if name != "peer"}) == ["peer"]
    assert wrong({**head, "kind": "event", **filled("event", what="lost")}) == []
    assert wrong({**head, "kind": "gossip"}) == ["gossip"]


def test_records_import_nothing_heavy() -> None:
    code = (
        "import sys, swarmsgd.observe.records; "
        "print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
