"""`join()`: attach a model and its optimizer to a swarm; neither changes its type."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from swarmsgd.codec import kernels, make_code
from swarmsgd.core import messages
from swarmsgd.core.layout import Layout, in_words
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Node
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph, random_partner, scheduled_partner
from swarmsgd.limits import need_descriptors
from swarmsgd.observe.records import Recorder
from swarmsgd.settings.swarm import AGREED, SwarmSettings, with_settings
from swarmsgd.train.checkpoint.resumed import FRESH, ITS_OWN, LOADED, Resumed, SwarmStreams
from swarmsgd.train.meet import collective
from swarmsgd.train.meet.key import find_key, warn_if_open
from swarmsgd.train.meet.place import Place
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.node.fit import check_averaged_once, check_steps_on, optimizers_of
from swarmsgd.train.node.staging import exchanged_vector
from swarmsgd.train.node.state import OptimizerState
from swarmsgd.train.node.swarm import JOINED, Connection, Swarm
from swarmsgd.train.node.watch import Watch
from swarmsgd.train.node.worker import Worker
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import SPARE
from swarmsgd.transport.zmq import ZmqTransport

MESSAGE_BYTES = 1 << 24
"""What a message may be longer than the float32 vectors it carries, with a half as much again."""

_log = logging.getLogger("swarmsgd")

ROUND = "round to go on with (a load() with step= chooses it)"
"""Nodes in matching mode must agree on it."""

KEY = "key of the swarm (SWARMSGD_KEY), by fingerprint"


def join(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    record: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    num_nodes: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
    **settings: Any,
) -> Swarm:
    """Make this process one node of a swarm; `optimizer.step()` does the rest.

    Every node calls it once, with equal settings (`local_steps` may differ). After each burst of
    local steps the node averages with a random neighbour on `graph`, in the background. The
    settings are those of `SwarmSettings`; `graph` is a Graph or a name like "ring".
    Who this node is and where the others meet comes from the arguments, else from SWARMSGD_RANK,
    SWARMSGD_WORLD_SIZE, SWARMSGD_MASTER_ADDR and SWARMSGD_MASTER_PORT, else from these without
    SWARMSGD_; with none of them set the swarm has one node. `record` names a file that gets this
    node's records (JSON lines). `key`, else SWARMSGD_KEY, names the key file of the swarm
    (`swarmsgd keygen` makes one): with it all between nodes is encrypted, and nobody else gets in.

    A wrapper that keeps the optimizer it steps as its attribute `optimizer` does too. Several
    optimizers of one model join as a list, in the order of their steps: a local step is one of the
    last.

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
    config = SwarmSettings.of(settings)
    place = Place.find(
        os.environ,
        rank=rank,
        num_nodes=num_nodes,
        master_addr=master_addr,
        master_port=master_port,
    )
    swarm_key = find_key(key)
    count = 1 if place is None else place.num_nodes
    chosen = config.graph_of(count)
    optimizers = optimizers_of(optimizer)
    _check_free(optimizers)
    check_steps_on(model, optimizers)
    check_averaged_once(model)
    layout = Layout(model)
    watch = Watch(model, optimizers[-1], layout)
    states = [OptimizerState(name, layout, optimizers) for name, _ in config.states()]
    node = 0 if place is None else place.rank
    resumed = LOADED.get(optimizers[-1])
    streams = SwarmStreams.of(config, node)
    recorder = Recorder(None if record is None else Path(record), node)
    in_effect = config.in_effect() | {"graph": chosen.name}
    recorder.write("start", num_nodes=count, dim=layout.dim, **in_effect)
    if place is None:
        _log.warning(
            "a swarm of one node: nobody to average with. RANK and WORLD_SIZE are not set; start "
            "with `swarmsgd launch -n 4 script.py` for four"
        )
        connection = None
    else:
        try:
            connection = connect(
                model, watch, states, config, chosen, place, recorder, streams, resumed, swarm_key
            )
        except BaseException:
            recorder.close()
            raise
    LOADED.pop(optimizers[-1], None)
    return Swarm(
        model,
        optimizers,
        config,
        chosen,
        node,
        watch,
        states,
        connection,
        recorder,
        streams,
        resumed,
    )


join.__signature__ = with_settings(join)


def connect(
    model: nn.Module,
    watch: Watch,
    states: list[OptimizerState],
    config: SwarmSettings,
    graph: Graph,
    place: Place,
    recorder: Recorder,
    streams: SwarmStreams,
    resumed: Resumed | None,
    key: SwarmKey | None,
) -> Connection:
    """Meet the other nodes, make sure all run the same thing, take the common start, open the
    links.
    """
    start = FRESH if resumed is None else resumed.start
    timeout_s = config.join_timeout_s
    kernels.prepare()
    rendezvous = Rendezvous(place, timeout_s, key)
    try:
        settings = _settings(model, watch.layout, config, graph)
        settings[KEY] = "none" if key is None else key.fingerprint
        if config.mode == "matching":
            settings[ROUND] = resumed.round(config) if resumed is not None else 0
        rendezvous.agree(settings, timeout_s)
        starts = rendezvous.get_all("begins", start, timeout_s)
        lives = [watch.live, *(state.live for state in states)]
        strides = [slot.stride for slot in watch.layout.slots]
        first = rendezvous.get_all("strides", json.dumps(strides), timeout_s)[0]
        watch.layout.order(json.loads(first))
        for live in lives:
            live.order(watch.layout.slots)
        alike = config.broadcast_start and ITS_OWN not in starts
        replica = _replica(lives, config, common_start=alike)
        if config.broadcast_start and place.num_nodes > 1 and not all(s == ITS_OWN for s in starts):
            copies = [vector.copy for vector in replica.vectors]
            others = [tensor for _, tensor in _not_exchanged(model)]
            tensors = [*map(torch.from_numpy, copies), *others]
            root, take = (0, True) if alike else (starts.index(ITS_OWN), start == FRESH)
            collective.broadcast(rendezvous, tensors, timeout_s, root=root, take=take)
            for live, copy in zip(lives, copies, strict=True) if take else ():
                live.write(copy)
        machine = _machine(graph, config, place.rank, streams)
        if resumed is not None:
            resumed.put_into(replica, machine, watch.layout, config)
        transport = _linked(rendezvous, graph, replica, timeout_s)
    except BaseException:
        collective.say_goodbye(rendezvous)
        raise
    worker = Worker(
        machine,
        replica,
        transport,
        run=messages.fingerprint(settings),
        recorder=recorder,
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


def _linked(
    rendezvous: Rendezvous, graph: Graph, replica: Replica, timeout_s: float
) -> ZmqTransport:
    """The open links to all neighbours. Raises PeerError naming who has none, and why."""
    rank = rendezvous.place.rank
    warn_if_open(rendezvous.swarm_key, rendezvous.address)
    links = len(graph.neighbours(rank))
    what = f"a node with {links} link{'s' * (links != 1)}"
    need_descriptors(links + 2 * SPARE, what)  # a mean has a port, too
    floats = sum(vector.copy.size for vector in replica.vectors)
    transport = rendezvous.listen(MESSAGE_BYTES + 6 * floats)
    try:
        mine = json.dumps([secrets.token_hex(8), transport.endpoint])
        everyone = [json.loads(text) for text in rendezvous.get_all("listens", mine, timeout_s)]
        endpoints = {peer: everyone[peer][1] for peer in graph.neighbours(rank)}
        transport.open(everyone[0][0], endpoints, timeout_s, rendezvous.gone)
    except BaseException:
        transport.close()
        raise
    return transport


def _machine(graph: Graph, config: SwarmSettings, rank: int, streams: SwarmStreams) -> Machine:
    neighbours = graph.neighbours(rank)
    if config.mode == "matching":
        return Matching(rank, neighbours, scheduled_partner(graph, config.seed, rank))
    return Node(rank, neighbours, random_partner(streams.partners))


def _replica(lives: list[Segments], config: SwarmSettings, *, common_start: bool) -> Replica:
    """The model and the states, each with a code of its own."""
    made: list[ExchangedVector] = []
    for (name, bits), live in zip([("model", config.bits), *config.states()], lives, strict=True):
        code = make_code(live.dim, bits, rotation=config.rotation, common_start=common_start)
        made.append(exchanged_vector(name, live, code))
    return Replica(made, threading.Lock())


def _settings(
    model: nn.Module, layout: Layout, config: SwarmSettings, graph: Graph
) -> dict[str, object]:
    """What all nodes must agree on, in the words of an error message."""
    in_effect = config.in_effect()
    return {
        "protocol version": messages.VERSION,
        **{name: in_effect[name] for name in AGREED},
        "graph": graph.name,
        "edges": zlib.crc32(graph.edge_array.tobytes()),
        "number of parameters": layout.dim,
        "parameters": layout.describe(),
        "buffers and frozen parameters": [in_words(*each) for each in _not_exchanged(model)],
    }


def _not_exchanged(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Frozen parameters and buffers, by name: they are node 0's at the start."""
    frozen = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}
    return sorted((frozen | dict(model.named_buffers())).items())


def _check_free(optimizers: list[Optimizer]) -> None:
    if any(optimizer in JOINED for optimizer in optimizers):
        raise ConfigError(
            "this optimizer is part of a swarm already: leave() that one before it joins another"
        )
