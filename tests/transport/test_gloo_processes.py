"""What a process does to its neighbours when it dies, hangs or forks, and how it ends itself."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from peer_process import PeerProcess
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from swarmsgd.testing import LARGE, Cluster, Edge, Inbox, check_death, send
from swarmsgd.transport.base import LinkBackedUp
from swarmsgd.transport.gloo import GlooTransport

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux"),
]

LOOPBACK = "127.0.0.1"
IDLE = "Inbox(transport); hear()"


@pytest.fixture(scope="module")
def store() -> TCPStore:
    return TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)


@contextmanager
def beside(
    store: TCPStore, prefix: str, script: str, edges: Iterable[Edge] = ((0, 1), (0, 2))
) -> Iterator[tuple[dict[int, GlooTransport], PeerProcess]]:
    """Nodes linked along `edges`; node 2 is a process of its own that runs `script`."""
    neighbours: dict[int, list[int]] = {}
    for i, j in edges:
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    others = neighbours.pop(2)
    options = {"address": LOOPBACK, "prefix": prefix, "connect_timeout_s": 600.0}
    nodes = {r: GlooTransport(r, peers, store, **options) for r, peers in neighbours.items()}
    connecting = [threading.Thread(target=node.connect) for node in nodes.values()]
    for thread in connecting:
        thread.start()
    try:
        with PeerProcess(
            script, rank=2, neighbours=others, port=store.port, prefix=prefix
        ) as process:
            for thread in connecting:
                thread.join()
            yield nodes, process
    finally:
        for node in nodes.values():
            node.close()


def test_a_death_is_noticed_by_the_neighbours_only(store):
    @contextmanager
    def make(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
        assert victim == 2
        with beside(store, "death", IDLE, edges) as (nodes, process):
            yield Cluster(nodes, process.kill)

    check_death(make)


def test_a_death_within_large_messages_is_noticed_at_once(store):
    """Gloo itself never wakes who waits for the rest of a message."""
    script = """
def talk():
    while True:
        if len(transport._links[0]._queue) < 2:
            transport.send(0, transport.take(100_000_000))
threading.Thread(target=talk, daemon=True).start()
transport.start(lambda peer, message: transport.give(message), print)
hear()
"""
    with beside(store, "large", script) as (nodes, process):
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        for _ in range(3):
            nodes[0].send(2, nodes[0].take(LARGE // 3))
        inboxes[0].wait_messages(2)
        process.signal(signal.SIGSTOP)  # so that both directions stand in the middle of a message
        process.wait_stopped()
        nodes[0].send(2, nodes[0].take(LARGE // 3))
        process.kill()
        inboxes[0].wait_lost(2)
        send(nodes[0], 1, b"on")
        inboxes[1].wait_messages(1)
        assert nodes[0].peers == {1} and len(inboxes[0].lost) == 1


def test_a_process_that_hangs_costs_its_link_only_and_gets_all_when_it_wakes(store):
    script = """
inbox = Inbox(transport)
while True:
    inbox.wait_messages(int(hear()))
    say(len(inbox.messages), inbox.messages[-1][1] == b"last")
"""
    with beside(store, "hang", script) as (nodes, process):
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        process.signal(signal.SIGSTOP)
        process.wait_stopped()
        accepted = 0
        with pytest.raises(LinkBackedUp, match="node 2 takes nothing in"):
            while True:
                nodes[0].send(2, nodes[0].take(10_000_000))
                accepted += 1
        assert 26 <= accepted <= 28  # 256 MiB wait, one more is being sent
        send(nodes[0], 1, b"on")
        inboxes[1].wait_messages(1)
        assert nodes[0].peers == {1, 2}
        process.signal(signal.SIGCONT)
        process.tell(str(accepted))
        assert process.hear() == f"{accepted} False"
        send(nodes[0], 2, b"last")
        process.tell(str(accepted + 1))
        assert process.hear() == f"{accepted + 1} True"
        assert not inboxes[0].lost
        process.signal(signal.SIGSTOP)
        process.wait_stopped()
        nodes[0].send(2, nodes[0].take(LARGE))
        nodes[0].close(drain_s=0.2)  # nobody takes it: it comes back nevertheless
        process.signal(signal.SIGCONT)


def test_a_fork_neither_holds_links_open_nor_hangs(store):
    script = """
def fork_one_that_exits():
    child = os.fork()
    if child == 0:
        assert not transport.peers
        transport.close()
        sys.exit(7)  # runs the exit hooks and the destructors
    _, status = os.waitpid(child, 0)
    return b"child ended with %d" % os.waitstatus_to_exitcode(status)
said = fork_one_that_exits()
inbox = Inbox(transport)
inbox.wait_messages(1)
send(transport, 0, said)
send(transport, 0, fork_one_that_exits())
child = os.fork()
if child == 0:
    hear()  # as a data loader's worker that outlives its parent
    os._exit(0)
send(transport, 0, b"%d" % child)
hear()
"""
    with beside(store, "fork", script) as (nodes, process):
        inbox = Inbox(nodes[0])
        send(nodes[0], 2, b"go")
        inbox.wait_messages(3)
        *ended, child = (content.decode() for content in inbox.of(2))
        assert ended == ["child ended with 7"] * 2
        try:
            process.kill()
            inbox.wait_lost(2)
            os.kill(int(child), 0)  # it lives
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_program_that_a_node_starts_does_not_hold_its_links_open(store):
    script = """
import subprocess
sleeper = subprocess.Popen(["sleep", "10000"], close_fds=False)
Inbox(transport)
send(transport, 0, b"%d" % sleeper.pid)
hear()
"""
    with beside(store, "spawn", script) as (nodes, process):
        inbox = Inbox(nodes[0])
        inbox.wait_messages(1)
        try:
            process.kill()
            inbox.wait_lost(2)
        finally:
            os.kill(int(inbox.of(2)[0]), signal.SIGKILL)


BOTH_ENDS = """
from torch.distributed import HashStore
def open_both():
    store = HashStore()
    nodes = [make(0, [1], store, "p"), make(1, [0], store, "p")]
    threads = [threading.Thread(target=node.connect) for node in nodes]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for node in nodes:
        node.start(lambda peer, message: None, lambda peer, reason: None)
    return nodes
"""
EXITS = {
    "idle, and nobody holds them": ("open_both()", 0),
    "in the middle of a message": (
        "nodes = open_both()\nfor node in nodes: node.send(1 - node.rank, node.take(200_000_000))",
        0,
    ),
    "by an error": ("nodes = open_both()\nraise SystemExit(3)", 3),
    "with a thread that goes on sending": (
        "nodes = open_both()\n"
        "def talk():\n"
        "    while True: nodes[0].send(1, nodes[0].take(100)); time.sleep(0.001)\n"
        "threading.excepthook = lambda arguments: None\n"
        "threading.Thread(target=talk, daemon=True).start(); time.sleep(0.1)",
        0,
    ),
    "while it connects": (
        "node = make(0, [1], HashStore(), 'p')\n"
        "threading.Thread(target=lambda: node.connect(), daemon=True).start(); time.sleep(0.2)\n"
        "threading.excepthook = lambda arguments: None",
        0,
    ),
}


def test_an_interpreter_with_open_links_exits_quietly():
    processes = {
        name: PeerProcess(BOTH_ENDS + script, fresh=True) for name, (script, _) in EXITS.items()
    }
    try:
        for name, (_, code) in EXITS.items():
            processes[name].hear()
            assert (name, *processes[name].wait()) == (name, code, "")
    finally:
        for process in processes.values():
            process.__exit__(None, None, None)
