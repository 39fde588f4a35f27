"""The in-process network: threaded it is a transport, stepped it is decided by its seed alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.errors import ConfigError, LinkClosed
from swarmsgd.testing import TRANSPORT_CHECKS, Cluster, Edge, check_transport, send
from swarmsgd.testing.memory import MemoryNetwork
from swarmsgd.transport.base import LinkBackedUp, Lost


@contextmanager
def threaded(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
    edges = list(edges)
    ranks = sorted({rank for edge in edges for rank in edge})
    network = MemoryNetwork(len(ranks), edges, threaded=True)
    nodes = {rank: network.transport(rank) for rank in ranks}
    yield Cluster(nodes, kill=None if victim is None else lambda: network.kill(victim))
    for node in nodes.values():
        node.close()


@pytest.mark.slow
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
def test_a_threaded_network_is_a_transport(check):
    check(threaded)


def test_check_transport_names_the_check_that_fails():
    @contextmanager
    def deaf(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
        with threaded(edges, victim=victim) as cluster:
            assert all(not node.peers for node in cluster.nodes.values()), "peers from the start"
            yield cluster

    with pytest.raises(AssertionError, match=r"^order: peers from the start"):
        check_transport(deaf)


class Log:
    """What a stepped network delivers, with the virtual time."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.events: list[tuple[float, int, int, bytes | str]] = []

    def settle(self) -> int:
        """Step until nothing is left to deliver; how many steps that took."""
        steps = 0
        while self.network.step():
            steps += 1
            for rank in range(self.network.num_nodes):
                node = self.network.transport(rank)
                while not node._closed and (event := node.poll(0.0)) is not None:
                    what = event.reason if isinstance(event, Lost) else event.message.tobytes()
                    self.events.append((self.network.now, event.peer, rank, what))
        return steps

    def between(self, source: int, target: int) -> list[bytes | str]:
        return [what for _, s, t, what in self.events if (s, t) == (source, target)]


def chatter(network: MemoryNetwork, count: int) -> None:
    for k in range(count):
        for source in range(network.num_nodes):
            for target in network.transport(source).peers:
                send(network.transport(source), target, bytes([k]))


def test_nothing_is_delivered_before_a_step():
    network = MemoryNetwork(2)
    log = Log(network)
    send(network.transport(0), 1, b"x")
    assert network.transport(1).poll(0.0) is None
    assert log.settle() == 1 and not network.step()
    assert log.events == [(0.0, 0, 1, b"x")]


@given(seed=st.integers(0, 2**32 - 1), loss=st.sampled_from([0.0, 0.3]), reorder=st.booleans())
def test_a_seed_decides_everything(seed, loss, reorder):
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(seed)
        network = MemoryNetwork(3, rng=rng, loss=loss, delay_s=(0.1, 2.0), reorder=reorder)
        log = Log(network)
        chatter(network, 5)
        log.settle()
        runs.append(log.events)
    assert runs[0] == runs[1]


@given(seed=st.integers(0, 2**32 - 1))
def test_a_link_keeps_its_order_and_links_do_not_keep_each_others(seed):
    network = MemoryNetwork(3, rng=np.random.default_rng(seed), delay_s=(0.0, 1.0))
    log = Log(network)
    chatter(network, 30)
    assert log.settle() == 180
    for source in range(3):
        for target in {0, 1, 2} - {source}:
            assert log.between(source, target) == [bytes([k]) for k in range(30)]
    times = [now for now, *_ in log.events]
    assert times == sorted(times)
    assert [what for *_, what in log.events] != sorted(what for *_, what in log.events)  # type: ignore[type-var]


def test_reordering_within_a_link_loses_and_doubles_nothing():
    network = MemoryNetwork(2, rng=np.random.default_rng(0), delay_s=(0.0, 1.0), reorder=True)
    log = Log(network)
    chatter(network, 50)
    log.settle()
    got = log.between(0, 1)
    assert got != sorted(got) and sorted(got) == [bytes([k]) for k in range(50)]  # type: ignore[type-var]


def test_loss_takes_the_share_that_was_asked_for():
    network = MemoryNetwork(2, rng=np.random.default_rng(0), loss=0.25)
    log = Log(network)
    chatter(network, 200)
    log.settle()
    assert 260 < len(log.events) < 340  # 300 of 400; 8.7 is one standard deviation


def test_the_dead_neither_send_nor_receive_and_their_neighbours_notice():
    network = MemoryNetwork(4, [(0, 1), (1, 2), (2, 3)])
    log = Log(network)
    send(network.transport(1), 2, b"too late")
    send(network.transport(0), 1, b"too late")
    network.kill(1)
    with pytest.raises(LinkClosed):
        send(network.transport(1), 0, b"x")
    log.settle()
    assert [(t, what) for _, _, t, what in log.events] == [(0, "node 1 died"), (2, "node 1 died")]
    assert network.transport(2).peers == {3} and not network.transport(0).peers


def test_a_silent_node_is_lost_to_nobody_and_gets_everything_later():
    network = MemoryNetwork(2)
    log = Log(network)
    network.stop(1)
    chatter(network, 3)
    assert not network.step() and network.transport(0).peers == {1}
    network.resume(1)
    log.settle()
    assert log.between(0, 1) == log.between(1, 0) == [b"\0", b"\1", b"\2"]


def test_what_waits_for_a_silent_node_is_bounded():
    network = MemoryNetwork(2, max_queued_messages=10)
    network.stop(1)
    with pytest.raises(LinkBackedUp, match="10 messages wait"):
        chatter(network, 11)


def test_both_ends_notice_a_cut():
    network = MemoryNetwork(3)
    log = Log(network)
    chatter(network, 1)
    network.cut(0, 1)
    send(network.transport(0), 1, b"into the void")
    log.settle()
    assert log.between(0, 1) == log.between(1, 0) == ["the link broke"]
    assert network.transport(0).peers == {2} and log.between(0, 2) == [b"\0"]


def test_a_stepped_close_with_a_drain_leaves_its_messages_to_later_steps():
    network = MemoryNetwork(2)
    log = Log(network)
    chatter(network, 2)
    network.transport(0).close(1.0)
    with pytest.raises(LinkClosed):
        send(network.transport(0), 1, b"x")
    log.settle()
    assert log.between(0, 1) == [b"\0", b"\1", "closed by the peer"]
    assert log.between(1, 0) == []


def test_delay_and_loss_need_a_generator():
    with pytest.raises(ConfigError, match="pass rng"):
        MemoryNetwork(2, delay_s=(0.0, 1.0))
