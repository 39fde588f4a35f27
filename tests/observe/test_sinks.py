"""Figures reach the tools that were asked for, and no tool's trouble reaches the run."""

import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import Clock, real_run

import swarmsgd
from swarmsgd.errors import ConfigError
from swarmsgd.observe.reporters import EVERY_S, Outlet, Reporter, RunReporter
from swarmsgd.observe.sinks import TOOLS, make_sinks
from swarmsgd.observe.view import RunView


class Kept:
    """A sink of one's own."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, dict[str, Any]]] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.ended = 0

    def begin(self, name: str, settings: Any, folder: Path | None) -> None:
        self.begun.append((name, dict(settings)))

    def log(self, figures: Any, step: int) -> None:
        self.logged.append((dict(figures), step))

    def end(self) -> None:
        self.ended += 1


class Broken(Kept):
    def log(self, figures: Any, step: int) -> None:
        raise RuntimeError("no network")


def test_a_sink_gets_finite_figures_at_steps_that_never_fall():
    kept = Kept()
    outlet = Outlet([kept])
    outlet.begin("run", {"swarm": {"bits": 8}, "nodes": 4})
    outlet.log({"a": 1, "b": float("nan"), "c": None, "d": "text", "e": True}, 10)
    outlet.log({"a": 2.5}, 7)
    outlet.log({"a": None}, 11)
    outlet.close()
    outlet.close()
    assert kept.begun == [("run", {"swarm.bits": 8, "nodes": 4})]
    assert kept.logged == [({"a": 1.0}, 10), ({"a": 2.5}, 10)] and kept.ended == 1


def test_a_sink_that_fails_is_told_of_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture):
    kept = Kept()
    outlet = Outlet([Broken(), kept])
    outlet.begin("run", {})
    for step in range(3):
        outlet.log({"a": 1.0}, step)
    assert len(kept.logged) == 3
    assert caplog.messages == ["no figures are sent any more to Broken: RuntimeError: no network"]


def test_train_sends_totals_nodes_and_what_it_came_to(tmp_path: Path):
    view, kept, clock = RunView(real_run(tmp_path), 4), Kept(), Clock()
    outlet = Outlet([kept])
    outlet.begin("run", {})
    reporter = RunReporter(view, outlet, clock)
    view.read()
    reporter.tick()
    assert kept.logged == []
    clock.now = EVERY_S
    reporter.tick()
    figures, step = kept.logged[0]
    assert step == 3200 and figures["samples"] == 3200 and figures["gamma_estimate"] == 5.0
    assert figures["node/2/steps"] == 40
    reporter.finish({"mean_loss": 0.5, "task": "vision"})
    assert kept.logged[-1] == ({"final/mean_loss": 0.5}, 3200)


def test_a_node_sends_its_figures_until_it_leaves():
    kept = Kept()
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with swarmsgd.join(model, optimizer, log_to=kept):
        for _ in range(3):
            model(torch.zeros(1, 4)).sum().backward()
            optimizer.step()
    figures, step = kept.logged[-1]
    assert step == 3 and figures["swarm/steps"] == 3 and kept.ended == 1
    assert kept.begun[0][0] == "node-0" and kept.begun[0][1]["local_steps"] == "4"


def test_a_reporter_sends_while_nobody_asks_it_to(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("swarmsgd.observe.reporters.EVERY_S", 0.001)
    kept = Kept()
    reporter = Reporter(lambda: {"steps": 5}, [kept], "node-1", {})
    while not kept.logged:
        pass
    reporter.close()
    reporter.close()
    assert kept.logged[0] == ({"swarm/steps": 5.0}, 5) and kept.ended == 1


PACKAGES = {"prometheus": "prometheus_client"}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_whose_package_is_missing_says_what_to_install(
    tool: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, PACKAGES.get(tool, tool), None)
    with pytest.raises(ConfigError, match=rf"pip install 'swarmsgd\[{tool}\]'"):
        make_sinks(f"{tool}:1")


def test_what_is_no_sink_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match="wandb"):
        make_sinks("wandbb")
    with pytest.raises(ConfigError, match="methods begin, log and end"):
        make_sinks([object()])
    with pytest.raises(ConfigError, match="wanted MODULE:CLASS"):
        make_sinks("nowhere.at.all:Sink")
    assert isinstance(make_sinks(f"{__name__}:Kept")[0], Kept)
    assert make_sinks(None) == []


@pytest.mark.parametrize("tool", ["wandb", "trackio"])
def test_weights_and_biases_and_its_like_are_called_as_they_want(
    tool: str, monkeypatch: pytest.MonkeyPatch
):
    calls: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        return lambda *args, **named: calls.append((name, (args, named)))

    fake = types.SimpleNamespace(**{name: note(name) for name in ("init", "log", "finish")})
    monkeypatch.setitem(sys.modules, tool, fake)
    use(make_sinks(f"{tool}:mine"))
    assert calls == [
        ("init", ((), {"project": "mine", "name": "run", "config": {"lr": 0.1}})),
        ("log", (({"loss": 1.5},), {"step": 3})),
        ("finish", ((), {})),
    ]


def test_mlflow_is_called_as_it_wants(monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")

    def note(name: str) -> Any:
        return lambda *args, **named: calls.append(f"{name} {args} {named}")

    monkeypatch.setitem(
        sys.modules, "mlflow", types.SimpleNamespace(**{name: note(name) for name in names})
    )
    use(make_sinks("mlflow"))
    assert [call.split()[0] for call in calls] == list(names)
    assert "{'step': 3}" in calls[3] and "'lr': '0.1'" in calls[2]


def test_tensorboard_writes_event_files(tmp_path: Path):
    pytest.importorskip("tensorboard")
    use(make_sinks(f"tensorboard:{tmp_path}"))
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_prometheus_fetches_the_newest_figures(tmp_path: Path):
    pytest.importorskip("prometheus_client")
    outlet = Outlet(make_sinks("prometheus:0"))
    outlet.begin("run", {})
    outlet.log({"loss": 2.0, "node/3/loss": 1.5}, 3)
    (sink,) = outlet._open
    port = sink._server.server_address[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    outlet.close()
    assert 'swarmsgd_loss{node="",run="run"} 2.0' in text
    assert 'swarmsgd_loss{node="3",run="run"} 1.5' in text
    with pytest.raises(ConfigError, match="wanted prometheus:PORT"):
        make_sinks("prometheus:http")


def use(sinks: Any) -> None:
    outlet = Outlet(sinks)
    outlet.begin("run", {"lr": 0.1})
    outlet.log({"loss": 1.5}, 3)
    outlet.close()
