"""Sums and broadcasts over a tree of links: the same bits for all; nobody waits for the dead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

import numpy as np
import pytest

from swarmsgd.errors import PeerError
from swarmsgd.testing import MemoryNetwork
from swarmsgd.train.meet.tree import CHUNK_BYTES, Tree, TreeBroken, places
from swarmsgd.transport.base import Arrived


def on_all(
    network: MemoryNetwork,
    members: list[int],
    act: Callable[[Tree], object],
    hidden: Collection[int] = (),
) -> list:
    """What `act` returns or raises on each member's tree, each on a thread of its own."""
    said: dict[int, object] = {}

    def run(rank: int) -> None:
        tree = Tree(rank, members, network.transport(rank), 600.0, hidden)
        try:
            said[rank] = act(tree)
        except TreeBroken as error:
            said[rank] = error
            tree.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in members:
        network.transport(rank).close()
    return [said[rank] for rank in members]


@pytest.mark.parametrize("hidden", [[], [4, 2, 3, 0], [2, 3, 0, 1, 6]])
@pytest.mark.parametrize("members", [[0], [1, 0], [4, 2, 3, 0, 1, 6, 5]])
def test_a_sum_has_the_same_bits_on_all_members(members, hidden):
    if len(members) > 1 and not set(members) - set(hidden):
        members = [5, *members]

    def act(tree: Tree) -> bytes:
        values = np.empty(0)
        for _ in range(3):
            values = np.random.default_rng(tree._transport.rank).normal(size=1001)
            tree.sum(values)
        return values.tobytes()

    sums = on_all(MemoryNetwork(7, threaded=True), members, act, hidden)
    exact = sum(np.random.default_rng(rank).normal(size=1001) for rank in members)
    assert all(each == sums[0] for each in sums)
    np.testing.assert_allclose(np.frombuffer(sums[0]), exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("hidden", [[], [2, 1]])
def test_a_broadcast_in_chunks_overwrites_all_with_the_first_members(hidden):
    nbytes = 2 * CHUNK_BYTES + 77

    def act(tree: Tree) -> bytes:
        values = np.random.default_rng(tree._transport.rank).integers(0, 256, nbytes, np.uint8)
        tree.broadcast(values)
        return values.tobytes()

    got = on_all(MemoryNetwork(3, threaded=True), [2, 0, 1], act, hidden)
    assert got[0] == got[1] == got[2]
    assert got[0] == np.random.default_rng(2).integers(0, 256, nbytes, np.uint8).tobytes()


def test_a_death_breaks_the_tree_for_all_at_once():
    network = MemoryNetwork(7, threaded=True)

    def act(tree: Tree) -> None:
        if tree._transport.rank == 5:
            network.kill(5)
            raise TreeBroken("dead")
        while True:
            tree.sum(np.ones(10))

    assert all(isinstance(each, TreeBroken) for each in on_all(network, list(range(7)), act))


def test_a_damaged_chunk_breaks_the_tree():
    network = MemoryNetwork(2, threaded=True)
    node = network.transport(0)
    poll = node.poll

    def polled(timeout_s: float | None):
        event = poll(timeout_s)
        if isinstance(event, Arrived):
            event.message[5] ^= 1
        return event

    node.poll = polled
    said = on_all(network, [0, 1], lambda tree: tree.sum(np.ones(10)))
    assert "chunk 1 of node 1 fails its checksum" in str(said[0])
    assert isinstance(said[1], TreeBroken)


def test_a_silent_member_is_given_up():
    network = MemoryNetwork(2, threaded=True)
    tree = Tree(0, [0, 1], network.transport(0), 0.0)
    with pytest.raises(TreeBroken, match="node 1 says nothing for 0 s"):
        tree.sum(np.ones(10))


@pytest.mark.parametrize("hidden", [[], [3], [5, 7, 9], range(3, 39), range(4, 40)])
def test_every_member_has_one_parent_but_the_first_and_one_of_both_can_be_dialled(hidden):
    members = list(range(3, 40))
    children = [child for rank in members for child in places(rank, members, hidden)[1]]
    assert sorted(children) == members[1:] and places(3, members, hidden)[0] is None
    for child in members[1:]:
        parent, _ = places(child, members, hidden)
        assert parent is not None and child in places(parent, members, hidden)[1]
        assert parent not in hidden or child not in hidden


def test_where_nobody_can_be_dialled_there_is_no_tree():
    assert places(3, [3], [3]) == (None, [])
    with pytest.raises(PeerError, match="none of the nodes 3, 4 listens"):
        places(3, [3, 4], [3, 4])
