"""Links over ZeroMQ, both ends in this process; what ends a process is in test_zmq_processes.py."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import zmq

from swarmsgd.errors import ConfigError, LinkClosed, PeerError, ProtocolError
from swarmsgd.testing import (
    TRANSPORT_CHECKS,
    Cluster,
    Edge,
    Inbox,
    send,
    threads_and_descriptors,
)
from swarmsgd.transport.base import Arrived, LinkBackedUp, Lost, Opened
from swarmsgd.transport.keys import SwarmKey
from swarmsgd.transport.port import DATA, NotConnected, Port, packed, port_of, unpacked
from swarmsgd.transport.zmq import ZmqTransport

LOOPBACK = "127.0.0.1"
KEY = SwarmKey(*zmq.curve_keypair())


def make_nodes(edges: Iterable[Edge], **options) -> dict[int, ZmqTransport]:
    ranks = {rank for edge in edges for rank in edge}
    return {rank: ZmqTransport(rank, **{"address": LOOPBACK, **options}) for rank in ranks}


def open_links(nodes: dict[int, ZmqTransport], edges: Iterable[Edge]) -> list[str]:
    """Open all at once; what the errors said."""
    said: list[str] = []
    others: dict[int, dict[int, str]] = {rank: {} for rank in nodes}
    for i, j in edges:
        others[i][j], others[j][i] = nodes[j].endpoint, nodes[i].endpoint

    def run_one(node: ZmqTransport) -> None:
        try:
            node.open("run", others[node.rank], 600.0)
        except PeerError as error:
            said.append(str(error))

    threads = [threading.Thread(target=run_one, args=(node,)) for node in nodes.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@contextmanager
def linked(edges: Iterable[Edge], **options) -> Iterator[dict[int, ZmqTransport]]:
    edges = list(edges)
    nodes = make_nodes(edges, **options)
    try:
        assert open_links(nodes, edges) == []
        yield nodes
    finally:
        for node in nodes.values():
            node.close()


@contextmanager
def in_process(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
    with linked(edges) as nodes:
        yield Cluster(nodes)


@pytest.mark.slow
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
def test_zmq_links_are_a_transport(check):
    check(in_process)


@contextmanager
def keyed(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
    with linked(edges, key=KEY) as nodes:
        yield Cluster(nodes)


@pytest.mark.slow
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
def test_encrypted_links_are_one_too(check):
    check(keyed)


def exchange(nodes: dict[int, ZmqTransport], i: int, j: int) -> None:
    """A message each way."""
    for here, there in ((nodes[i], nodes[j]), (nodes[j], nodes[i])):
        send(here, there.rank, b"on")
        event = there.poll(600.0)
        assert event is not None and event[0] == here.rank and bytes(event[1]) == b"on"


# Opening.


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_links_are_opened_over_ipv6():
    with linked([(0, 1)], address="::1") as nodes:
        assert nodes[0].endpoint.startswith("tcp://[::1]:")
        exchange(nodes, 0, 1)


def test_who_does_not_appear_is_named_and_the_other_links_can_be_used():
    nodes = make_nodes([(0, 1), (1, 2), (1, 3)])
    try:
        everyone = {rank: node.endpoint for rank, node in nodes.items()}
        del everyone[1]
        other = threading.Thread(target=nodes[0].open, args=("run", {1: nodes[1].endpoint}, 600))
        other.start()
        with pytest.raises(PeerError) as caught:
            nodes[1].open("run", everyone, 0.5, lambda rank: rank == 3)
        other.join()
        assert str(caught.value) == (
            "node 1 has no link to 2 of 3 neighbours. Node 2 did not appear within 0.5 s. Node 3 "
            "has ended"
        )
        assert nodes[1].peers == {0}
        exchange(nodes, 0, 1)
        with pytest.raises(LinkClosed, match=r"no link to node 2, only to \[0\]"):
            send(nodes[1], 2, b"x")
    finally:
        for node in nodes.values():
            node.close()


def until(condition: Callable[[], object], *nodes: ZmqTransport) -> list[Arrived | Opened | Lost]:
    """Poll the nodes in turn until `condition()`; what they told meanwhile."""
    told: list[Arrived | Opened | Lost] = []
    while not condition():
        told += [event for node in nodes if (event := node.poll(0.01)) is not None]
    return told


def test_a_link_can_be_opened_at_any_time_by_either_end_and_again_after_a_loss():
    with linked([(0, 1), (0, 2)]) as nodes:
        pair = nodes[1], nodes[2]
        for here, there in (pair, pair[::-1], pair):
            here.dial(there.rank, there.endpoint)
            assert not until(lambda: 2 in nodes[1].peers and 1 in nodes[2].peers, *pair)
            exchange(nodes, 1, 2)
            here.drop(there.rank)
            (lost,) = until(lambda t=there: len(t.peers) == 1, *pair)
            assert isinstance(lost, Lost) and lost.peer == here.rank
        exchange(nodes, 0, 1)


def test_a_node_without_an_address_listens_nowhere_and_has_its_links_by_dialling():
    with linked([(0, 1)]) as nodes:
        hidden = ZmqTransport(2, address=None)
        assert hidden.endpoint == ""
        try:
            everyone = {0: nodes[0].endpoint, 1: nodes[1].endpoint}
            opening = threading.Thread(target=hidden.open, args=("run", everyone, 600.0))
            opening.start()
            for node in nodes.values():
                node.open("run", {2: hidden.endpoint}, 600.0)
            opening.join()
            both = {**nodes, 2: hidden}
            exchange(both, 0, 2)
            exchange(both, 1, 2)
            assert hidden.peers == {0, 1}
        finally:
            hidden.close()


def test_two_that_dial_each_other_have_one_link():
    with linked([(0, 1), (0, 2)]) as nodes:
        pair = nodes[1], nodes[2]
        for _ in range(5):
            for here, there in (pair, pair[::-1]):
                here.dial(there.rank, there.endpoint)
            assert not until(lambda: 2 in nodes[1].peers and 1 in nodes[2].peers, *pair)
            exchange(nodes, 1, 2)
            nodes[2].drop(1)
            (lost,) = until(lambda: len(nodes[1].peers) == 1, *pair)
            assert isinstance(lost, Lost) and lost.peer == 2


def test_strangers_are_refused_by_name():
    with linked([(0, 1)]) as nodes, linked([(0, 3)]) as strangers:
        there, stranger = nodes[1], strangers[0]
        for run, rank, why in (
            ("run", 2, "it is node 1, wanted was 2"),
            ("run", 1, "it has a link to node 0 already"),
            ("another", 1, "it is run run, wanted was another"),
        ):
            stranger.run = run
            stranger.dial(rank, there.endpoint)
            assert not until(lambda r=rank: stranger.refusal(r), stranger, there)
            assert stranger.refusal(rank) == f"refuses this node: {why}"
        exchange(nodes, 0, 1)


def test_a_refusal_is_told_to_who_opens_links():
    with linked([(0, 1)]) as nodes:
        stranger = ZmqTransport(0, address=LOOPBACK)
        there = Inbox(nodes[1])
        with pytest.raises(PeerError, match=r"no link to 1 of 1 neighbours\. Node 1 refuses this"):
            stranger.open("another", {1: nodes[1].endpoint}, 600.0)
        stranger.close()
        there.close()


@pytest.mark.parametrize(
    ("listens", "why"),
    [(False, "nobody listens there"), (True, "speaks another language|hung up or said nothing")],
)
def test_a_port_where_none_of_us_listens_is_named(listens, why):
    with socket.create_server((LOOPBACK, 0)) as server, linked([(0, 1)]) as nodes:
        port = server.getsockname()[1]
        if not listens:
            server.close()
        nodes[0].dial(7, f"tcp://{LOOPBACK}:{port}")
        if listens:
            with server.accept()[0] as there:
                there.sendall(b"HTTP/1.0 400 Bad Request\r\n" * 9)
        while nodes[0].refusal(7) is None:
            assert nodes[0].poll(0.01) is None
        assert f"could not be reached at tcp://{LOOPBACK}:{port}" in str(nodes[0].refusal(7))
        assert any(each in str(nodes[0].refusal(7)) for each in why.split("|"))
        exchange(nodes, 0, 1)


def test_an_address_of_another_machine_is_refused():
    before = threads_and_descriptors()
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.1: Cannot assign"):
        ZmqTransport(0, address="203.0.113.1")
    assert threads_and_descriptors()["threads"] == before["threads"]


def test_a_node_is_not_its_own_neighbour():
    with linked([(0, 1)]) as nodes, pytest.raises(ConfigError, match="not its own neighbour"):
        nodes[0].open("run", {0: nodes[0].endpoint}, 1.0)


# Messages.


def test_a_message_beyond_the_limit_is_refused_here_and_costs_the_link_there():
    small, large = make_nodes([(0, 1)], max_message_bytes=1000), make_nodes([(0, 1)])
    nodes = {0: large[0], 1: small[1]}
    try:
        assert open_links(nodes, [(0, 1)]) == []
        with pytest.raises(ProtocolError, match="1001 bytes, the limit is 1000"):
            send(small[1], 0, bytes(1001))
        send(large[0], 1, bytes(1000))
        event = small[1].poll(600.0)
        assert event is not None and len(event[1]) == 1000
        send(large[0], 1, bytes(1001))  # the end of a connection may overtake what was not read
        for node in nodes.values():
            assert isinstance(node.poll(600.0), Lost)
    finally:
        for node in (*small.values(), *large.values()):
            node.close()


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("limit", [1000, 5_000_000])
def test_a_message_as_long_as_the_limit_comes_whole_and_in_its_turn(key, limit):
    with linked([(0, 1)], key=key, max_message_bytes=limit) as nodes:
        sent = [np.random.default_rng(n).bytes(n) for n in (1, limit, 2, limit - 1, limit, 3)]
        for message in sent:
            send(nodes[0], 1, message)
        for message in sent:
            event = nodes[1].poll(600.0)
            assert isinstance(event, Arrived)
            assert event.message.tobytes() == message
            nodes[1].give(event.message)


def test_what_is_no_message_is_refused():
    with linked([(0, 1)]) as nodes:
        for wrong in (
            np.zeros(4, np.float32),
            nodes[0].take(6).reshape(2, 3),
            nodes[0].take(6)[::2],
        ):
            with pytest.raises(ProtocolError, match="wanted contiguous 1-d uint8"):
                nodes[0].send(1, wrong)  # pyright: ignore[reportArgumentType]


def test_what_waits_is_bounded_in_bytes_but_short_messages_may_wait_behind():
    with linked([(0, 1)], max_queued_bytes=50_000_000) as nodes:
        accepted = 0
        with pytest.raises(LinkBackedUp, match=r"node 1 takes nothing in: \d+ bytes"):
            while accepted < 100:
                nodes[0].send(1, nodes[0].take(10_000_000))
                accepted += 1
        assert 5 <= accepted < 30  # and what waits at the other end, and in the system
        send(nodes[0], 1, b"short")
        sizes = [len(nodes[1].poll(600.0)[1]) for _ in range(accepted + 1)]  # type: ignore[index]
        assert sizes == [10_000_000] * accepted + [5]


def test_buffers_go_back_to_the_pool_once_they_are_sent():
    with linked([(0, 1)]) as nodes:
        buffer = nodes[0].take(1_000_000)
        base = buffer.base
        nodes[0].send(1, buffer)
        del buffer
        assert nodes[1].poll(600.0) is not None
        while True:
            nodes[0].poll(0.001)  # looks what was sent
            again = nodes[0].take(1_000_000)
            if again.base is base:
                break


def test_a_slow_reader_gets_all_and_holds_back_who_writes():
    with linked([(0, 1)], max_queued_bytes=4_000_000) as nodes:
        sent = got = refused = 0
        while got < 300:
            try:
                while sent < 300:
                    send(nodes[0], 1, sent.to_bytes(4, "big") * 250_000)
                    sent += 1
            except LinkBackedUp:
                refused += 1
            event = nodes[1].poll(0.01)
            if event is not None:
                assert bytes(event[1][:4]) == got.to_bytes(4, "big")
                got += 1
        assert refused > 100


# Strangers.

STRANGERS = {
    "random bytes": lambda s: s.sendall(os.urandom(10_000)),
    "zeros": lambda s: s.sendall(bytes(64)),
    "a greeting of ZeroMQ, then random bytes": lambda s: s.sendall(
        b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32) + os.urandom(500)
    ),
    "the first version of ZeroMQ's protocol": lambda s: s.sendall(
        b"\x01\x00" + b"\x02\x01M" + b"\x02\x01x" + b"\x02\x00y"
    ),
    "a web request": lambda s: s.sendall(b"GET / HTTP/1.0\r\n\r\n"),
    "too little": lambda s: s.sendall(b"abc"),
    "nothing": lambda s: None,
    "a reset": lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
}


@pytest.mark.slow
def test_thousands_of_strangers_and_hundreds_that_hold_on_harm_nobody():
    kept: list[socket.socket] = []
    with linked([(0, 1), (0, 2)]) as nodes:
        inboxes = [Inbox(nodes[rank]) for rank in range(3)]
        at = (LOOPBACK, port_of(nodes[0].endpoint))
        for number in range(10_000):
            poke = list(STRANGERS.values())[number % len(STRANGERS)]
            sock = socket.create_connection(at, timeout=600)
            with suppress(OSError):  # it may hang up on us
                poke(sock)
            if number % 19 == 0:  # of every kind
                kept.append(sock)
            else:
                sock.close()
        for peer in (1, 2):
            inboxes[peer].send(0, b"on")
            inboxes[0].send(peer, b"on")
            inboxes[peer].wait_messages(1)
        inboxes[0].wait_messages(2)
        assert not any(inbox.lost for inbox in inboxes)
        for inbox in inboxes:
            inbox.close()
    for sock in kept:
        sock.close()


def test_a_stranger_who_speaks_our_language_changes_nothing():
    context = zmq.Context()
    with linked([(0, 1)]) as nodes:
        with context.socket(zmq.DEALER) as stranger:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(nodes[0].endpoint)
            for parts in (
                [b"a message before a greeting"],
                [packed(b"W", b"")],
                [packed(b"R", b"\xff")],
                [packed(b"G", b"")],
                [packed(b"A", b"")],
                [packed(b"?", b"")],
                [packed(b"H", b"[1, 2]")],
                [packed(b"H", b"")[:-1]],
                [b""],
                [b"two", b"parts"],
                [b"M", b"", b"", b""],
            ):
                stranger.send_multipart(parts)
            while stranger.poll(0):
                stranger.recv()
            for _ in range(20):
                assert nodes[0].poll(0.01) is None
        exchange(nodes, 0, 1)
        assert nodes[0].peers == {1}
    context.term()


def test_of_a_stranger_that_hangs_up_the_descriptor_is_told_and_no_error_number() -> None:
    """For a failed handshake ZeroMQ tells an error where a descriptor stands else."""
    port = Port("127.0.0.1", message_bytes=100, queued_messages=10)
    try:
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with socket.create_connection(("127.0.0.1", port_of(port.endpoint))) as stranger:
            while len(new := set(os.listdir("/proc/self/fd")) - before) < 2:  # noqa: PTH208
                pass  # ZeroMQ's own thread accepts it
            accepted = {int(fd) for fd in new} - {stranger.fileno()}
            stranger.send(b"\xff\x00")
        found: set[int] = set()
        while not found - {-1}:
            port.wait(600.0)
            found |= {ended.fd for ended in port.ended()}
        assert found - {-1} <= accepted
    finally:
        port.close()


def test_who_leaves_does_not_wait_for_a_peer_that_had_sent_something_and_died() -> None:
    with linked([(0, 1)]) as nodes:
        port = nodes[1]._port
        for word in (b"my", b"last", b"words"):
            send(nodes[0], 1, word)
        while not int(port._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            pass  # ZeroMQ's own thread receives it
        nodes[0].close()
        while not int(port._monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            pass
        closing = threading.Thread(target=nodes[1].close, args=(1e6,), daemon=True)
        closing.start()
        closing.join(60.0)
        assert not closing.is_alive()


def port_here() -> Port:
    return Port("127.0.0.1", message_bytes=1 << 20, queued_messages=16)


def next_of(port: Port):
    give_up = time.monotonic() + 20
    while (got := port.receive()) is None:
        assert time.monotonic() < give_up
        port.wait(0.1)
    return got


def test_a_peer_that_ends_while_its_message_is_half_read_harms_nobody() -> None:
    """ZeroMQ aborts the process where such a message has parts that have not come."""
    node, peer, other = port_here(), port_here(), port_here()
    try:
        way = node.dial(peer.endpoint)
        node.send(way, b"T", b"hello")
        peer.send(next_of(peer).id, b"T", b"x" * 5000)
        while not int(node._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            pass  # asked so ZeroMQ begins to read what has come
        peer.close()
        while not node.ended():
            node.wait(0.1)
        with pytest.raises(NotConnected):
            while True:  # until ZeroMQ has given the connection up
                node.send(way, b"T", b"are you there?")
                time.sleep(0.01)
        assert bytes(next_of(node).body) == b"x" * 5000
        other.send(other.dial(node.endpoint), b"T", b"from another")
        assert bytes(next_of(node).body) == b"from another"
    finally:
        node.close()
        other.close()


@pytest.mark.parametrize("kind", [DATA, b"T"])
@pytest.mark.parametrize("body", [b"", b"\0", b"SWRM", packed(b"T", b"in another"), b"\xf5swarm"])
def test_any_body_of_any_kind_comes_out_as_it_went_in(kind: bytes, body: bytes) -> None:
    got = unpacked(memoryview(bytes(packed(kind, body))))
    assert (got[0], bytes(got[1])) == (kind, body)


def test_numbers_travel_without_a_copy() -> None:
    numbers = np.arange(100, dtype=np.uint8)
    assert packed(DATA, numbers) is numbers


def test_two_that_part_at_once_close_their_link() -> None:
    with linked([(0, 1)]) as nodes:
        nodes[0].part(1)
        nodes[1].part(0)
        give_up = time.monotonic() + 20
        while (nodes[0]._by_id or nodes[1]._by_id) and time.monotonic() < give_up:
            nodes[0].poll(0.01)
            nodes[1].poll(0.01)
        assert not nodes[0]._by_id and not nodes[1]._by_id


@pytest.mark.parametrize(
    "hello", [b'{"version":3,"run":"?","to":0,"from":Infinity}', b"[" * 4000, b"\xff"]
)
def test_a_greeting_that_no_node_sends_ends_no_thread(hello: bytes) -> None:
    context = zmq.Context()
    with linked([(0, 1)]) as nodes, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(nodes[0].endpoint)
        stranger.send(packed(b"H", hello))
        for _ in range(20):
            assert nodes[0].poll(0.01) is None
        exchange(nodes, 0, 1)
    context.term()


def test_to_hang_up_on_a_descriptor_that_is_another_s_by_now_touches_nothing() -> None:
    port = port_here()
    here, there = socket.socketpair()
    try:
        with open(os.devnull) as file:  # noqa: PTH123
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            port.hang_up(here.fileno())
            port.hang_up(file.fileno())
            assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        here.send(b"still open")
        assert there.recv(100) == b"still open"
    finally:
        port.close()
        here.close()
        there.close()
