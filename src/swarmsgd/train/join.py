"""`join()`: attach a model and its optimizer to a swarm; neither changes its type."""

from __future__ import annotations

import logging
import os
import zlib
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from swarmsgd import graphs
from swarmsgd.codec import kernels, make_code, rotates
from swarmsgd.config import Config
from swarmsgd.core import messages
from swarmsgd.core.arena import Arena
from swarmsgd.core.node import Node
from swarmsgd.errors import ConfigError, ModelError
from swarmsgd.graphs import Graph, random_partner, scheduled_partner
from swarmsgd.observe.records import Recorder
from swarmsgd.train import collective
from swarmsgd.train.rendezvous import Place, Rendezvous
from swarmsgd.train.replica import Replica
from swarmsgd.train.swarm import JOINED, Connection, Swarm
from swarmsgd.train.worker import Worker
from swarmsgd.transport.gloo import GlooTransport

log = logging.getLogger("swarmsgd")


def join(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    graph: str | Graph = "complete",
    local_steps: int | str = 4,
    mode: str = "non-blocking",
    bits: int | None = 8,
    rotation: bool | None = None,
    seed: int = 0,
    broadcast_start: bool = True,
    join_timeout_s: float = 300.0,
    record: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    num_nodes: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
) -> Swarm:
    """Make this process one node of a swarm; `optimizer.step()` does the rest.

    Every node calls it once, with equal settings (`local_steps` may differ). After each burst of
    local steps the node averages with a random neighbour on `graph`, in the background. The
    settings are those of `Config`; `graph` is a Graph or a name like "ring" or "random-regular:4".
    Who this node is and where the others meet comes from the arguments, else from RANK,
    WORLD_SIZE, MASTER_ADDR and MASTER_PORT; with none of them set the swarm has one node. `record`
    names a file that gets this node's records (JSON lines).

    Returns when all nodes have joined. Raises ConfigError (a setting), ModelError (a model that
    cannot be exchanged) or PeerError (nodes missing, or with other settings or another model).

    >>> import torch, swarmsgd
    >>> model = torch.nn.Linear(4, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with swarmsgd.join(model, optimizer) as swarm:
    ...     for _ in range(8):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(16, 4)).square().mean().backward()
    ...         optimizer.step()
    ...     final = swarm.mean_model()
    """
    config = Config(
        local_steps=local_steps,
        mode=mode,
        bits=bits,
        rotation=rotation,
        seed=seed,
        broadcast_start=broadcast_start,
        join_timeout_s=join_timeout_s,
    )
    place = Place.find(
        os.environ,
        rank=rank,
        num_nodes=num_nodes,
        master_addr=master_addr,
        master_port=master_port,
    )
    count = 1 if place is None else place.num_nodes
    chosen = graphs.parse(graph, count, seed) if isinstance(graph, str) else graph
    if chosen.num_nodes != count:
        raise ConfigError(
            f"the graph {chosen.name} has {chosen.num_nodes} nodes, the run has {count}: "
            "make the graph for as many nodes as there are processes"
        )
    _check_optimizer(model, optimizer)
    arena = Arena(model)
    node = 0 if place is None else place.rank
    recorder = Recorder(None if record is None else Path(record), node)
    recorder.write(
        "start",
        num_nodes=count,
        graph=chosen.name,
        dim=arena.dim,
        mode=config.mode,
        bits=config.bits,
        local_steps=str(config.local_steps),
        seed=config.seed,
    )
    if place is None:
        log.warning(
            "a swarm of one node: nobody to average with. RANK and WORLD_SIZE are not set; start "
            "with `swarmsgd launch -n 4 script.py` for four"
        )
        connection = None
    else:
        try:
            connection = connect(model, arena, config, chosen, place, recorder)
        except BaseException:
            arena.release()
            recorder.close()
            raise
    return Swarm(model, optimizer, config, chosen, node, arena, connection, recorder)


def connect(
    model: nn.Module,
    arena: Arena,
    config: Config,
    graph: Graph,
    place: Place,
    recorder: Recorder,
) -> Connection:
    """Meet the other nodes, make sure all run the same thing, take the common start, open the
    links.
    """
    timeout_s = config.join_timeout_s
    kernels.prepare()
    rendezvous = Rendezvous(place, timeout_s)
    try:
        settings = _settings(arena, config, graph)
        rendezvous.agree(settings, timeout_s)
        if config.broadcast_start and place.num_nodes > 1:
            frozen = [p.data for p in model.parameters() if not p.requires_grad]
            tensors: list[torch.Tensor] = [arena.live, *frozen, *model.buffers()]
            collective.broadcast(rendezvous, tensors, timeout_s)
        code = make_code(
            arena.dim,
            config.bits,
            rotation=config.rotation,
            common_start=config.broadcast_start,
        )
        replica = Replica(arena, code)
        neighbours = graph.neighbours(place.rank)
        transport = GlooTransport(
            place.rank,
            neighbours,
            rendezvous.connect,
            address=rendezvous.address,
            prefix=rendezvous.key("links"),
            connect_timeout_s=timeout_s,
        )
        try:
            transport.connect()
        except BaseException:
            transport.close()
            raise
    except BaseException:
        collective.say_goodbye(rendezvous)
        raise
    matching = config.mode == "matching"
    worker = Worker(
        Node(place.rank, neighbours, matching=matching),
        replica,
        transport,
        run=messages.fingerprint(settings),
        pick=scheduled_partner(graph, config.seed, place.rank)
        if matching
        else random_partner(config.seed, place.rank),
        recorder=recorder,
        bits=config.bits,
        rounds=matching,
    )
    connection = Connection(
        rendezvous, replica, worker, collective.Beat(rendezvous, worker.lost_peers)
    )
    try:
        worker.start()
        connection.beat.start()
        rendezvous.get_all("joined", "", timeout_s)  # none trains and leaves before all are here
    except BaseException:
        connection.close()
        raise
    return connection


def _settings(arena: Arena, config: Config, graph: Graph) -> dict[str, object]:
    """What all nodes must agree on, in the words of an error message."""
    return {
        "protocol version": messages.VERSION,
        "graph": graph.name,
        "edges": zlib.crc32(graph.edge_array.tobytes()),
        "mode": config.mode,
        "bits": config.bits,
        "rotation": rotates(config.bits, config.rotation),
        "seed": config.seed,
        "broadcast_start": config.broadcast_start,
        "number of parameters": arena.dim,
        "parameters": arena.describe(),
    }


def _check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    """The optimizer must step on this model, or the swarm would average what nobody trains; and for
    one swarm alone.
    """
    if optimizer in JOINED:
        raise ConfigError(
            "this optimizer is part of a swarm already: leave() that one before it joins another"
        )
    mine = {id(p) for p in model.parameters()}
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not mine & stepped:
        raise ModelError(
            "the optimizer holds none of the model's parameters: nothing it does would be "
            "exchanged. "
            "Make the optimizer from this model's parameters, then join"
        )
