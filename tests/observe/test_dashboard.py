"""The live page: what a run's files say is on it soon, to nobody but who may look, and nothing is
changed by looking.
"""

import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from run_folders import Clock, real_run, simulated_run

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.feed import FIGURES_SHARE, READ_S, Feed
from swarmsgd.observe.folder import RunFolder
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.server import Dashboard
from swarmsgd.observe.sources import Following, Replaying

EVIL = "<script>alert(1)</script>"


def told(feed: Feed) -> dict[str, str]:
    return {piece.key: piece.text for piece in feed.pieces()}


def test_what_is_written_later_is_on_the_page_at_the_next_look(tmp_path: Path):
    clock = Clock()
    feed = Feed(Following(real_run(tmp_path)), clock)
    assert "died" not in told(feed)["headline"]
    with Recorder(tmp_path / "command.jsonl", -1) as recorder:
        recorder.write("event", what="died", peer=1, text=f"SIGKILL; last words: {EVIL}")
    with Recorder(tmp_path / "node-9.jsonl", 9) as recorder:
        recorder.write("event", what="joined", peer=9, text="came later")
    assert "died" not in told(feed)["headline"], "not before it is time"
    clock.now += READ_S
    pieces = told(feed)
    assert "Nodes that died: 1" in pieces["headline"] and "came later" in pieces["What happened"]
    assert "SIGKILL" in pieces["What happened"] and "<script" not in "".join(pieces.values())


def test_a_run_that_has_only_begun_is_shown(tmp_path: Path):
    with RunFolder(tmp_path, "x").owned('{"task": "train.py"}'):
        begun = told(Feed(Following(tmp_path), Clock()))["headline"]
    assert "train.py; 0 nodes" in begun and "It goes on." in begun
    left = told(Feed(Following(tmp_path), Clock()))["headline"]
    assert "It was killed: there is no summary." in left


def test_drawing_takes_its_share_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[float] = []
    clock, seconds = Clock(), Clock()

    def draw(_run: Any) -> list[Any]:
        drawn.append(clock.now)
        seconds.now += 0.5
        return []

    monkeypatch.setattr("swarmsgd.observe.feed._figures", draw)
    monkeypatch.setattr("swarmsgd.observe.feed.time.thread_time", seconds)
    feed = Feed(Following(real_run(tmp_path)), clock)
    for _ in range(50):
        feed.pieces()
        with Recorder(tmp_path / "node-0.jsonl", 0) as recorder:
            recorder.write("event", what="x", peer=None, text="")
        clock.now += READ_S
    assert drawn == [0.0, 0.5 / FIGURES_SHARE, 2 * 0.5 / FIGURES_SHARE]


def test_a_replay_tells_the_run_in_its_own_order_and_ends_as_it_did(tmp_path: Path):
    clock = Clock()
    replay = Replaying(real_run(tmp_path, dead=2), 2.0, clock)
    assert replay.refresh().story.end_s == 0.0
    clock.now = 3.0
    story = replay.refresh().story
    assert story.end_s == 6.0 and {node.steps for node in story.nodes.values()} == {12}
    count = story.records
    clock.now = 100.0
    run = replay.refresh()
    assert replay.over and run.summary["failed_nodes"] == [2]
    begun = Replaying(tmp_path, 1.0, Clock(), begin_s=6.0).refresh().story
    assert begun.records == count


def test_a_simulated_run_is_replayed_in_virtual_time(tmp_path: Path):
    clock = Clock()
    replay = Replaying(simulated_run(tmp_path), 1.0, clock)
    replay.refresh()
    clock.now = 5.0
    assert 1 < len(replay.refresh().story.curve) < 20


def get(dashboard: Dashboard, path: str, **headers: str) -> str:
    host = dashboard.address.split("?")[0].rstrip("/")
    request = urllib.request.Request(host + path, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def test_an_open_page_is_told_how_the_run_ended(tmp_path: Path):
    dashboard = Dashboard(real_run(tmp_path), port=0)
    told: list[dict[str, Any]] = []
    first = threading.Event()

    def look() -> None:
        with urllib.request.urlopen(f"{dashboard.address}events", timeout=60) as answer:
            for line in answer:
                if line.strip():
                    told.append(json.loads(line.decode().removeprefix("data: ")))
                    first.set()

    looking = threading.Thread(target=look)
    looking.start()
    assert first.wait(60)
    dashboard.close()
    looking.join(60)
    assert [state["over"] for state in told] == [False] * (len(told) - 1) + [True]
    assert told[-1]["figures_t"] == told[-1]["t"] > 0


def test_a_death_is_drawn_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[float] = []
    clock = Clock()
    monkeypatch.setattr("swarmsgd.observe.feed._figures", lambda _: drawn.append(clock.now) or [])
    feed = Feed(Following(real_run(tmp_path)), clock)
    feed.pieces()
    feed._drawn_until = 1e9
    for text in ("lost", "died"):
        clock.now += READ_S
        with Recorder(tmp_path / "command.jsonl", -1) as recorder:
            recorder.write("event", what=text, peer=1, text="")
        feed.pieces()
    assert drawn == [0.0, 2 * READ_S]


def first_event(dashboard: Dashboard, query: str = "") -> dict[str, Any]:
    host = dashboard.address.split("?")[0].rstrip("/")
    with urllib.request.urlopen(f"{host}/events{query}", timeout=20) as answer:
        return json.loads(answer.readline().decode().removeprefix("data: "))


def test_the_server_gives_the_page_the_events_and_a_nodes_detail(tmp_path: Path):
    with Dashboard(real_run(tmp_path, dead=2), port=0) as dashboard:
        page = get(dashboard, "/")
        assert "connect-src 'self'" in page and "EventSource" in page
        state = first_event(dashboard)
        assert {"headline", "Nodes", "Who exchanged with whom"} <= set(state["order"])
        detail = get(dashboard, "/node?id=2")
        assert "SIGKILL; last words: oops" in detail and "died" in detail
        assert "no record of node 77" in get(dashboard, "/node?id=77")


def refused(dashboard: Dashboard, path: str, **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(dashboard, path, **headers)
    with caught.value as error:
        return error.code


def test_nobody_else_is_answered_and_nothing_can_be_written(tmp_path: Path):
    with Dashboard(real_run(tmp_path), port=0) as dashboard:
        assert refused(dashboard, "/", Host="evil.example") == 403
        assert refused(dashboard, "/../config.json") == 404
        assert refused(dashboard, "/node?id=x") == 400
        assert refused(dashboard, "/events?speed=nan") == 400
        assert refused(dashboard, "/events?speed=0") == 400
        host = dashboard.address.rstrip("/")
        for method in ("POST", "PUT", "DELETE"):
            request = urllib.request.Request(host + "/", data=b"x", method=method)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=20)
            with caught.value as error:
                assert error.code == 501


def test_another_address_is_open_only_to_who_has_the_token(tmp_path: Path):
    with Dashboard(real_run(tmp_path), host="0.0.0.0", port=0) as dashboard:
        assert dashboard.token and dashboard.token in dashboard.address
        assert refused(dashboard, "/") == 403
        assert refused(dashboard, "/?token=wrong") == 403
        assert refused(dashboard, "/events") == 403
        assert "EventSource" in get(dashboard, f"/?token={dashboard.token}")


def test_a_taken_port_and_a_folder_that_is_no_run_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = real_run(tmp_path / "run")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dashboard", str(folder), "--port", str(port)]) == 2
    err = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is taken: choose another" in err and err.count("\n") == 1
    with pytest.raises(DataError, match="no run's folder"):
        Dashboard(tmp_path, port=0)
    with pytest.raises(ConfigError, match="cannot listen"):
        Dashboard(folder, port=99_999)


def test_its_end_leaves_no_thread_and_no_port(tmp_path: Path):
    before = set(threading.enumerate())
    dashboard = Dashboard(real_run(tmp_path), port=0)
    first_event(dashboard)
    dashboard.close()
    mine = set(threading.enumerate()) - before
    for thread in mine:
        if thread.name.startswith("Thread-"):
            thread.join(timeout=20)
    assert not [thread for thread in mine if thread.is_alive()]
    with socket.create_server(("127.0.0.1", dashboard.port)):
        pass
