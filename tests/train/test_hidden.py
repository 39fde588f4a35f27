"""Nodes that nobody can dial: they listen nowhere, and take part by dialling those who listen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytest
from nodes import Nodes, free_port, run

from swarmsgd.train.meet.tracker import Tracker

pytestmark = pytest.mark.slow

BODY = """
from pathlib import Path

def listening():
    "The ports at which this process listens."
    own = {os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}
    found = set()
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(found)

LISTENS = os.environ.get(f"LISTEN{RANK}", "1") == "1"
model = Vector(3000, seed=RANK if "SEED" not in os.environ else int(os.environ["SEED"]))
optimizer = torch.optim.SGD(model.parameters(), lr=float(os.environ.get("LR", 0)))
model.x.grad = torch.full((3000,), 1.0 + RANK)
told = when_told()
"""

FIXED = (
    BODY
    + """
try:
    swarm = swarmsgd.join(model, optimizer, mode="blocking", local_steps=1, listen=LISTENS,
                          graph=os.environ.get("GRAPH", "complete"))
except swarmsgd.errors.SwarmError as error:
    say(error=f"{type(error).__name__}: {error}")
else:
    start = model.x.detach().double().sum().item()
    while not told.is_set():
        optimizer.step()
        time.sleep(0.002)  # a step takes some time
        if swarm.stats()["completed"] == 2:
            say(completed=2, open=swarm.stats()["open_peers"])
    mean = swarm.mean_model()["x"]
    say(start=start, steps=swarm.steps, mean=mean.double().sum().item(), of=swarm.mean_of,
        ports=len(listening()), lost=swarm.stats()["lost"])
    swarm.leave()
"""
)


def test_two_that_only_dial_and_one_that_listens_start_exchange_and_have_the_right_mean():
    with Nodes(FIXED, 3, LISTEN1="0", LISTEN2="0", LR="0.001") as nodes:
        links = [nodes.wait_said(rank, "completed")["open"] for rank in range(3)]
        nodes.go()
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        said = [nodes.said(rank)[-1] for rank in range(3)]
    assert links == [2, 1, 1]
    assert len({each["start"] for each in said}) == 1
    assert [each["of"] for each in said] == [[0, 1, 2]] * 3
    assert len({each["mean"] for each in said}) == 1
    moved = sum((1 + rank) * each["steps"] for rank, each in enumerate(said))
    assert said[0]["mean"] == pytest.approx(said[0]["start"] - moved * 0.001 * 3000 / 3, rel=1e-4)
    assert [each["ports"] for each in said][1:] == [0, 0] and said[0]["ports"] > 0
    assert all(each["lost"] == 0 for each in said)


def test_a_graph_that_falls_apart_where_nobody_can_be_dialled_is_refused():
    said = run(FIXED, 4, LISTEN1="0", LISTEN2="0", LISTEN3="0", GRAPH="ring")
    for each in said:
        assert each["error"].startswith(
            "ConfigError: nodes 1, 2, 3 do not listen (listen=False), and two such nodes have no "
            "edge, which cuts ring(4) apart. Let more nodes listen"
        )


OPEN = (
    BODY
    + """
swarm = swarmsgd.join(model, optimizer, local_steps=1, listen=LISTENS)
say(node=swarm.rank, x=model.x.detach()[:4].tolist(), ports=len(listening()))
while not told.is_set():
    optimizer.step()
    time.sleep(0.002)
    if swarm.steps % 25 == 0:
        say(completed=swarm.stats()["completed"], nodes=swarm.num_nodes,
            open=swarm.stats()["open_peers"])
try:
    mean = swarm.mean_model()["x"]
    say(of=swarm.mean_of, mean=mean.double().sum().item())
except swarmsgd.errors.PeerError as error:
    say(error=str(error))
swarm.leave()
"""
)


@pytest.fixture
def store() -> Iterator[Tracker]:
    tracker = Tracker("127.0.0.1", free_port())
    yield tracker
    tracker.close()


def test_an_open_swarm_takes_in_who_only_dials_once_a_node_listens(store: Tracker):
    at = f"127.0.0.1:{store.port}"
    with Nodes(OPEN, 0, SWARMSGD_SWARM=at, LISTEN1="0", LISTEN2="0") as nodes:
        early = nodes.add(1)  # it waits
        nodes.wait_until(lambda: store.register.calls > 0)
        first = nodes.add(0)
        begun = nodes.wait_said(first, "node")
        late = nodes.add(2)
        for process in (early, late):
            joined = nodes.wait_said(process, "node")
            assert joined["x"] == pytest.approx(begun["x"], abs=1e-3) and joined["ports"] == 0
        for process in (early, first, late):
            nodes.wait_said(process, "nodes", 3)
            nodes.wait_said(process, "completed", 3)
        assert nodes.said(late)[-1]["open"] == 1
        nodes.go()
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        ends = [nodes.said(process)[-1] for process in (early, first, late)]
    assert [each["of"] for each in ends] == [[0, 1, 2]] * 3
    assert len({each["mean"] for each in ends}) == 1


def test_where_nobody_is_left_who_listens_all_train_on_and_the_next_who_does_is_given_a_model(
    store: Tracker,
):
    at = f"127.0.0.1:{store.port}"
    with Nodes(OPEN, 0, SWARMSGD_SWARM=at, LISTEN1="0", LISTEN2="0") as nodes:
        hidden = nodes.add(1), nodes.add(2)

        def all_have(links: int) -> bool:
            last = [(nodes.said(process) or [{}])[-1] for process in hidden]
            return all(each.get("open") == links for each in last)

        models: list[list[float]] = []
        for seed in ("3", "4"):
            listener = nodes.add(0, SEED=seed)
            models.append(nodes.wait_said(listener, "node")["x"])
            nodes.wait_until(partial(all_have, 1))
            nodes.signal(listener, signal.SIGKILL)
            nodes.wait_until(partial(all_have, 0))
        assert models[1] == pytest.approx(models[0], abs=1e-2)
        nodes.go()
        assert nodes.wait() == [0, 0, -9, -9], nodes.everything()
        for process in hidden:
            error = nodes.said(process)[-1]["error"]
            assert error.startswith(
                "there is no mean: none of the nodes 1, 2 listens (listen=False"
            )
