"""Links over Gloo, both ends in this process; what ends a process is in test_gloo_processes.py."""

import json
import os
import re
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed import (
    HashStore,  # pyright: ignore[reportPrivateImportUsage]
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    Store,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from swarmsgd.errors import ConfigError, LinkClosed, PeerError, ProtocolError
from swarmsgd.testing import (
    TRANSPORT_CHECKS,
    Cluster,
    Edge,
    Inbox,
    send,
    threads_and_descriptors,
)
from swarmsgd.transport.gloo import GlooTransport, open_group
from swarmsgd.transport.meeting import Card
from swarmsgd.transport.sockets import SocketAddress

LOOPBACK = "127.0.0.1"


def make_nodes(
    edges: Iterable[Edge], store: Store | None = None, **options
) -> dict[int, GlooTransport]:
    neighbours: dict[int, list[int]] = {}
    for i, j in edges:
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    store = store or HashStore()
    options = {"address": LOOPBACK, "connect_timeout_s": 600.0, **options}
    return {r: GlooTransport(r, others, store, **options) for r, others in neighbours.items()}


def connect(nodes: Iterable[GlooTransport], **options) -> list[str]:
    """Connect all at once; what the errors said."""
    said: list[str] = []

    def run(node: GlooTransport) -> None:
        try:
            node.connect(**options)
        except PeerError as error:
            said.append(str(error))

    threads = [threading.Thread(target=run, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@contextmanager
def linked(edges: Iterable[Edge], **options) -> Iterator[dict[int, GlooTransport]]:
    nodes = make_nodes(edges, **options)
    assert connect(nodes.values()) == []
    yield nodes
    for node in nodes.values():
        node.close()


@contextmanager
def in_process(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
    with linked(edges, max_queued_messages=1000) as nodes:
        yield Cluster(nodes)


@pytest.mark.slow
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
def test_gloo_links_are_a_transport(check):
    check(in_process)


# Meeting.


def test_links_are_opened_over_a_tcp_store_and_its_prefixes():
    store = TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)

    def client() -> Store:
        return TCPStore(LOOPBACK, store.port, is_master=False, wait_for_workers=False)

    stores = [store, client]
    if hasattr(PrefixStore, "clone"):  # since torch 2.7
        stores.append(PrefixStore("deep", client()))
    for number, given in enumerate(stores):
        with linked([(0, 1), (0, 2), (1, 2)], store=given, prefix=f"run{number}") as nodes:
            inboxes = [Inbox(nodes[rank]) for rank in range(3)]
            send(nodes[0], 1, b"x")
            inboxes[1].wait_messages(1)


def test_who_does_not_appear_is_named_and_the_other_links_can_be_used():
    nodes = make_nodes([(0, 1), (0, 2), (0, 3)], connect_timeout_s=2.0)
    said = connect([nodes[0], nodes[1]])
    assert [re.sub(r"\d\.\d s", "2.0 s", line) for line in said] == [
        "node 0 has no link to 2 of 3 neighbours. Node 2 did not appear within 2.0 s. Start it, or "
        "go on without it. Node 3 did not appear within 2.0 s. Start it, or go on without it"
    ]
    assert nodes[0].peers == {1}
    inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
    send(nodes[0], 1, b"on")
    inboxes[1].wait_messages(1)
    with pytest.raises(LinkClosed, match=r"no link to node 2, only to \[1\]"):
        send(nodes[0], 2, b"x")
    for node in nodes.values():
        node.close()


def test_start_connects_if_nobody_did():
    nodes = make_nodes([(0, 1)])
    other = threading.Thread(target=Inbox, args=(nodes[1],))
    other.start()
    inbox = Inbox(nodes[0])
    other.join()
    send(nodes[1], 0, b"x")
    inbox.wait_messages(1)
    for node in nodes.values():
        node.close()


def test_a_lost_link_can_be_opened_again():
    with linked([(0, 1), (0, 2)]) as nodes:
        inboxes = [Inbox(nodes[rank]) for rank in range(3)]
        for tag in ("second life", "third life"):
            nodes[0].drop(1)
            inboxes[1].wait_lost(0)
            inboxes[1].lost.clear()
            assert connect([nodes[0], nodes[1]], tag=tag) == []
            assert nodes[0].peers == {1, 2}
            for rank in (1, 2):
                inboxes[rank].messages.clear()
                send(nodes[0], rank, tag.encode())
                inboxes[rank].wait_messages(1)
        assert not inboxes[2].lost


def test_closing_ends_a_connect_that_waits():
    before = threads_and_descriptors()["threads"]
    node = make_nodes([(0, 1)], connect_timeout_s=300.0)[0]
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.extend(connect([node])))
    thread.start()
    while threads_and_descriptors()["threads"] < before + 3:  # connect, and the one that meets 1
        pass
    node.close()
    thread.join(600)
    assert not thread.is_alive() and "node 0 has no link to 1 of 1" in said[0]
    with pytest.raises(LinkClosed, match="closed; make a new one"):
        node.connect()


@pytest.mark.parametrize(
    ("card", "match"),
    [
        (Card(LOOPBACK, 1, 2, version=99), "speaks link version 99, this node 1"),
        (Card(LOOPBACK, 1, 1), "cannot be reached at 127.0.0.1 from 127.0.0.1: Connection refused"),
    ],
)
def test_a_neighbour_that_cannot_be_linked_says_why(card, match):
    store = HashStore()
    fields = {name: getattr(card, name) for name in Card.__slots__}
    store.set("swarmsgd/link/0-1/card/1", json.dumps(fields))
    node = make_nodes([(0, 1)], store)[0]
    with pytest.raises(PeerError, match=f"Node 1 {match}"):
        node.connect()
    node.close()


def test_a_neighbour_that_cannot_reach_us_says_why():
    store, listener = HashStore(), socket.create_server((LOOPBACK, 0))
    card = {"address": LOOPBACK, "port": 0, "probe_port": listener.getsockname()[1], "version": 1}
    store.set("swarmsgd/link/0-1/card/1", json.dumps(card))
    store.set("swarmsgd/link/0-1/reached/1", "timed out")
    node = make_nodes([(0, 1)], store)[0]
    with pytest.raises(PeerError, match=r"Node 1 cannot reach this node at .*: timed out\. Check"):
        node.connect()
    node.close()
    listener.close()


def test_an_address_of_another_machine_is_refused():
    node = make_nodes([(0, 1)], address="203.0.113.1")[0]
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1"):
        node.connect()
    node.close()


def test_a_node_is_not_its_own_neighbour():
    with pytest.raises(ConfigError, match="not its own neighbour"):
        GlooTransport(0, [0, 1], HashStore(), address=LOOPBACK)
    with pytest.raises(ConfigError, match="not its own neighbour"):
        make_nodes([(0, 1)])[0].connect([0])


# Messages.


def test_a_message_beyond_the_limit_is_refused_here_and_costs_the_link_there():
    with linked([(0, 1)]) as nodes, linked([(2, 3)], max_message_bytes=1000) as small:
        with pytest.raises(ProtocolError, match="1001 bytes, the limit is 1000"):
            send(small[2], 3, bytes(1001))
        nodes[1]._links[0]._limits = small[2]._limits
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        send(nodes[0], 1, bytes(1000))
        send(nodes[0], 1, bytes(1001))
        inboxes[1].wait_lost(0)
        inboxes[0].wait_lost(1)
        assert len(inboxes[1].messages) == 1
        assert "announced a message of 1001 bytes" in inboxes[1].lost[0][1]


def test_what_is_no_message_is_refused():
    with linked([(0, 1)]) as nodes:
        for wrong in (
            torch.zeros(4).numpy(),
            nodes[0].take(6).reshape(2, 3),
            nodes[0].take(6)[::2],
        ):
            with pytest.raises(ProtocolError, match="wanted contiguous 1-d uint8"):
                nodes[0].send(1, wrong)  # pyright: ignore[reportArgumentType]


def test_a_callback_that_raises_costs_its_link_only(caplog):
    def fail(peer, _message):
        if peer == 1:
            raise ValueError("a bug")

    with linked([(0, 1), (0, 2)]) as nodes:
        inboxes = [Inbox(nodes[0], fail), Inbox(nodes[1]), Inbox(nodes[2])]
        send(nodes[1], 0, b"x")
        inboxes[0].wait_lost(1)
        inboxes[1].wait_lost(0)
        send(nodes[2], 0, b"y")
        inboxes[0].wait_messages(1)
        assert inboxes[0].lost == [(1, "on_message raised ValueError('a bug')")]
    assert "a bug" in caplog.text


def test_a_callback_may_close_the_transport():
    nodes = make_nodes([(0, 1), (0, 2)])
    connect(nodes.values())
    closed = threading.Event()

    def close(_peer, _message):
        nodes[0].close()
        closed.set()

    others = [Inbox(nodes[1]), Inbox(nodes[2])]
    Inbox(nodes[0], close)
    send(nodes[1], 0, b"x")
    assert closed.wait(10)
    for other in others:
        other.wait_lost(0)
    for node in nodes.values():
        node.close()


# The port.

GARBAGE = {
    "random bytes": lambda s: s.sendall(os.urandom(10_000)),
    "zeros": lambda s: s.sendall(bytes(64)),
    "a web request": lambda s: s.sendall(b"GET / HTTP/1.0\r\n\r\n"),
    "too little": lambda s: s.sendall(b"abc"),
    "nothing": lambda s: None,
    "a reset": lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
}
needs_linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


def endpoint_of(node: GlooTransport) -> SocketAddress:
    assert node._port is not None
    return node._port.endpoint


def poke(endpoint: SocketAddress, poker, *, keep: list[socket.socket] | None) -> None:
    sock = socket.create_connection(endpoint, timeout=0.1)
    try:
        poker(sock)
    finally:
        if keep is None:
            sock.close()
        else:
            keep.append(sock)


@needs_linux
def test_the_port_is_deaf_once_the_links_are_open():
    with linked([(0, 1)]) as nodes:
        endpoint = endpoint_of(nodes[0])
        before = threads_and_descriptors()["descriptors"]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                socket.create_connection(endpoint, timeout=0.1)
        assert threads_and_descriptors()["descriptors"] <= before


@needs_linux
@pytest.mark.parametrize("poker", GARBAGE.values(), ids=GARBAGE)
def test_garbage_while_links_are_being_opened_harms_nobody(poker):
    before = threads_and_descriptors()
    nodes = make_nodes([(0, 1), (0, 2)], connect_timeout_s=600.0)
    first = threading.Thread(target=connect, args=([nodes[1]],))
    first.start()
    nodes[0].connect([1])
    first.join()
    inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
    late = threading.Thread(target=connect, args=([nodes[0]],))
    late.start()  # waits for node 2, its port open
    endpoint = endpoint_of(nodes[0])
    kept: list[socket.socket] = []
    poked = 0
    while poked < 20:
        try:
            poke(endpoint, poker, keep=kept if poked % 2 else None)
            poked += 1
        except TimeoutError:
            continue  # not open yet
        except OSError:
            poked += 1  # it may hang up on us
    assert connect([nodes[2]]) == []
    late.join()
    inboxes.append(Inbox(nodes[2]))
    send(nodes[0], 1, b"on")
    send(nodes[2], 0, b"on")
    inboxes[0].wait_messages(1)
    inboxes[1].wait_messages(1)
    assert not any(inbox.lost for inbox in inboxes)
    for node in nodes.values():
        node.close()
    for sock in kept:
        sock.close()
    held = threads_and_descriptors()
    assert held["descriptors"] <= before["descriptors"], "Gloo keeps no garbage behind its device"


# Company.


def test_the_users_own_default_group_is_not_touched():
    with linked([(0, 1)]):
        assert not dist.is_initialized()


def test_a_group_for_collectives():
    store, sums = HashStore(), []

    def run(rank: int) -> None:
        timeout = timedelta(seconds=600)
        group = open_group("sum", store, rank, 3, address=LOOPBACK, timeout=timeout)
        value = torch.tensor([float(rank)])
        group.allreduce(value).wait()  # pyright: ignore[reportAttributeAccessIssue]
        sums.append(float(value))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [3.0] * 3
