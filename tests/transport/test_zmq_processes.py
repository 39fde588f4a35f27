"""What a process does to its neighbours when it dies, hangs or forks, and how it ends itself."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from peer_process import PeerProcess

from swarmsgd.testing import LARGE, Cluster, Edge, Inbox, check_death, send
from swarmsgd.transport.base import LinkBackedUp
from swarmsgd.transport.zmq import ZmqTransport

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux"),
]

IDLE = "Inbox(transport); hear()"


@contextmanager
def beside(
    script: str, edges: Iterable[Edge] = ((0, 1), (0, 2))
) -> Iterator[tuple[dict[int, ZmqTransport], PeerProcess]]:
    """Nodes linked along `edges`; node 2 is a process of its own that runs `script`."""
    edges = list(edges)
    nodes = {rank: ZmqTransport(rank, address="127.0.0.1") for rank in (0, 1)}
    mine = {r: node.endpoint for r, node in nodes.items() if (r, 2) in edges}
    try:
        with PeerProcess(script, rank=2, endpoints=mine) as process:
            everyone = {r: node.endpoint for r, node in nodes.items()} | {2: process.endpoint}
            others = {r: {sum(e) - r for e in edges if r in e} for r in nodes}
            opening = [
                threading.Thread(
                    target=node.open, args=("run", {p: everyone[p] for p in others[r]}, 600.0)
                )
                for r, node in nodes.items()
            ]
            for thread in opening:
                thread.start()
            for thread in opening:
                thread.join()
            yield nodes, process
    finally:
        for node in nodes.values():
            node.close()


def test_a_death_is_noticed_by_the_neighbours_only():
    @contextmanager
    def make(edges: Iterable[Edge], *, victim: int | None = None) -> Iterator[Cluster]:
        assert victim == 2
        with beside(IDLE, edges) as (nodes, process):
            yield Cluster(nodes, process.kill)

    check_death(make)


def test_a_death_within_large_messages_is_noticed_at_once():
    script = """
inbox = Inbox(transport)
say("go")
while True:
    inbox.call(lambda: transport.send(0, transport.take(100_000_000)))
    hear()
"""
    with beside(script) as (nodes, process):
        inboxes = [Inbox(nodes[0]), Inbox(nodes[1])]
        process.hear()
        process.tell("again")
        inboxes[0].wait_messages(2)
        process.signal(signal.SIGSTOP)  # so that a message stands half sent
        process.wait_stopped()
        inboxes[0].call(lambda: nodes[0].send(2, nodes[0].take(LARGE // 3)))
        process.kill()
        inboxes[0].wait_lost(2)
        inboxes[0].send(1, b"on")
        inboxes[1].wait_messages(1)
        assert nodes[0].peers == {1} and len(inboxes[0].lost) == 1
        for inbox in inboxes:
            inbox.close()


def test_a_process_that_hangs_costs_its_link_only_and_gets_all_when_it_wakes():
    script = """
inbox = Inbox(transport)
while True:
    inbox.wait_messages(int(hear()))
    say(len(inbox.messages), inbox.messages[-1][1] == b"last")
"""
    with beside(script) as (nodes, process):
        process.signal(signal.SIGSTOP)
        process.wait_stopped()
        accepted = 0
        with pytest.raises(LinkBackedUp, match="node 2 takes nothing in"):
            while accepted < 100:
                nodes[0].send(2, nodes[0].take(10_000_000))
                accepted += 1
        assert accepted >= 26  # 256 MiB wait
        send(nodes[0], 1, b"on")
        event = nodes[1].poll(600.0)
        assert event is not None and bytes(event[1]) == b"on"
        assert nodes[0].peers == {1, 2}
        process.signal(signal.SIGCONT)
        process.tell(str(accepted))
        assert process.hear() == f"{accepted} False"
        send(nodes[0], 2, b"last")
        process.tell(str(accepted + 1))
        assert process.hear() == f"{accepted + 1} True"
        assert nodes[0].poll(0.0) is None
        process.signal(signal.SIGSTOP)
        process.wait_stopped()
        nodes[0].send(2, nodes[0].take(LARGE))
        nodes[0].close(drain_s=0.2)  # nobody takes it: it comes back nevertheless
        process.signal(signal.SIGCONT)


def test_a_stopped_process_can_be_dropped():
    """By either end, whoever dialled."""
    for edges in ([(0, 1), (0, 2)], [(0, 1), (1, 2)]):
        with beside(IDLE, edges) as (nodes, process):
            here = next(rank for rank in (0, 1) if 2 in nodes[rank].peers)
            process.signal(signal.SIGSTOP)
            process.wait_stopped()
            nodes[here].send(2, nodes[here].take(LARGE))
            nodes[here].drop(2)
            assert nodes[here].peers == {1 - here}
            process.signal(signal.SIGCONT)


def test_a_fork_neither_holds_links_open_nor_hangs():
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
inbox.send(0, said)
inbox.send(0, fork_one_that_exits())
child = os.fork()
if child == 0:
    hear()  # as a data loader's worker that outlives its parent
    os._exit(0)
inbox.send(0, b"%d" % child)
hear()
"""
    with beside(script) as (nodes, process):
        inbox = Inbox(nodes[0])
        inbox.send(2, b"go")
        inbox.wait_messages(3)
        *ended, child = (content.decode() for content in inbox.of(2))
        assert ended == ["child ended with 7"] * 2
        try:
            process.kill()
            inbox.wait_lost(2)
            os.kill(int(child), 0)  # it lives
        finally:
            os.kill(int(child), signal.SIGKILL)
        inbox.close()


def test_a_program_that_a_node_starts_does_not_hold_its_links_open():
    script = """
import subprocess
sleeper = subprocess.Popen(["sleep", "10000"], close_fds=False)
Inbox(transport).send(0, b"%d" % sleeper.pid)
hear()
"""
    with beside(script) as (nodes, process):
        inbox = Inbox(nodes[0])
        inbox.wait_messages(1)
        try:
            process.kill()
            inbox.wait_lost(2)
        finally:
            os.kill(int(inbox.of(2)[0]), signal.SIGKILL)
        inbox.close()


BOTH_ENDS = """
def open_both():
    nodes = [ZmqTransport(rank, address="127.0.0.1") for rank in (0, 1)]
    threads = [
        threading.Thread(target=node.open, args=("run", {1 - r: nodes[1 - r].endpoint}, 600))
        for r, node in enumerate(nodes)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return nodes
"""
EXITS = {
    "idle, and nobody holds them": ("open_both()", 0),
    "in the middle of a message": (
        "nodes = open_both()\nfor node in nodes: node.send(1 - node.rank, node.take(200_000_000))",
        0,
    ),
    "by an error": ("nodes = open_both()\nraise SystemExit(3)", 3),
    "with a thread that polls": (
        "nodes = open_both()\ninboxes = [Inbox(node) for node in nodes]\n"
        "inboxes[0].send(1, bytes(1000)); inboxes[1].wait_messages(1)",
        0,
    ),
    "while it opens links": (
        "import socket; silent = socket.create_server(('127.0.0.1', 0))\n"
        "node = ZmqTransport(0, address='127.0.0.1')\n"
        "there = f'tcp://127.0.0.1:{silent.getsockname()[1]}'\n"
        "run = lambda: node.open('run', {1: there}, 600, say)\n"
        "threading.excepthook = lambda arguments: None\n"
        "threading.Thread(target=run, daemon=True).start()",
        0,
    ),
    "without descriptors": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "try: ZmqTransport(0, address='127.0.0.1')\n"
        "except ValueError as error: say(error)",
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
            if name == "without descriptors":
                assert "`ulimit -n` allows 40 a process" in processes[name].hear()
            assert (name, *processes[name].wait()) == (name, code, "")
    finally:
        for process in processes.values():
            process.__exit__(None, None, None)


def test_a_killed_process_is_noticed_within_moments():
    """Of the order of milliseconds; a second here, for a machine that is busy with other things."""
    with beside(IDLE) as (nodes, process):
        begin = time.monotonic()
        process.kill()
        assert nodes[0].poll(600.0) is not None
        assert time.monotonic() - begin < 10


def test_a_node_that_reads_nothing_for_a_while_outlives_a_peer_that_dies_behind_many_messages():
    """ZeroMQ's heartbeats would abort the process here: one was due every 5 s."""
    program = """
import os, time
from swarmsgd.transport.zmq import ZmqTransport

reads, writes = os.pipe()
if os.fork() == 0:
    peer = ZmqTransport(0, address="127.0.0.1")
    peer.run = "run"
    peer.dial(1, os.read(reads, 200).decode())
    while 1 not in peer.peers:
        peer.poll(0.05)
    for _ in range(12):  # more than may wait at the other end
        peer.send(1, peer.take(100))
    peer.poll(1.0)
    os._exit(0)
node = ZmqTransport(1, address="127.0.0.1")
node.run, node.tells_opened = "run", True
os.write(writes, node.endpoint.encode())
while 0 not in node.peers:
    node.poll(0.05)
os.wait()
time.sleep(6)  # stopped, or busy
told = []
while not told or told[-1] != "Lost":
    event = node.poll(600.0)
    told.append(type(event).__name__)
assert told[-13:] == ["Arrived"] * 12 + ["Lost"], told
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
