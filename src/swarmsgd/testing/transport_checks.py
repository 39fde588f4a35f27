"""What a transport must do, one function each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from swarmsgd.errors import LinkClosed
from swarmsgd.graphs import Edge
from swarmsgd.seeds import stream
from swarmsgd.testing.inbox import (
    WAIT_S,
    Inbox,
    MakeCluster,
    digest,
    send,
    threads_and_descriptors,
)
from swarmsgd.transport.base import Buffer, LinkBackedUp

LARGE = 200_000_000


@contextmanager
def _inboxes(make: MakeCluster, edges: Iterable[Edge]) -> Iterator[list[Inbox]]:
    """Nodes 0, 1, ... linked along `edges`, an inbox each; closed in the end."""
    with make(edges) as cluster:
        inboxes = [Inbox(cluster.nodes[rank]) for rank in sorted(cluster.nodes)]
        yield inboxes
        for inbox in inboxes:
            inbox.close()


def check_order(make: MakeCluster) -> None:
    """Messages of each link arrive once, whole, in order; empty ones too; also those sent before
    the receiver began to poll.
    """
    with make([(0, 1), (1, 2)]) as cluster:
        nodes = cluster.nodes
        sent = {p: [b"%d:%d" % (p, k) * (k % 50) for k in range(500)] for p in (0, 2)}
        outer = {0: Inbox(nodes[0]), 2: Inbox(nodes[2])}
        for k in range(500):
            for peer, messages in sent.items():
                outer[peer].send(1, messages[k])
        middle = Inbox(nodes[1])
        middle.wait_messages(1000)
        for peer, messages in sent.items():
            assert middle.of(peer) == messages, f"messages of node {peer} are not those it sent"
        assert not outer[0].messages and not outer[2].messages
        assert nodes[1].peers == {0, 2} and nodes[0].peers == {1}
        _close(*outer.values(), middle)


def check_many_small(make: MakeCluster) -> None:
    """Two nodes that each send hundreds of small messages at once get all of the other's."""
    count = 500
    with _inboxes(make, [(0, 1)]) as inboxes:
        for k in range(count):
            for rank in (0, 1):
                inboxes[rank].send(1 - rank, k.to_bytes(4, "big"))
        for rank in (0, 1):
            inboxes[rank].wait_messages(count)
            assert inboxes[rank].of(1 - rank) == [k.to_bytes(4, "big") for k in range(count)]


def check_large_both_ways(make: MakeCluster) -> None:
    """200 MB each way at the same moment, and a small one behind: nobody waits for the other."""
    with _inboxes(make, [(0, 1)]) as inboxes:
        expected: list[bytes] = []
        messages = [inbox.node.take(LARGE) for inbox in inboxes]
        for rank, message in enumerate(messages):
            pattern = stream("pattern", 0, rank).integers(0, 256, 1_000_003, np.uint8)
            for start in range(0, LARGE, len(pattern)):
                part = message[start : start + len(pattern)]
                part[:] = pattern[: len(part)]
            expected.append(digest(message))
        for rank, (inbox, message) in enumerate(zip(inboxes, messages, strict=True)):
            inbox.call(partial(inbox.node.send, 1 - rank, message))
            inbox.send(1 - rank, b"behind")
        for rank in (0, 1):
            inboxes[rank].wait_messages(2)
            assert inboxes[rank].of(1 - rank) == [expected[1 - rank], b"behind"]


def check_memory_is_not_shared(make: MakeCluster) -> None:
    """What the receiver got does not change when the sender uses its buffers again."""
    sizes = (10_000, 1_000_000)
    with _inboxes(make, [(0, 1)]) as (here, there):
        kept: list[Buffer] = []
        there.on_message = lambda _, message: kept.append(message)
        there.node.give = lambda buffer: None
        for k in range(20):
            here.send(1, bytes([k]) * sizes[k % 2])
        there.wait_messages(20)
        for k, message in enumerate(kept):
            assert message.tobytes() == bytes([k]) * sizes[k % 2]


def check_answers(make: MakeCluster) -> None:
    """Who polls may answer at once, and may drop the peer whose message it got."""
    rounds = 99  # so that node 0 gets the last one
    with _inboxes(make, [(0, 1)]) as inboxes:

        def bounce(rank: int) -> Callable[[int, Buffer], None]:
            def on_message(peer: int, message: Buffer) -> None:
                if message[0] < rounds:
                    inboxes[rank].send(peer, bytes([message[0] + 1]))
                else:
                    inboxes[rank].drop(peer)

            return on_message

        for rank in (0, 1):
            inboxes[rank].on_message = bounce(rank)
        inboxes[0].send(1, b"\0")
        for inbox in inboxes:
            inbox.wait_messages((rounds + 1) // 2)
        inboxes[1].wait_lost(0)
        assert not inboxes[0].lost and not inboxes[0].peers


def check_backed_up(make: MakeCluster) -> None:
    """What waits for a peer that takes nothing in is bounded; `send` says so, and does not wait.
    All that was accepted comes when it polls again.
    """
    for nbytes in (500, 50_000):
        with make([(0, 1)]) as cluster:
            node = cluster.nodes[0]
            accepted, most = 0, 100_000
            try:
                while accepted < most:
                    send(node, 1, accepted.to_bytes(4, "big") + bytes(nbytes - 4))
                    accepted += 1
            except LinkBackedUp as error:
                assert "node 1" in str(error)
            else:
                raise AssertionError(f"{most} messages wait for a peer that takes nothing in")
            here = Inbox(node)
            assert node.peers == {1} and not here.lost
            late = Inbox(cluster.nodes[1])
            late.wait_messages(accepted)
            assert [m[:4] for m in late.of(0)] == [k.to_bytes(4, "big") for k in range(accepted)]
            _close(here, late)


def check_wake(make: MakeCluster) -> None:
    """`wake` ends a poll that waits, and one that comes later; a poll may end by itself."""
    with make([(0, 1)]) as cluster:
        node = cluster.nodes[0]
        node.wake()
        assert node.poll(None) is None
        assert node.poll(0.0) is None
        waker = threading.Thread(target=node.wake)
        waker.start()
        assert node.poll(None) is None
        waker.join()
        cluster.nodes[1].close()
        node.close()


def check_death(make: MakeCluster) -> None:
    """A death is noticed by the neighbours, once, and by nobody else; other links go on."""
    with make([(0, 1), (1, 2)], victim=2) as cluster:
        if cluster.kill is None:
            return
        far, near = Inbox(cluster.nodes[0]), Inbox(cluster.nodes[1])
        near.send(2, b"before")
        cluster.kill()
        near.wait_lost(2)
        assert near.peers == {0}
        _assert_closed(near, 2)
        for _ in range(10):
            far.send(1, b"on")
            near.send(0, b"on")
        far.wait_messages(10)
        near.wait_messages(10)
        assert [peer for peer, _ in near.lost] == [2] and near.lost[0][1]
        assert not far.lost
        _close(far, near)


def check_drop(make: MakeCluster) -> None:
    """A drop is local, from either end: the other end sees a loss, this one does not, other links
    go on.
    """
    for here, there in ((0, 1), (1, 0)):
        with _inboxes(make, [(0, 1), (0, 2), (1, 2)]) as inboxes:
            inboxes[here].drop(there)
            assert inboxes[here].peers == {2}
            _assert_closed(inboxes[here], there)
            inboxes[there].wait_lost(here)
            assert inboxes[there].peers == {2}
            _assert_closed(inboxes[there], here)
            inboxes[here].drop(there)
            inboxes[there].drop(here)
            inboxes[here].drop(77)  # never was a neighbour
            inboxes[here].send(2, b"on")
            inboxes[2].wait_messages(1)
            assert not inboxes[here].lost and not inboxes[2].lost
            assert [peer for peer, _ in inboxes[there].lost] == [here]


def check_end_within_a_large_message(make: MakeCluster) -> None:
    """A link that ends while 200 MB are on their way ends at once, at both ends; from either."""

    def drop(inboxes: list[Inbox], ender: int) -> None:
        inboxes[ender].drop(1 - ender)

    def close(inboxes: list[Inbox], ender: int) -> None:
        inboxes[ender].close()

    for end in (drop, close):
        for ender in (0, 1):
            with _inboxes(make, [(0, 1)]) as inboxes:
                node = inboxes[0].node
                for nbytes in (LARGE, LARGE // 100):
                    inboxes[0].call(partial(node.send, 1, node.take(nbytes)))
                end(inboxes, ender)
                inboxes[1 - ender].wait_lost(ender)


def check_close(make: MakeCluster) -> None:
    """Both ends close at once, twice; nothing hangs, nothing is sent or told afterwards."""
    with _inboxes(make, [(0, 1)]) as inboxes:
        for _ in range(20):
            inboxes[0].send(1, b"some")
            inboxes[1].send(0, b"more")
        _at_once(inboxes[0].close, inboxes[1].close)
        for rank, inbox in enumerate(inboxes):
            assert inbox.peers == frozenset()
            _assert_closed(inbox, 1 - rank)
            inbox.drop(1 - rank)
            inbox.close()
            inbox.close(1.0)
            assert len(inbox.lost) <= 1


def check_close_ends_a_poll(make: MakeCluster) -> None:
    """Another thread may close: who polls is told."""
    with make([(0, 1)]) as cluster:
        inbox = Inbox(cluster.nodes[0])
        cluster.nodes[0].close()
        _at_once(inbox.close)
        cluster.nodes[1].close()


def check_close_without_a_poll(make: MakeCluster) -> None:
    """Nodes that were never polled can be closed; a node that is polled notices."""
    with make([(0, 1)]) as cluster:
        inbox = Inbox(cluster.nodes[0])
        cluster.nodes[1].close(1.0)
        inbox.wait_lost(1)
        inbox.close()


def check_drain(make: MakeCluster) -> None:
    """A close with a drain delivers all that was queued, from either end, then the peer sees the
    link end.
    """
    contents = [bytes([k % 251]) * (5_000_000 if k % 50 == 7 else k) for k in range(200)]
    expected = [c if len(c) < 1 << 20 else digest(np.frombuffer(c, np.uint8)) for c in contents]
    for here, there in ((0, 1), (1, 0)):
        with _inboxes(make, [(0, 1)]) as inboxes:
            for content in contents:
                inboxes[here].send(there, content)
            begin = time.monotonic()
            inboxes[here].close(WAIT_S)
            assert time.monotonic() - begin < WAIT_S / 2, "waited longer than there was to send"
            inboxes[there].wait_lost(here)
            assert inboxes[there].of(here) == expected
            assert not inboxes[here].lost


def check_drain_of_both(make: MakeCluster) -> None:
    """Two ends that close with a drain at once do not wait for each other's time-out."""
    with _inboxes(make, [(0, 1)]) as inboxes:
        for inbox in inboxes:
            for other in {0, 1} & inbox.peers:
                inbox.send(other, bytes(5_000_000))
        _at_once(*(partial(inbox.close, 2 * WAIT_S) for inbox in inboxes))


def check_nothing_is_left(make: MakeCluster) -> None:
    """After `close` no thread and no descriptor is left, however the links ended."""

    def run() -> None:
        with _inboxes(make, [(0, 1), (0, 2), (1, 2)]) as inboxes:
            inboxes[0].send(1, bytes(1_000_000))
            inboxes[1].wait_messages(1)
            inboxes[0].drop(2)
            inboxes[2].wait_lost(0)
            inboxes[1].close()
            inboxes[2].wait_lost(1)

    run()  # the first use may load and start what stays
    before = threads_and_descriptors()
    for _ in range(3):
        run()
    give_up = time.monotonic() + WAIT_S / 10
    while any(left > before[what] for what, left in threads_and_descriptors().items()):
        assert time.monotonic() < give_up, f"left: {threads_and_descriptors()}, before: {before}"
        time.sleep(0.01)  # the system counts a thread a moment longer than who joined it


def _close(*inboxes: Inbox) -> None:
    for inbox in inboxes:
        inbox.close()


def _assert_closed(inbox: Inbox, peer: int) -> None:
    message = inbox.node.take(3)
    try:
        inbox.call(lambda: inbox.node.send(peer, message))
    except LinkClosed as error:
        assert str(peer) in str(error)
        inbox.node.give(message)  # it was not taken over
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
    "answers": check_answers,
    "backed up": check_backed_up,
    "wake": check_wake,
    "death": check_death,
    "drop": check_drop,
    "end within a large message": check_end_within_a_large_message,
    "close": check_close,
    "close ends a poll": check_close_ends_a_poll,
    "close without a poll": check_close_without_a_poll,
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
