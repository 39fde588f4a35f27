"""`join()`: attach a model and its optimizer to a swarm; neither changes its type."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from swarmsgd.core.layout import Layout
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph, LiveGraph
from swarmsgd.observe.environment import environment
from swarmsgd.observe.records import WRITTEN_HERE, Recorder
from swarmsgd.observe.sinks import LogTo, make_sinks
from swarmsgd.observe.view import record_path
from swarmsgd.settings.swarm import SwarmSettings, with_settings
from swarmsgd.train.checkpoint.resumed import LOADED, SwarmStreams
from swarmsgd.train.launch import variables
from swarmsgd.train.meet.key import find_key
from swarmsgd.train.meet.place import Place, shall_listen
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.train.node.connect import Connecting
from swarmsgd.train.node.join_checks import check_averaged_once, check_steps_on, optimizers_of
from swarmsgd.train.node.sigterm import exit_on_sigterm
from swarmsgd.train.node.state import OptimizerState
from swarmsgd.train.node.swarm import JOINED, Swarm
from swarmsgd.train.node.watch import Watch

_log = logging.getLogger("swarmsgd")


def join(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer],
    *,
    record: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    listen: bool | None = None,
    log_to: LogTo = None,
    rank: int | None = None,
    num_nodes: int | None = None,
    master_addr: str | None = None,
    master_port: int | None = None,
    swarm: str | None = None,
    **settings: Any,
) -> Swarm:
    """Make this process one node of a swarm; `optimizer.step()` does the rest.

    Every node calls it once, with equal settings (`local_steps` may differ). After each burst of
    local steps the node averages with a random neighbour on `graph`, in the background. The
    settings are those of `SwarmSettings`; `graph` is a Graph or a name like "ring".
    Who this node is and where the others meet comes from the arguments, else from SWARMSGD_RANK,
    SWARMSGD_WORLD_SIZE, SWARMSGD_MASTER_ADDR and SWARMSGD_MASTER_PORT, else from RANK, WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT; with none of them set the swarm has one node. `swarm`, else
    SWARMSGD_SWARM, is HOST:PORT of an open swarm (`swarmsgd store`): any number of nodes come and
    go, none has a rank before. One that comes later, or is started again with its rank, takes over
    the model of a node that lives.

    `record` names a file that gets this node's records (JSON lines); without it SWARMSGD_RECORDS
    may name a folder for them, as `swarmsgd launch --out` does. `log_to` is where figures go
    meanwhile: "tensorboard", "wandb", "prometheus:9109", ..., or an object
    (`swarmsgd.observe.sinks`). `key`, else SWARMSGD_KEY, names the key file of the swarm
    (`swarmsgd keygen` makes one): with it all between nodes is encrypted, and nobody else gets in.
    `listen=False`, else SWARMSGD_LISTEN=0, is for a node that others cannot dial (NAT, a firewall):
    it listens at no port and dials out. Two such nodes exchange by way of others alone.

    A wrapper that keeps the optimizer it steps as its attribute `optimizer` does too. Several
    optimizers of one model join as a list, in the order of their steps: a local step is one of the
    last.

    Where nobody else handles SIGTERM it ends the process as SystemExit does: the node leaves in
    order.

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
    sinks = make_sinks(log_to)
    place = Place.find(
        os.environ,
        rank=rank,
        num_nodes=num_nodes,
        master_addr=master_addr,
        master_port=master_port,
        swarm=swarm,
    )
    optimizers = optimizers_of(optimizer)
    _check_free(optimizers)
    check_steps_on(model, optimizers)
    check_averaged_once(model)
    layout = Layout(model)
    watch = Watch(model, optimizers[-1], layout)
    states = [OptimizerState(name, layout, optimizers) for name, _ in config.states()]
    resumed = LOADED.get(optimizers[-1])

    def graph_of(node: int) -> Graph | LiveGraph:
        if place is not None and place.open:
            return config.live_graph(node, given="graph" in settings)
        return config.graph_of(1 if place is None else place.num_nodes)

    graph_of(0)  # one that cannot be is said before anybody waits
    swarm_key = find_key(key)
    listens = shall_listen(listen)
    rendezvous = None
    if place is not None:
        rendezvous = Rendezvous(place, config.join_timeout_s, swarm_key, listens=listens)
    node = 0 if rendezvous is None else rendezvous.node
    graph = graph_of(node)
    streams = SwarmStreams.of(config, node)
    try:
        recorder = Recorder(_record_file(record, node), node)
    except BaseException:
        if rendezvous is not None:
            rendezvous.leave()
        raise
    in_effect = config.in_effect() | {"graph": graph.name}
    recorder.write("start", num_nodes=graph.num_nodes, dim=layout.dim, **environment(), **in_effect)
    if rendezvous is None:
        _log.warning(
            "a swarm of one node: nobody to average with. RANK and WORLD_SIZE are not set; start "
            "with `swarmsgd launch -n 4 script.py` for four"
        )
        connection = None
    else:
        try:
            connecting = Connecting(
                rendezvous, model, watch, states, config, graph, recorder, streams, resumed
            )
            connection, graph = connecting.connect(), connecting.graph
        except BaseException:
            recorder.close()
            raise
        exit_on_sigterm()
    LOADED.pop(optimizers[-1], None)
    joined = Swarm(
        model,
        optimizers,
        config,
        graph,
        node,
        watch,
        states,
        connection,
        recorder,
        streams,
        resumed,
    )
    if sinks:
        joined.report_to(sinks)
    return joined


join.__signature__ = with_settings(join)


def _record_file(record: str | os.PathLike[str] | None, node: int) -> Path | None:
    """Where this node's records go: as asked for, else its file in the folder of the run, if
    whoever started it names one. A second swarm of this process has a folder in that one.
    """
    if record is not None:
        return Path(record)
    folder = os.environ.get(variables.RECORDS)
    if not folder:
        return None
    folders = (Path(folder) / f"swarm-{number}" for number in itertools.count(2))
    paths = (record_path(each, node) for each in itertools.chain([Path(folder)], folders))
    return next(path for path in paths if path.absolute() not in WRITTEN_HERE)


def _check_free(optimizers: list[Optimizer]) -> None:
    if any(optimizer in JOINED for optimizer in optimizers):
        raise ConfigError(
            "this optimizer is part of a swarm already: leave() that one before it joins another"
        )
