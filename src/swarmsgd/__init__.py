"""Train neural networks without a barrier: asynchronous decentralized SGD for PyTorch.

Importing this opens no socket, thread, file or log handler; torch is imported when `join` is first
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarmsgd import errors as errors
    from swarmsgd import graphs as graphs
    from swarmsgd.graphs import Graph as Graph
    from swarmsgd.settings.swarm import SwarmSettings as SwarmSettings
    from swarmsgd.sim.config import SimConfig as SimConfig
    from swarmsgd.sim.run import simulate as simulate
    from swarmsgd.sim.world import World as World
    from swarmsgd.train.join import join as join
    from swarmsgd.train.swarm import Swarm as Swarm

_WHERE = {
    "Graph": "swarmsgd.graphs",
    "SimConfig": "swarmsgd.sim.config",
    "Swarm": "swarmsgd.train.swarm",
    "SwarmSettings": "swarmsgd.settings.swarm",
    "errors": "swarmsgd.errors",
    "graphs": "swarmsgd.graphs",
    "World": "swarmsgd.sim.world",
    "join": "swarmsgd.train.join",
    "simulate": "swarmsgd.sim.run",
}

__version__ = "0.1.0"
__all__ = [
    "Graph",
    "SimConfig",
    "Swarm",
    "SwarmSettings",
    "World",
    "errors",
    "graphs",
    "join",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'swarmsgd' has no attribute {name!r}")
    module = import_module(_WHERE[name])
    return module if _WHERE[name] == f"swarmsgd.{name}" else getattr(module, name)
