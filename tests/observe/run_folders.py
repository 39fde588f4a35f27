"""Folders of runs as `train` and `simulate` leave them, made up in a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from made_up import seed_points

from swarmsgd.observe.records import Recorder
from swarmsgd.observe.schema import filled
from swarmsgd.observe.summary import FIGURES


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def real_run(folder: Path, nodes: int = 4, *, dead: int | None = None, **summary: Any) -> Path:
    """A run of `train`: 20 s, a progress line each second and exchanges around a ring."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"nodes": nodes, "swarm": {"bits": 8}}))
    for node in range(nodes):
        _node(folder, node, nodes, dead)
    with Recorder(folder / "command.jsonl", -1, clock=Clock()) as recorder:
        if dead is not None:
            recorder.write("event", what="died", peer=dead, text="SIGKILL; last words: oops")
    failed = [] if dead is None else [dead]
    figures = {"algorithm": "swarm", "task": "vision", "nodes": nodes, "simulated": False}
    figures |= {"samples": 3200, "epochs": 2.0, "mean_loss": 0.3, "failed_nodes": failed}
    figures |= {"mean_score": 0.9, "score": "accuracy", "better": "higher", "bytes_sent": 12345}
    figures |= {"step_ms_max": 50.0}
    found = dict.fromkeys(FIGURES) | figures | summary
    (folder / "summary.json").write_text(json.dumps(found))
    return folder


def _node(folder: Path, node: int, nodes: int, dead: int | None) -> None:
    clock = Clock()
    with Recorder(folder / f"node-{node}.jsonl", node, clock=clock) as recorder:
        write = recorder.write
        host = {"host": "here", "threads": 1, "software": "torch 2"}
        write("start", **filled("start", num_nodes=nodes, **host))
        write("plan", **filled("plan", total_steps=40, unix_s=1000.0))
        for second in range(1, 21):
            clock.now = float(second)
            if node == dead and second > 9:
                return
            counts = {"steps": 2 * second, "samples": 40 * second, "bytes_sent": 1000 * second}
            more = {"loss": 2.0 / second, "gamma_estimate": 5.0, "exchanges": 2 * second}
            write("progress", **filled("progress", **counts, **more))
            seen = {"distance": 0.5, "left_out": second % 3, "bytes_out": 100, "bytes_in": 100}
            for role, peer in (("initiator", node + 1), ("partner", node - 1)):
                both = {"role": role, "peer": peer % nodes, "counter": second, "seconds": 0.01}
                write("exchange", **filled("exchange", **both, **seen))
        if dead is not None:
            write("event", what="lost", peer=dead, text="its process ended")
        times = {"step_ms_p50": 5.0 + node, "step_ms_p99": 9.0 + node, "step_ms_max": 50.0 - node}
        write("result", **filled("result", steps=40, samples=800, **times))


def simulated_run(folder: Path, nodes: int = 4, **summary: Any) -> Path:
    """A run of `simulate`: a curve, and exchanges of each node."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"nodes": nodes}))
    lines = [{**point, "gamma_estimate": 2.0, "scores": {}} for point in seed_points()]
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for node in range(nodes):
        clock = Clock()
        with Recorder(folder / f"node-{node}.jsonl", node, clock=clock) as recorder:
            for second in range(1, 10):
                clock.now = float(second)
                both = {"role": "initiator", "peer": (node + 1) % nodes, "seconds": 0.001}
                recorder.write("exchange", **filled("exchange", **both, bytes_out=50, distance=1.0))
            fields = {"steps": 100, "wall_s": 1.0 + node, "blocked_s": 0.1}
            recorder.write("result", **filled("result", **fields))
    figures = {"algorithm": "swarm", "task": "vision", "nodes": nodes, "simulated": True}
    figures |= {"wall_s": 10.0, "score": "accuracy", "mean_score": 0.9, "better": "higher"}
    (folder / "summary.json").write_text(json.dumps(dict.fromkeys(FIGURES) | figures | summary))
    return folder
