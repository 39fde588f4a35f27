"""Train neural networks without a barrier: asynchronous decentralized SGD for PyTorch.

Importing this opens no socket, thread, file or log handler; torch is imported when `join` is first
used.

Where things are: what one exchange does to the numbers, whom a node asks and what a dead peer
costs: `core`. Models as bytes: `codec`. Bytes between machines: `transport`. Who may talk to whom:
`graphs`. What is trained: `tasks`. Every setting: `settings`. Real runs: `train`, from
`train.node.join`. Virtual ones and the other algorithms: `sim`. Records, console and plots:
`observe`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarmsgd import errors as errors
    from swarmsgd import graphs as graphs
    from swarmsgd.graphs import Graph as Graph
    from swarmsgd.observe.records import read_records as read_records
    from swarmsgd.settings.swarm import SwarmSettings as SwarmSettings
    from swarmsgd.sim.command.config import SimConfig as SimConfig
    from swarmsgd.sim.command.run import simulate as simulate
    from swarmsgd.sim.engine.world import World as World
    from swarmsgd.train.checkpoint.export import export as export
    from swarmsgd.train.checkpoint.load import Loaded as Loaded
    from swarmsgd.train.checkpoint.load import load as load
    from swarmsgd.train.data.node_sampler import NodeSampler as NodeSampler
    from swarmsgd.train.data.open_sampler import OpenSampler as OpenSampler
    from swarmsgd.train.launch.local import launch as launch
    from swarmsgd.train.node.join import join as join
    from swarmsgd.train.node.swarm import Swarm as Swarm

_WHERE = {
    "Graph": "swarmsgd.graphs",
    "Loaded": "swarmsgd.train.checkpoint.load",
    "NodeSampler": "swarmsgd.train.data.node_sampler",
    "OpenSampler": "swarmsgd.train.data.open_sampler",
    "SimConfig": "swarmsgd.sim.command.config",
    "Swarm": "swarmsgd.train.node.swarm",
    "SwarmSettings": "swarmsgd.settings.swarm",
    "errors": "swarmsgd.errors",
    "export": "swarmsgd.train.checkpoint.export",
    "graphs": "swarmsgd.graphs",
    "World": "swarmsgd.sim.engine.world",
    "join": "swarmsgd.train.node.join",
    "launch": "swarmsgd.train.launch.local",
    "load": "swarmsgd.train.checkpoint.load",
    "read_records": "swarmsgd.observe.records",
    "simulate": "swarmsgd.sim.command.run",
}

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "Loaded",
    "NodeSampler",
    "OpenSampler",
    "SimConfig",
    "Swarm",
    "SwarmSettings",
    "World",
    "errors",
    "export",
    "graphs",
    "join",
    "launch",
    "load",
    "read_records",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'swarmsgd' has no attribute {name!r}")
    module = import_module(_WHERE[name])
    return module if _WHERE[name] == f"swarmsgd.{name}" else getattr(module, name)
