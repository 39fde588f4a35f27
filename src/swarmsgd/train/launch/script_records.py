"""The records of a script's run in one folder, for its report and its live page."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmsgd.errors import ConfigError
from swarmsgd.observe.ending import Ending
from swarmsgd.observe.folder import COMMAND, CONFIG, SUMMARY, RunFolder
from swarmsgd.observe.ports import check_port
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.words import notice
from swarmsgd.train.launch.local import launch
from swarmsgd.train.launch.processes import LauncherEvent, NodeEnd, Note, Outcome
from swarmsgd.train.launch.variables import RECORDS


@dataclass
class Kept:
    """A folder that gets what a launcher sees of its nodes; they themselves write their records."""

    folder: Path
    about: Mapping[str, Any]
    """What its summary has of the run."""
    numbered: bool = True
    """Whether the launcher knows the nodes' numbers; in an open swarm the store alone does."""
    _begin: float = field(default_factory=time.monotonic)

    def heard(self, event: LauncherEvent) -> None:
        """Note how a node died, and what is done about it."""
        if isinstance(event, NodeEnd) and event.failed:
            record_death(self.folder, event, numbered=self.numbered)
        elif isinstance(event, Note) and event.node is not None:
            node = event.node if self.numbered else None
            _record(self.folder, what="launcher", peer=node, text=event.text)

    def finish(self, outcome: Outcome) -> None:
        """Write what the launcher knows at the end; say where all is."""
        failed = [end.node for end in outcome.failed] if self.numbered else []
        details = [
            {"node": end.node, "failed": end in outcome.failed, "how": end.how}
            for end in outcome.nodes
        ]
        found = {
            **self.about,
            "simulated": False,
            "algorithm": "swarm",
            "wall_s": round(time.monotonic() - self._begin, 3),
            "failed_nodes": failed,
            "interrupted": outcome.interrupted_by,
            "nodes_detail": details if self.numbered else [],
        }
        ending = Ending(self.folder)
        ending.put(SUMMARY, json.dumps(found, indent=2) + "\n")
        if complaint := ending.complaint():
            notice(complaint)
        if any(self.folder.glob("node-*.jsonl")):
            notice(f"records are in {self.folder}; `swarmsgd report {self.folder}` makes a page")
        else:
            notice(f"no node wrote a record into {self.folder}: no script called swarmsgd.join()")


def launch_kept(
    argv: Sequence[str],
    nodes: int,
    *,
    out: Path | None,
    overwrite: bool,
    page: int | None,
    swarm: str | None,
    **options: Any,
) -> Outcome:
    """As `launch`, with all records in the folder `out`, or in a new one in runs/; shown at the
    port `page` meanwhile, if it is not None.

    Raises ConfigError also as `RunFolder`, and for a port that is taken. A folder in which nothing
    was begun is left empty.
    """
    if page is not None:
        check_port(page)
    about = {"task": argv[1], "nodes": nodes}
    config = json.dumps({"command": list(argv[1:]), **about}, indent=2)
    with RunFolder(out, "launch", overwrite=overwrite).owned(config) as folder:
        try:
            with _shown(folder, page):
                run = Kept(folder, about, numbered=swarm is None)
                env = {**os.environ, RECORDS: str(folder.absolute())}
                outcome = launch(argv, nodes, swarm=swarm, env=env, on_event=run.heard, **options)
                run.finish(outcome)
        except BaseException:
            if not any(folder.glob("*.jsonl")):
                (folder / CONFIG).unlink(missing_ok=True)
            raise
        return outcome


def _shown(folder: Path, page: int | None) -> contextlib.AbstractContextManager[object]:
    if page is None:
        return contextlib.nullcontext()
    from swarmsgd.observe.server import Dashboard

    dashboard = Dashboard(folder, port=page)
    notice(f"live page: {dashboard.address}")
    return dashboard


def record_death(folder: Path, end: NodeEnd, *, numbered: bool = True) -> None:
    """Leave a record of how a node's process ended, with its last words."""
    _record(folder, what="died", peer=end.node if numbered else None, text=end.why)


def _record(folder: Path, **event: Any) -> None:
    with contextlib.suppress(ConfigError), Recorder(folder / COMMAND, -1) as recorder:
        recorder.write("event", **event)
