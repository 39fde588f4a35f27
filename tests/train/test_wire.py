"""What somebody learns and can do who sits on the wire between two nodes, or dials them."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nodes import free_port
from wire import LOOPBACK, Wire

import swarmsgd
from swarmsgd.errors import PeerError
from swarmsgd.observe.records import read_records
from swarmsgd.train.meet.place import Place
from swarmsgd.train.meet.rendezvous import Rendezvous
from swarmsgd.transport.keys import SwarmKey, make_key
from swarmsgd.transport.port import port_of
from swarmsgd.transport.zmq import ZmqTransport

pytestmark = pytest.mark.slow

DIM = 4000
WAIT_S = 120.0


class Pair:
    """Two nodes in this process; all that node 1 says or hears goes over a `Wire`."""

    def __init__(self, folder: Path, key: Path | None, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.key = key
        self.settings: dict[str, Any] = {}
        self.model = torch.randn(DIM, generator=torch.Generator().manual_seed(5))
        self.stats: dict[int, dict[str, Any]] = {}
        self.means: dict[int, torch.Tensor] = {}
        self.wires: list[Wire] = []
        self._errors: list[BaseException] = []
        self._patch = patch

    @property
    def seen(self) -> bytes:
        return b"".join(wire.seen for wire in self.wires)

    def run(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Start, exchange, let `meanwhile` happen, exchange on, take the mean, leave."""
        with contextlib.ExitStack() as stack:
            store = free_port()
            to_store = stack.enter_context(Wire(store))
            self.wires.append(to_store)
            self._lay_wires(stack)
            met = threading.Barrier(3)
            nodes = [
                threading.Thread(target=self._node, args=(rank, port, met))
                for rank, port in enumerate((store, to_store.port))
            ]
            for node in nodes:
                node.start()
            try:
                met.wait(WAIT_S)
                meanwhile()
                met.wait(WAIT_S)
            except BaseException:
                met.abort()
                raise
            finally:
                for node in nodes:
                    node.join()
        if self._errors:
            raise self._errors[0]

    def _lay_wires(self, stack: contextlib.ExitStack) -> None:
        listen, agree = Rendezvous.listen, Rendezvous.agree

        def listens(rendezvous: Rendezvous, most: int) -> ZmqTransport:
            transport = listen(rendezvous, most)
            if rendezvous.node == 1:  # the lower one dials
                wire = stack.enter_context(Wire(port_of(transport.endpoint)))
                self.wires.append(wire)
                transport.endpoint = f"tcp://{LOOPBACK}:{wire.port}"
            return transport

        def agrees(rendezvous: Rendezvous, settings: dict[str, Any], timeout_s: float) -> None:
            self.settings = settings
            agree(rendezvous, settings, timeout_s)

        self._patch.setattr(Rendezvous, "listen", listens)
        self._patch.setattr(Rendezvous, "agree", agrees)

    def _node(self, rank: int, port: int, met: threading.Barrier) -> None:
        try:
            model = torch.nn.Linear(DIM, 1, bias=False)
            model.weight.data[0] = self.model
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            model.weight.grad = torch.zeros_like(model.weight)
            with swarmsgd.join(
                model,
                optimizer,
                rank=rank,
                num_nodes=2,
                master_addr=LOOPBACK,
                master_port=port,
                key=self.key,
                mode="blocking",
                local_steps=1,
                bits=None,
                record=self.folder / f"node-{rank}.jsonl",
            ) as swarm:
                for _ in range(2):
                    for _ in range(5):
                        optimizer.step()
                    met.wait(WAIT_S)
                for _ in range(5):
                    optimizer.step()
                self.means[rank] = swarm.mean_model()["weight"][0]
                self.stats[rank] = swarm.stats()
        except BaseException as error:
            self._errors.append(error)
            met.abort()


def runs_of_64(record: bytes, secret: bytes) -> int:
    """How many runs of 64 bytes of the secret are in the record."""
    wanted = {secret[i : i + 64] for i in range(len(secret) - 63)}
    return len(wanted & {record[i : i + 64] for i in range(len(record) - 63)})


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "swarm.key")
    return tmp_path / "swarm.key"


def test_who_listens_in_learns_nothing_with_a_key_and_all_without(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(tmp_path, key, monkeypatch)
    pair.run()
    for with_key in (True, False):
        if not with_key:
            monkeypatch.undo()
            pair = Pair(tmp_path, None, monkeypatch)
            pair.run()
        model, settings = pair.model.numpy().tobytes(), json.dumps(pair.settings).encode()
        assert len(pair.seen) > 5 * len(model) and len(settings) > 64
        for secret in (model, settings):
            found = runs_of_64(pair.seen, secret)
            assert found == 0 if with_key else found > len(secret) / 2


def replayed(wire: Wire) -> int:
    """Say again what was said over a wire, each connection's part at once, until it is hung up on;
    how many such parts there were.
    """
    count = 0
    for said in list(wire.there):
        if not said:  # somebody only looked whether one listens
            continue
        with (
            socket.create_connection((LOOPBACK, wire.to), timeout=WAIT_S) as again,
            contextlib.suppress(ConnectionError),
        ):
            again.sendall(bytes(said))  # it may grow meanwhile
            while again.recv(1 << 16):
                pass
        count += 1
    return count


def dialled(wire: Wire, key: SwarmKey | None) -> str:
    """Dial a node as one of another swarm would; how that ended."""
    stranger = ZmqTransport(0, address=LOOPBACK, key=key)
    try:
        stranger.run = "run"
        stranger.dial(1, f"tcp://{LOOPBACK}:{wire.to}")
        while (why := stranger.refusal(1)) is None:
            assert 1 not in stranger.peers
            stranger.poll(0.01)
        return why
    finally:
        stranger.close()


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, "swarmsgd"):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_who_says_again_what_was_said_or_has_no_key_or_another_is_refused_and_named(
    key: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: Callable[[], list[str]],
) -> None:
    other = make_key(tmp_path / "other.key")
    pair = Pair(tmp_path, key, monkeypatch)
    refused = "who is no node of this swarm was refused"

    def told() -> bool:
        """By a node twice, and by the store."""
        texts = [text for text in warnings() if refused in text]
        return sum("at its store" not in t for t in texts) >= 2 and any("store" in t for t in texts)

    def meanwhile() -> None:
        to_store, link = pair.wires[0], pair.wires[-1]
        assert replayed(to_store) >= 1 and replayed(link) >= 1
        for theirs in (None, other):
            assert "could not be reached" in dialled(link, theirs)
            with pytest.raises(PeerError, match="hangs up on this node, which has"):
                Rendezvous(Place(1, 2, LOOPBACK, to_store.to, hosted=False), WAIT_S, theirs)
        give_up = time.monotonic() + WAIT_S
        while not told():
            assert time.monotonic() < give_up, warnings()
            time.sleep(0.01)

    pair.run(meanwhile)
    records = read_records(tmp_path / "node-1.jsonl")
    named = [each["text"] for each in records if each.get("what") == "stranger"]
    assert named[0].endswith(f"{refused}: it has no key or another one") and len(named) >= 2
    assert any(f"{refused} at its store (port " in each for each in warnings())
    # The run has gone on.
    for rank in (0, 1):
        assert pair.stats[rank]["completed"] > 0 and pair.stats[rank]["lost"] == 0
        assert pair.stats[rank]["lost_peers"] == {}
        assert torch.equal(pair.means[rank], pair.model)
