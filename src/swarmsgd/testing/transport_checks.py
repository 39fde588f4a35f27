"""What a transport must do, one function each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from swarmsgd.errors import LinkClosed
from swarmsgd.seeds import stream
from swarmsgd.testing.inbox import (
    WAIT_S,
    Inbox,
    MakeCluster,
    digest,
    send,
    threads_and_descriptors,
)
from swarmsgd.transport.base import Buffer, LinkBackedUp, Transport

LARGE = 200_000_000


def _close(*nodes: Transport) -> None:
    for node in nodes:
        node.close()


def check_order(make: MakeCluster) -> None:
    """Messages of each link arrive once, whole, in order; empty ones too; also those sent before
    the receiver began.
    """
    with make([(0, 1), (1, 2)]) as cluster:
        nodes = cluster.nodes
        sent = {p: [b"%d:%d" % (p, k) * (k % 50) for k in range(500)] for p in (0, 2)}
        outer = Inbox(nodes[0]), Inbox(nodes[2])
        for k in range(500):
            for peer, messages in sent.items():
                send(nodes[peer], 1, messages[k])
        middle = Inbox(nodes[1])
        middle.wait_messages(1000)
        for peer, messages in sent.items():
            assert middle.of(peer) == messages, f"messages of node {peer} are not those it sent"
        assert not outer[0].messages and not outer[1].messages
        assert nodes[1].peers == {0, 2} and nodes[0].peers == {1}
        _close(*nodes.values())


def check_many_small(make: MakeCluster) -> None:
    """Two nodes that each send hundreds of small messages at once get all of the other's."""
    count = 500
    with make([(0, 1)]) as cluster:
        inboxes = [Inbox(cluster.nodes[rank]) for rank in (0, 1)]
        for k in range(count):
            for rank in (0, 1):
                send(cluster.nodes[rank], 1 - rank, k.to_bytes(4, "big"))
        for rank in (0, 1):
            inboxes[rank].wait_messages(count)
            assert inboxes[rank].of(1 - rank) == [k.to_bytes(4, "big") for k in range(count)]
        _close(*cluster.nodes.values())


def check_large_both_ways(make: MakeCluster) -> None:
    """200 MB each way at the same moment, and a small one behind: nobody waits for the other."""
    with make([(0, 1)]) as cluster:
        nodes = [cluster.nodes[0], cluster.nodes[1]]
        inboxes = [Inbox(node) for node in nodes]
        expected: list[bytes] = []
        messages = [node.take(LARGE) for node in nodes]
        for rank, message in enumerate(messages):
            pattern = stream("pattern", 0, rank).integers(0, 256, 1_000_003, np.uint8)
            for start in range(0, LARGE, len(pattern)):
                part = message[start : start + len(pattern)]
                part[:] = pattern[: len(part)]
            expected.append(digest(message))
        for rank in (0, 1):
            nodes[rank].send(1 - rank, messages[rank])
            send(nodes[rank], 1 - rank, b"behind")
        for rank in (0, 1):
            inboxes[rank].wait_messages(2)
            assert inboxes[rank].of(1 - rank) == [expected[1 - rank], b"behind"]
        _close(*nodes)


def check_memory_is_not_shared(make: MakeCluster) -> None:
    """What the receiver got does not change when the sender uses its buffers again."""
    with make([(0, 1)]) as cluster:
        kept: list[Buffer] = []
        all_came = threading.Event()

        def keep(_peer: int, message: Buffer) -> None:
            kept.append(message)
            if len(kept) == 20:
                all_came.set()

        cluster.nodes[1].start(keep, lambda _peer, _reason: None)
        Inbox(cluster.nodes[0])
        for k in range(20):
            send(cluster.nodes[0], 1, bytes([k]) * 10_000)
        assert all_came.wait(WAIT_S), f"{len(kept)} of 20 messages came"
        for k, message in enumerate(kept):
            assert message.tobytes() == bytes([k]) * 10_000
        _close(*cluster.nodes.values())


def check_blocked_callback(make: MakeCluster) -> None:
    """A callback that blocks stops its own link only, and is never called twice at once."""
    with make([(0, 1), (0, 2)]) as cluster:
        nodes = cluster.nodes
        release, blocked = threading.Event(), threading.Event()
        inside: list[int] = []
        overlaps: list[int] = []

        def block(peer: int, _message: Buffer) -> None:
            if peer == 1:
                overlaps.extend(inside)
                inside.append(peer)
                blocked.set()
                assert release.wait(WAIT_S)
                inside.remove(peer)

        inbox = Inbox(nodes[0], block)
        others = [Inbox(nodes[1]), Inbox(nodes[2])]
        try:
            for _ in range(5):
                send(nodes[1], 0, b"from 1")
            assert blocked.wait(WAIT_S), "nothing came from node 1"
            for _ in range(5):
                send(nodes[2], 0, b"from 2")
                send(nodes[0], 2, b"from 0")
                send(nodes[0], 1, b"from 0")
            inbox.wait_messages(5)
            assert inbox.of(2) == [b"from 2"] * 5 and inbox.of(1) == []
            for other in others:
                other.wait_messages(5)
        finally:
            release.set()
        inbox.wait_messages(10)
        assert not overlaps, "two messages of one peer were delivered at once"
        _close(*nodes.values())


def check_callbacks_may_send(make: MakeCluster) -> None:
    """A callback may answer, and may drop the peer that it was called for."""
    rounds = 99  # so that node 0 gets the last one
    with make([(0, 1)]) as cluster:
        nodes = cluster.nodes

        def bounce(rank: int) -> Callable[[int, Buffer], None]:
            def on_message(peer: int, message: Buffer) -> None:
                if message[0] < rounds:
                    send(nodes[rank], peer, bytes([message[0] + 1]))
                else:
                    nodes[rank].drop(peer)

            return on_message

        inboxes = [Inbox(nodes[rank], bounce(rank)) for rank in (0, 1)]
        send(nodes[0], 1, b"\0")
        for inbox in inboxes:
            inbox.wait_messages((rounds + 1) // 2)
        inboxes[1].wait_lost(0)
        assert not inboxes[0].lost and not nodes[0].peers
        _close(*nodes.values())


def check_backed_up(make: MakeCluster) -> None:
    """What waits for a peer that takes nothing in is bounded; `send` says so, and does not wait."""
    with make([(0, 1)]) as cluster:
        nodes = cluster.nodes
        inbox = Inbox(nodes[0])
        accepted = 0
        try:
            while accepted < 1_000_000:
                send(nodes[0], 1, accepted.to_bytes(4, "big"))
                accepted += 1
        except LinkBackedUp as error:
            assert "node 1" in str(error)
        else:
            raise AssertionError("a million messages wait for a peer that takes nothing in")
        assert nodes[0].peers == {1} and not inbox.lost
        late = Inbox(nodes[1])
        late.wait_messages(accepted)
        assert late.of(0) == [k.to_bytes(4, "big") for k in range(accepted)]
        _close(*nodes.values())


def check_death(make: MakeCluster) -> None:
    """A death is noticed by the neighbours, once, and by nobody else; other links go on."""
    with make([(0, 1), (1, 2)], victim=2) as cluster:
        if cluster.kill is None:
            return
        nodes = cluster.nodes
        far, near = Inbox(nodes[0]), Inbox(nodes[1])
        send(nodes[1], 2, b"before")
        cluster.kill()
        near.wait_lost(2)
        assert nodes[1].peers == {0}
        _assert_closed(nodes[1], 2)
        for _ in range(10):
            send(nodes[0], 1, b"on")
            send(nodes[1], 0, b"on")
        far.wait_messages(10)
        near.wait_messages(10)
        assert [peer for peer, _ in near.lost] == [2] and near.lost[0][1]
        assert not far.lost
        _close(nodes[0], nodes[1])


def check_drop(make: MakeCluster) -> None:
    """A drop is local: the other end sees a loss, this end does not, other links go on."""
    with make([(0, 1), (0, 2)]) as cluster:
        nodes = cluster.nodes
        inboxes = [Inbox(nodes[rank]) for rank in range(3)]
        nodes[0].drop(1)
        assert nodes[0].peers == {2}
        _assert_closed(nodes[0], 1)
        inboxes[1].wait_lost(0)
        assert nodes[1].peers == frozenset()
        _assert_closed(nodes[1], 0)
        nodes[0].drop(1)
        nodes[1].drop(0)
        nodes[0].drop(77)  # never was a neighbour
        send(nodes[0], 2, b"on")
        inboxes[2].wait_messages(1)
        assert not inboxes[0].lost and not inboxes[2].lost
        assert [peer for peer, _ in inboxes[1].lost] == [0]
        _close(*nodes.values())


def check_end_within_a_large_message(make: MakeCluster) -> None:
    """A link that ends while 200 MB are on their way ends at once, at both ends; from either."""
    for ends in (lambda nodes: nodes[0].drop(1), lambda nodes: nodes[1].close()):
        with make([(0, 1)]) as cluster:
            nodes = cluster.nodes
            inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
            nodes[0].send(1, nodes[0].take(LARGE))
            nodes[0].send(1, nodes[0].take(LARGE // 100))
            ends(nodes)
            if nodes[0].peers:
                inboxes[0].wait_lost(1)
            if nodes[1].peers:
                inboxes[1].wait_lost(0)
            _close(*nodes.values())


def check_close(make: MakeCluster) -> None:
    """Both ends close at once, twice; nothing hangs, nothing is sent or delivered afterwards."""
    with make([(0, 1)]) as cluster:
        nodes = cluster.nodes
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        for _ in range(20):
            send(nodes[0], 1, b"some")
            send(nodes[1], 0, b"more")
        _at_once(nodes[0].close, nodes[1].close)
        delivered = [len(inbox.messages) + len(inbox.lost) for inbox in inboxes]
        for rank in (0, 1):
            assert nodes[rank].peers == frozenset()
            _assert_closed(nodes[rank], 1 - rank)
            nodes[rank].drop(1 - rank)
            nodes[rank].close()
            nodes[rank].close(1.0)
            assert len(inboxes[rank].lost) <= 1
        assert delivered == [len(inbox.messages) + len(inbox.lost) for inbox in inboxes]


def check_close_before_start(make: MakeCluster) -> None:
    """Nodes that never started can be closed; a node that did start notices."""
    with make([(0, 1)]) as cluster:
        inbox = Inbox(cluster.nodes[0])
        cluster.nodes[1].close(1.0)
        inbox.wait_lost(1)
        _close(cluster.nodes[0])


def check_drain(make: MakeCluster) -> None:
    """A close with a drain delivers all that was queued, then the peer sees the link end."""
    contents, expected = _mixed_sizes()
    with make([(0, 1)]) as cluster:
        nodes = cluster.nodes
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        for content in contents:
            send(nodes[0], 1, content)
        begin = time.monotonic()
        nodes[0].close(WAIT_S)
        assert time.monotonic() - begin < WAIT_S / 2, "waited longer than there was to send"
        inboxes[1].wait_lost(0)
        assert inboxes[1].of(0) == expected
        assert not inboxes[0].lost
        _close(nodes[1])


def check_drain_of_both(make: MakeCluster) -> None:
    """Two ends that close with a drain at once both get all that the other had queued."""
    contents, expected = _mixed_sizes()
    with make([(0, 1)]) as cluster:
        nodes = [cluster.nodes[0], cluster.nodes[1]]
        both_close = threading.Event()

        def hold(_peer: int, _message: Buffer) -> None:
            assert both_close.wait(WAIT_S)

        inboxes = [Inbox(node, hold) for node in nodes]
        for content in contents:
            for rank in (0, 1):
                send(nodes[rank], 1 - rank, content)

        def release() -> None:
            while nodes[0].peers or nodes[1].peers:
                time.sleep(0.001)
            both_close.set()

        _at_once(*(lambda node=node: node.close(WAIT_S) for node in nodes), release)
        for rank in (0, 1):
            assert inboxes[1 - rank].of(rank) == expected
            assert not inboxes[rank].lost


def _mixed_sizes() -> tuple[list[bytes], list[bytes]]:
    contents = [bytes([k % 251]) * (5_000_000 if k % 50 == 7 else k) for k in range(200)]
    digests = [c if len(c) < 1 << 20 else digest(np.frombuffer(c, np.uint8)) for c in contents]
    return contents, digests


def check_nothing_is_left(make: MakeCluster) -> None:
    """After `close` no thread and no descriptor is left, however the links ended."""

    def run() -> None:
        with make([(0, 1), (0, 2), (1, 2)]) as cluster:
            nodes = cluster.nodes
            inboxes = [Inbox(nodes[rank]) for rank in range(3)]
            send(nodes[0], 1, bytes(1_000_000))
            inboxes[1].wait_messages(1)
            nodes[0].drop(2)
            inboxes[2].wait_lost(0)
            nodes[1].close()
            inboxes[2].wait_lost(1)
            _close(*nodes.values())

    run()  # the first use may load and start what stays
    before = threads_and_descriptors()
    for _ in range(3):
        run()
    give_up = time.monotonic() + WAIT_S / 10
    while any(left > before[what] for what, left in threads_and_descriptors().items()):
        assert time.monotonic() < give_up, f"left: {threads_and_descriptors()}, before: {before}"
        time.sleep(0.01)  # the system counts a thread a moment longer than who joined it


def _assert_closed(node: Transport, peer: int) -> None:
    message = node.take(3)
    try:
        node.send(peer, message)
    except LinkClosed as error:
        assert str(peer) in str(error)
        node.give(message)  # it was not taken over
    else:
        raise AssertionError(f"sent to node {peer} over a closed link")


def _at_once(*calls: Callable[[], None]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a call hangs"


TRANSPORT_CHECKS: dict[str, Callable[[MakeCluster], None]] = {
    "order": check_order,
    "many small": check_many_small,
    "large both ways": check_large_both_ways,
    "memory is not shared": check_memory_is_not_shared,
    "blocked callback": check_blocked_callback,
    "callbacks may send": check_callbacks_may_send,
    "backed up": check_backed_up,
    "death": check_death,
    "drop": check_drop,
    "end within a large message": check_end_within_a_large_message,
    "close": check_close,
    "close before start": check_close_before_start,
    "drain": check_drain,
    "drain of both": check_drain_of_both,
    "nothing is left": check_nothing_is_left,
}
"""Name -> check. Each is independent of the others and closes what it starts."""


def check_transport(make: MakeCluster) -> None:
    """Put a transport to all checks. Raises AssertionError that names the first that fails."""
    for name, check in TRANSPORT_CHECKS.items():
        try:
            check(make)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
