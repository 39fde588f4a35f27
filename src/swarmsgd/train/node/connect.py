"""From a model and a meeting place to a node that exchanges: the common start of a fixed list of
nodes, or the way of one that comes later.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from swarmsgd.codec import kernels, make_code
from swarmsgd.core import messages
from swarmsgd.core.layout import in_words
from swarmsgd.core.matching import Machine, Matching
from swarmsgd.core.node import Node
from swarmsgd.core.outliers import Outliers
from swarmsgd.core.progress import Total
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ConfigError
from swarmsgd.graphs import Graph, LiveGraph, random_partner, reachable, scheduled_partner
from swarmsgd.limits import need_descriptors
from swarmsgd.observe.records import Recorder
from swarmsgd.settings.swarm import AGREED, SwarmSettings
from swarmsgd.train.checkpoint.resumed import FRESH, ITS_OWN, Resumed, SwarmStreams
from swarmsgd.train.meet import collective
from swarmsgd.train.meet.key import warn_if_open
from swarmsgd.train.meet.news import News, RunHasBegun
from swarmsgd.train.meet.rendezvous import Rendezvous, through_json
from swarmsgd.train.node.arrival import heal
from swarmsgd.train.node.connection import Connection
from swarmsgd.train.node.linker import Linker, Neighbours
from swarmsgd.train.node.not_exchanged import NotExchanged, bytes_of, not_exchanged, taken_in
from swarmsgd.train.node.staging import exchanged_vector
from swarmsgd.train.node.state import OptimizerState
from swarmsgd.train.node.watch import Watch
from swarmsgd.train.node.worker import Worker
from swarmsgd.transport.port import SPARE
from swarmsgd.transport.zmq import ZmqTransport

_MESSAGE_BYTES = 1 << 24
"""What a message may be longer than the float32 vectors it carries, with a half as much again."""

ROUND = "round to go on with (a load() with step= chooses it)"
"""Nodes in matching mode must agree on it."""

_KEY = "key of the swarm (SWARMSGD_KEY), by fingerprint"


class Parts(NamedTuple):
    """What a worker is made of, once it has a model to begin with."""

    machine: Machine
    replica: Replica
    transport: ZmqTransport
    strides: list[list[int]]
    """In which the parts of all vectors lie, on all nodes."""
    late: bool
    """Whether the run had begun."""


@dataclass(slots=True)
class Connecting:
    """One node on its way into a swarm."""

    rendezvous: Rendezvous
    model: nn.Module
    watch: Watch
    states: Sequence[OptimizerState]
    config: SwarmSettings
    graph: Graph | LiveGraph
    recorder: Recorder
    streams: SwarmStreams
    resumed: Resumed | None
    lives: list[Segments] = field(init=False)
    settings: dict[str, object] = field(init=False)
    progress: Total = field(init=False, default=Total())

    def connect(self) -> Connection:
        """Meet the others; returns when this node takes part. Raises SwarmError, with nothing left
        behind.
        """
        kernels.prepare()
        rendezvous, config = self.rendezvous, self.config
        self.lives = [self.watch.live, *(state.live for state in self.states)]
        self.settings = self._settings()
        try:
            late = rendezvous.begun or rendezvous.place.open
            parts = None if late else self._begin_together()
            parts = parts or self._come_late()
        except BaseException:
            rendezvous.leave()
            raise
        others = NotExchanged(self.model)
        linker = None
        if config.mode != "matching":
            linker = Linker(rendezvous.node, parts.transport, self._neighbours())
        worker = Worker(
            parts.machine,
            parts.replica,
            parts.transport,
            run=messages.fingerprint(self.settings),
            recorder=self.recorder,
            linker=linker,
            others=others,
        )
        parts.transport.on_stranger = worker.stranger
        worker.endpoint.progress.take_over(self.progress)
        connection = Connection(rendezvous, parts.replica, worker, others)
        try:
            self._go_live(worker, parts)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_together(self) -> Parts | None:
        """Make sure all run the same thing, take the common start, open the links. None if the run
        turns out to go on already.
        """
        try:
            return self._together()
        except RunHasBegun:
            self.rendezvous.come_late()
            return None

    def _together(self) -> Parts:
        rendezvous, config = self.rendezvous, self.config
        timeout_s = config.join_timeout_s
        start = FRESH if self.resumed is None else self.resumed.start
        rendezvous.agree(self.settings, timeout_s)
        begins = rendezvous.get_all("begins", [start, rendezvous.listens], timeout_s)
        starts = [each for each, _ in begins]
        assert isinstance(self.graph, Graph)
        self.graph = reachable(
            self.graph, [r for r, (_, listens) in enumerate(begins) if not listens]
        )
        strides = rendezvous.get_all("strides", self._strides(), timeout_s)[0]
        self._order(strides)
        alike = config.broadcast_start and ITS_OWN not in starts
        replica = self._replica(common_start=alike)
        alone = rendezvous.place.num_nodes == 1
        if config.broadcast_start and not alone and not all(s == ITS_OWN for s in starts):
            copies = [vector.copy for vector in replica.vectors]
            others = [tensor for _, tensor in not_exchanged(self.model)]
            tensors = [*map(torch.from_numpy, copies), *others]
            root, take = (0, True) if alike else (starts.index(ITS_OWN), start == FRESH)
            collective.broadcast(rendezvous, tensors, timeout_s, root=root, take=take)
            if take:
                self._take_over(replica)
        neighbours = self.graph.neighbours(rendezvous.node)
        machine = self._machine(neighbours)
        if self.resumed is not None:
            self.resumed.put_into(replica, machine, self.watch.layout, config)
        transport = self._listen(replica)
        try:
            everyone = rendezvous.get_all("listens", transport.endpoint, timeout_s)
            endpoints = {peer: everyone[peer] for peer in neighbours}
            transport.open(rendezvous.token, endpoints, timeout_s, rendezvous.gone)
        except BaseException:
            transport.close()
            raise
        return Parts(machine, replica, transport, strides, late=False)

    def _come_late(self) -> Parts:
        """Take a model of the nodes that live; the first node of an open swarm has its own."""
        rendezvous, config = self.rendezvous, self.config
        if config.mode == "matching":
            raise ConfigError(
                "in matching mode all nodes make all rounds together: none can come later. Use "
                "mode non-blocking or blocking where nodes come and go"
            )
        strides = self._strides()
        if rendezvous.begun:
            rendezvous.agree_late(self.settings)
            strides = rendezvous.welcome["facts"]["strides"]
        self._order(strides)
        replica = self._replica(common_start=False)
        transport = self._listen(replica)
        try:
            transport.run = rendezvous.token
            if rendezvous.begun:
                self._heal(replica, transport)
        except BaseException:
            transport.close()
            raise
        return Parts(self._machine(()), replica, transport, strides, late=True)

    def _heal(self, replica: Replica, transport: ZmqTransport) -> None:
        others = [tensor for _, tensor in not_exchanged(self.model)]
        transport.tells_opened = True
        healed = heal(
            transport,
            self.rendezvous.line.living,
            [vector.copy.view(np.uint8) for vector in replica.vectors],
            bytes_of(others),
            run=messages.fingerprint(self.settings),
            incarnation=self.rendezvous.incarnation,
            timeout_s=self.config.join_timeout_s,
            call=partial(self.rendezvous.line.say, "arriving", endpoint=transport.endpoint),
        )
        taken_in(healed.others, others)
        self._take_over(replica)
        self.progress = healed.progress
        of = ", ".join(map(str, healed.of))
        self.recorder.write(
            "event", what="healed", peer=healed.of[-1], text=f"took over the model of node {of}"
        )

    def _go_live(self, worker: Worker, parts: Parts) -> None:
        rendezvous, endpoint = self.rendezvous, parts.transport.endpoint
        facts = {"settings": through_json(self.settings), "strides": parts.strides}
        worker.start()
        if parts.late:
            rendezvous.go_live(endpoint, facts)
        else:  # none trains before all are here
            rendezvous.begin(endpoint, facts, self.config.join_timeout_s)

        def on_news(news: list[News]) -> None:
            worker.do(partial(worker.hear, news))

        live = rendezvous.line.listen(on_news)
        worker.do(partial(worker.begin_links, live))

    # Parts.

    def _neighbours(self) -> Neighbours:
        graph, me = self.graph, self.rendezvous.node
        if isinstance(graph, LiveGraph):
            return graph.neighbours
        mine = frozenset(graph.neighbours(me))

        def neighbours(live: Iterable[int], hidden: Collection[int]) -> Iterable[int]:
            return mine.intersection(live).difference(hidden if me in hidden else ())

        return neighbours

    def _strides(self) -> list[list[int]]:
        return [list(slot.stride) for slot in self.watch.layout.slots]

    def _order(self, strides: list[list[int]]) -> None:
        self.watch.layout.order(strides)
        for live in self.lives:
            live.order(self.watch.layout.slots)

    def _take_over(self, replica: Replica) -> None:
        """The model begins as its copy is now."""
        for live, vector in zip(self.lives, replica.vectors, strict=True):
            live.write(vector.copy)

    def _listen(self, replica: Replica) -> ZmqTransport:
        warn_if_open(self.rendezvous.swarm_key, self.rendezvous.address)
        graph = self.graph
        links = len(graph.neighbours(self.rendezvous.node)) if isinstance(graph, Graph) else 0
        what = f"a node with {links} link{'s' * (links != 1)}"
        need_descriptors(links + 2 * SPARE, what)  # a mean has a port, too
        floats = sum(vector.copy.size for vector in replica.vectors)
        return self.rendezvous.listen(_MESSAGE_BYTES + 6 * floats)

    def _machine(self, neighbours: Iterable[int]) -> Machine:
        node, config = self.rendezvous.node, self.config
        incarnation = self.rendezvous.incarnation
        if config.mode == "matching":
            assert isinstance(self.graph, Graph)
            partner_of = scheduled_partner(self.graph, config.seed, node)
            return Matching(node, neighbours, partner_of, incarnation=incarnation)
        return Node(
            node, neighbours, random_partner(self.streams.partners), incarnation=incarnation
        )

    def _replica(self, *, common_start: bool) -> Replica:
        """The model and the states, each with a code of its own."""
        config, made = self.config, list[ExchangedVector]()
        vectors = [("model", config.bits), *config.states()]
        for (name, bits), live in zip(vectors, self.lives, strict=True):
            code = make_code(live.dim, bits, rotation=config.rotation, common_start=common_start)
            made.append(exchanged_vector(name, live, code))
        if config.refuse_beyond is not None:
            made[0].outliers = Outliers(config.refuse_beyond)
        return Replica(made, threading.Lock())

    def _settings(self) -> dict[str, object]:
        """What all nodes must agree on, in the words of an error message."""
        layout, graph, config = self.watch.layout, self.graph, self.config
        in_effect = config.in_effect()
        key = self.rendezvous.swarm_key
        settings: dict[str, object] = {
            "protocol version": messages.VERSION,
            **{name: in_effect[name] for name in AGREED},
            "graph": graph.name,
            "edges": zlib.crc32(graph.edge_array.tobytes()) if isinstance(graph, Graph) else 0,
            "number of parameters": layout.dim,
            "parameters": layout.describe(),
            "buffers and frozen parameters": [
                in_words(*each) for each in not_exchanged(self.model)
            ],
            _KEY: "none" if key is None else key.fingerprint,
        }
        if config.mode == "matching":
            settings[ROUND] = self.resumed.round(config) if self.resumed is not None else 0
        return settings
