"""The console: plain lines where nobody watches, a picture on a terminal, a table at the end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from swarmsgd.observe.console import PLAIN_S, Console, bytes_text, clock_text, summary_table
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.view import RunView, record_path


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def view(tmp_path: Path) -> RunView:
    for node in (0, 1):
        with Recorder(record_path(tmp_path, node), node, clock=Clock()) as recorder:
            recorder.write("start", num_nodes=2)
            recorder.write("plan", total_steps=100, total_samples=3200)
            recorder.write(
                "progress",
                steps=25,
                samples=800,
                loss=0.5 + node,
                exchanges=12,
                bytes_sent=5_000_000,
                blocked_s=0.0,
                gamma_estimate=2.0 + node,
            )
    return RunView(tmp_path, 2)


def test_where_nobody_watches_it_prints_a_line_now_and_then(view: RunView) -> None:
    clock, out = Clock(), io.StringIO()
    with Console(view, "title", epochs=4, file=out, clock=clock) as console:
        for tenth in range(int(21 * PLAIN_S)):
            clock.now = tenth / 10
            console.tick()
        console.print("[node 0] said [bold]this[/bold]")
    lines = out.getvalue().splitlines()
    totals = (
        "epoch 1.00 of 4   loss 1.0000   0 samples/s   12 exchanges   10.0 MB sent   gamma ~2.5"
    )
    assert lines == [
        "title",
        f"     5 s  {totals}   0:15 to go",
        f"    10 s  {totals}   0:30 to go",
        "[node 0] said [bold]this[/bold]",
    ]


def test_before_the_first_step_it_says_who_is_there(tmp_path: Path) -> None:
    with Recorder(record_path(tmp_path, 1), 1) as recorder:
        recorder.write("start", num_nodes=2)
        recorder.write("plan", total_steps=100, total_samples=3200)
    clock, out = Clock(), io.StringIO()
    with Console(RunView(tmp_path, 2), "title", epochs=4, file=out, clock=clock) as console:
        clock.now = PLAIN_S
        console.tick()
    assert out.getvalue().splitlines()[1] == "     5 s  starting: 1 of 2 nodes have joined"


def test_on_a_terminal_it_draws_every_node(view: RunView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock, out = Clock(), Terminal()
    with Console(view, "two nodes", epochs=4, file=out, clock=clock) as console:
        clock.now = 10.0
        console.tick()
    text = out.getvalue()
    assert "two nodes" in text
    assert "25 %" in text
    assert "0:10 so far, 0:30 to go" in text
    assert "25 / 100" in text
    assert "1.5000" in text


def test_long_lines_are_not_wrapped(view: RunView) -> None:
    out = io.StringIO()
    with Console(view, "t", epochs=1, file=out) as console:
        console.print("x" * 500)
    assert "x" * 500 in out.getvalue()


def test_the_summary_is_a_table_of_the_mean_and_every_node() -> None:
    node = {
        "node": 0,
        "failed": False,
        "accuracy": 0.5,
        "loss": 1.25,
        "steps": 1200,
        "step_ms_p50": 1.0,
        "step_ms_p99": 2.0,
        "step_ms_max": 3.0,
        "exchanges": 7,
        "bytes_sent": 1234,
        "blocked_s": 0.5,
    }
    dead = dict.fromkeys(node) | {"node": 1, "failed": True}
    mean = {"mean_accuracy": 0.75, "mean_loss": 1.0, "score": "accuracy", "scores": {}}
    summary = mean | {"nodes_detail": [node, dead]}
    out = io.StringIO()
    RichConsole(file=out, width=120).print(summary_table(summary))
    rows = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "mean model 75.00% 1.0000" in rows
    assert "node 0 50.00% 1.2500 1,200 1.0 2.0 3.0 7 1.2 kB 0.50 s" in rows
    assert "node 1 (failed) - - - - - - - - -" in rows


def test_a_task_s_own_scores_have_columns_of_their_own() -> None:
    node = dict.fromkeys(
        ("steps", "step_ms_p50", "step_ms_p99", "step_ms_max", "exchanges", "bytes_sent",
         "blocked_s", "accuracy")
    ) | {"node": 0, "failed": False, "loss": 1.5, "scores": {"bleu": 28.125}}  # fmt: skip
    summary = {
        "mean_accuracy": None, "mean_loss": 1.0, "score": "bleu",
        "scores": {"bleu": 30.0, "hits": 4.0}, "nodes_detail": [node],
    }  # fmt: skip
    out = io.StringIO()
    RichConsole(file=out, width=120).print(summary_table(summary))
    rows = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert rows[1].startswith("loss BLEU hits steps")
    assert "mean model 1.0000 30.00 4" in rows
    assert any(row.startswith("node 0 1.5000 28.12 -") for row in rows)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (123_456, "123 kB"), (9.5e12, "9.5 TB")],
)
def test_bytes_read_easily(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_times_read_easily() -> None:
    assert [clock_text(s) for s in (0, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
