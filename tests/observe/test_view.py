"""A view of a run follows its files, and shows nothing that they do not say."""

from __future__ import annotations

from pathlib import Path

from swarmsgd.observe.records import Recorder
from swarmsgd.observe.view import RATE_S, RunView, record_path


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_view_without_files_is_empty(tmp_path: Path) -> None:
    view = RunView(tmp_path, 2)
    view.read()
    assert [node.state for node in view.nodes] == ["starting", "starting"]
    assert (view.done, view.loss, view.total("exchanges")) == (0.0, None, 0)


def test_a_view_follows_its_nodes_to_the_end(tmp_path: Path) -> None:
    view = RunView(tmp_path, 2)
    recorders = [Recorder(record_path(tmp_path, node), node) for node in (0, 1)]
    for recorder in recorders:
        recorder.write("start", num_nodes=2)
        recorder.write("plan", total_steps=10, total_samples=100)
    view.read()
    assert [node.state for node in view.nodes] == ["joined", "joined"]
    for recorder, loss in zip(recorders, (1.0, 3.0), strict=True):
        recorder.write("progress", steps=5, samples=50, loss=loss, exchanges=3, bytes_sent=7)
        recorder.flush()
    view.read()
    assert (view.done, view.loss, view.total("bytes_sent")) == (0.5, 2.0, 14)
    assert {node.state for node in view.nodes} == {"training"}
    recorders[0].write("result", steps=10, samples=100)
    recorders[1].write("end", steps=5)
    view.read()
    assert [node.state for node in view.nodes] == ["done", "left"]
    view.set_state(1, "failed")
    assert view.nodes[1].state == "failed"
    assert view.done == 1.0
    for recorder in recorders:
        recorder.close()


def test_the_rate_is_over_the_last_seconds_and_ends_with_training(tmp_path: Path) -> None:
    clock = Clock()
    view = RunView(tmp_path, 1)
    with Recorder(record_path(tmp_path, 0), 0, clock=clock) as recorder:
        for second in range(20):
            clock.now = float(second)
            rate = 100 if second < 10 else 300
            done = 100 * min(second, 10) + rate * max(0, second - 10)
            recorder.write("progress", steps=second, samples=done)
    view.read()
    assert RATE_S == 5.0
    assert view.nodes[0].samples_per_s == 300
    view.set_state(0, "failed")
    assert view.nodes[0].samples_per_s == 0


def test_unknown_kinds_and_fields_change_nothing(tmp_path: Path) -> None:
    view = RunView(tmp_path, 1)
    with Recorder(record_path(tmp_path, 0), 0) as recorder:
        recorder.write("gossip", steps=5)
        recorder.write("progress", stepz=5)
    view.read()
    assert view.nodes[0].steps == 0


def test_who_waits_for_the_mean_of_all_is_said_to_until_it_has_it(tmp_path: Path) -> None:
    view = RunView(tmp_path, 1)
    with Recorder(record_path(tmp_path, 0), 0) as recorder:
        states: list[str] = []
        for kind, fields in (
            ("progress", {"steps": 1}),
            ("mean", {"of": None}),
            ("mean", {"of": [0]}),
        ):
            recorder.write(kind, **fields)
            recorder.flush()
            view.read()
            states.append(view.nodes[0].state)
    assert states == ["training", "waiting for the mean", "training"]
