"""Figures of a run, sent on to what people have open anyway: TensorBoard, Weights and Biases, ...

Each tool is an extra of the package, imported when it is asked for. A sink of one's own is a class
with the three methods of `Sink`, handed to `join(log_to=...)`, or named MODULE:CLASS.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from swarmsgd.checks import one_of
from swarmsgd.errors import ConfigError

_Figures = Mapping[str, float]


@runtime_checkable
class Sink(Protocol):
    """Where figures of a run go."""

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        """Called once, first: what the run is called, its settings (flat), and its folder if it has
        one.
        """
        ...

    def log(self, figures: _Figures, step: int) -> None:
        """Finite figures by name, at that step. `step` never falls."""
        ...

    def end(self) -> None:
        """Called once, last: also after a run that failed."""
        ...


class TensorBoard:
    """Event files for `tensorboard --logdir FOLDER`, in `where` or in tensorboard/ of the run."""

    def __init__(self, where: str) -> None:
        _import("tensorboard", "tensorboard")
        self._writer_class = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self._where = where

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        where = Path(self._where or (folder or Path("runs")) / "tensorboard")
        self._writer = self._writer_class(str(where / name if folder is None else where))
        rows = (f"    {key}: {value}" for key, value in settings.items())
        self._writer.add_text("settings", "\n".join(rows))

    def log(self, figures: _Figures, step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


class WandbLike:
    """A run of Weights and Biases, or of trackio, whose interface is the same; `where` is the
    project.
    """

    def __init__(self, package: str, where: str) -> None:
        self._tool = _import(package, package)
        self._where = where or "swarmsgd"

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        self._tool.init(project=self._where, name=name, config=dict(settings))

    def log(self, figures: _Figures, step: int) -> None:
        self._tool.log(dict(figures), step=step)

    def end(self) -> None:
        self._tool.finish()


class MLflow:
    """A run of MLflow in the experiment `where`, at MLFLOW_TRACKING_URI."""

    def __init__(self, where: str) -> None:
        self._tool = _import("mlflow", "mlflow")
        self._where = where or "swarmsgd"

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        self._tool.set_experiment(self._where)
        self._tool.start_run(run_name=name)
        self._tool.log_params({key: str(value)[:500] for key, value in settings.items()})

    def log(self, figures: _Figures, step: int) -> None:
        self._tool.log_metrics(dict(figures), step=step)

    def end(self) -> None:
        self._tool.end_run()


class Prometheus:
    """The newest figures as text for Prometheus to fetch, on port `where` of this machine (or
    HOST:PORT).
    """

    def __init__(self, where: str) -> None:
        self._tool = _import("prometheus_client", "prometheus")
        host, _, port = where.rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            raise ConfigError(
                f"log to prometheus:{where}: wanted prometheus:PORT or prometheus:HOST:PORT, such "
                "as prometheus:9109"
            )
        self._host, self._port = host or "127.0.0.1", int(port)
        self._gauges: dict[str, Any] = {}

    def begin(self, name: str, settings: Mapping[str, Any], folder: Path | None) -> None:
        self._name = name
        self._registry = self._tool.CollectorRegistry()
        try:
            self._server, self._thread = self._tool.start_http_server(
                self._port, addr=self._host, registry=self._registry
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._host}, port {self._port}, for Prometheus: "
                f"{error.strerror}; choose another port"
            ) from None

    def log(self, figures: _Figures, step: int) -> None:
        for name, value in {**figures, "step": step}.items():
            head, _, last = name.rpartition("/")  # node/3/loss: a label, not another name
            node = head.removeprefix("node/") if head.startswith("node/") else ""
            key = "swarmsgd_" + "".join(c if c.isalnum() else "_" for c in last or name)
            if key not in self._gauges:
                labels = ["run", "node"]
                self._gauges[key] = self._tool.Gauge(key, last, labels, registry=self._registry)
            self._gauges[key].labels(self._name, node).set(value)

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Tool(NamedTuple):
    """A line of `TOOLS`."""

    help: str
    make: Callable[[str], Sink]


TOOLS: Mapping[str, Tool] = {
    "tensorboard": Tool("event files, in the run's folder or tensorboard:FOLDER", TensorBoard),
    "wandb": Tool("Weights and Biases; wandb:PROJECT", lambda w: WandbLike("wandb", w)),
    "trackio": Tool("trackio; trackio:PROJECT", lambda w: WandbLike("trackio", w)),
    "mlflow": Tool("MLflow; mlflow:EXPERIMENT", MLflow),
    "prometheus": Tool("text for Prometheus to fetch: prometheus:PORT", Prometheus),
}
"""Name -> what it is, and what makes it of the text behind the colon."""


LogTo = str | Sink | Sequence["str | Sink"] | None
"""What `log_to` may be: one sink, several, or none."""


def make_sink(log_to: str | Sink) -> Sink:
    """A sink by its name in `TOOLS`, by MODULE:CLASS, or as it is. Raises ConfigError for one that
    is not there, or whose package is not.
    """
    if not isinstance(log_to, str):
        if isinstance(log_to, Sink):
            return log_to
        raise ConfigError(
            f"log_to is {log_to!r}, wanted one of {', '.join(TOOLS)} or an object with the methods "
            "begin, log and end (swarmsgd.observe.sinks.Sink)"
        )
    name, _, where = log_to.partition(":")
    if name in TOOLS or not where:
        return one_of("log_to", name, TOOLS, text=log_to).make(where)
    try:
        made = getattr(importlib.import_module(name), where)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"log_to is {log_to}: {error}; wanted MODULE:CLASS, or one of {', '.join(TOOLS)}"
        ) from None
    if isinstance(made, Sink):
        return made
    raise ConfigError(f"log_to is {log_to}, which has no methods begin, log and end")


def make_sinks(log_to: LogTo) -> list[Sink]:
    """All that is asked for; nothing is opened yet."""
    if log_to is None:
        return []
    if isinstance(log_to, list | tuple):
        return [make_sink(one) for one in log_to]
    return [make_sink(log_to)]  # pyright: ignore[reportArgumentType]


def _import(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if sys.modules.get(package) is not None or not isinstance(error, ModuleNotFoundError):
            raise ConfigError(f"{package} cannot be imported: {error}") from None
        raise ConfigError(
            f"log to {extra} needs the package {package.replace('_', '-')}: "
            f"pip install 'swarmsgd[{extra}]'"
        ) from None
