"""What the records of a run say so far, read while its nodes write them."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from swarmsgd.observe.records import Record, Tail

RATE_S = 5.0
"""Samples a second are taken over this long."""


class NodeView:
    """What one node's records say so far."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.state = "starting"
        self.steps = 0
        self.samples = 0
        self.total_steps = 0
        self.total_samples = 0
        self.loss: float | None = None
        self.exchanges = 0
        self.bytes_sent = 0
        self.blocked_s: float | None = None
        self.gamma_estimate: float | None = None
        self.initiated = 0
        """Exchanges started here and mixed here."""
        self.last: dict[str, Record] = {}
        """The last record of each kind; evaluations as `eval own` and `eval mean`."""
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, record: Record) -> None:
        """Take in one record; kinds and fields that are not known change nothing."""
        kind = record["kind"]
        self.last[f"eval {record.get('model')}" if kind == "eval" else kind] = record
        match kind:
            case "start":
                self.state = "joining"
            case "plan":
                self.state = "joined"
                self.total_steps = record.get("total_steps", 0)
                self.total_samples = record.get("total_samples", 0)
            case "progress" | "result":
                self.state = "training" if kind == "progress" else "done"
                self._progress(record)
            case "exchange":
                self.initiated += (record.get("role") == "initiator") * record.get("every", 1)
            case "eval" if record.get("model") == "own":
                self.state = "waiting"
            case "mean":
                self.state = "waiting for the mean" if record.get("of") is None else "training"
            case "end":
                self.state = "left"
                self.steps = record.get("steps") or self.steps
                self.exchanges = record.get("mixes") or self.exchanges
                self.bytes_sent = record.get("bytes_sent") or self.bytes_sent

    def _progress(self, record: Record) -> None:
        counts = ("steps", "samples", "exchanges", "bytes_sent", "blocked_s")
        for name in (*counts, "loss", "gamma_estimate"):
            if record.get(name) is not None:
                setattr(self, name, record[name])
        self._recent.append((record["t"], self.samples))
        while len(self._recent) > 2 and record["t"] - self._recent[0][0] > RATE_S:
            self._recent.popleft()

    @property
    def samples_per_s(self) -> float:
        """Over the last few seconds; 0 when it does not train now."""
        if self.state != "training" or len(self._recent) < 2:
            return 0.0
        (then, before), (now, samples) = self._recent[0], self._recent[-1]
        return (samples - before) / (now - then) if now > then else 0.0


class RunView:
    """What the files of a run say so far, one file a node: `folder/node-<i>.jsonl`."""

    def __init__(self, folder: Path, num_nodes: int) -> None:
        self.nodes = [NodeView(node) for node in range(num_nodes)]
        self._tails = [Tail(record_path(folder, node)) for node in range(num_nodes)]

    def read(self) -> None:
        """Take in what was written since the last time."""
        for view, tail in zip(self.nodes, self._tails, strict=True):
            for record in tail.new():
                view.add(record)

    def set_state(self, node: int, state: str) -> None:
        """What the files cannot say: that the process ended."""
        self.nodes[node].state = state

    def total(self, name: str) -> float:
        """The sum of a figure over all nodes."""
        return sum(getattr(view, name) or 0 for view in self.nodes)

    @property
    def gamma(self) -> float | None:
        """The mean of the nodes' estimates of Gamma."""
        known = [view.gamma_estimate for view in self.nodes if view.gamma_estimate is not None]
        return sum(known) / len(known) if known else None

    @property
    def loss(self) -> float | None:
        """The mean of the nodes' latest training losses."""
        losses = [view.loss for view in self.nodes if view.loss is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def done(self) -> float:
        """Share of the planned samples, 0 to 1; a node that failed has none left to see."""
        wanted = sum(n.samples if n.state == "failed" else n.total_samples for n in self.nodes)
        return min(1.0, self.total("samples") / wanted) if wanted else 0.0


def record_path(folder: Path, node: int) -> Path:
    """Where node `node` of the run in `folder` writes its records."""
    return folder / f"node-{node}.jsonl"
