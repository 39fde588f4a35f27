"""Nodes that come and go, as real processes: killed, started again, late, with the store gone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest
from nodes import Nodes, free_port

from swarmsgd.train.meet.tracker import Tracker

pytestmark = pytest.mark.slow

TRAIN = """
seed = float(os.environ.get("SEED", RANK))
model = Vector(int(os.environ.get("DIM", 3000)), seed=int(seed))
model.register_buffer("seen", torch.full((5,), seed))
optimizer = torch.optim.SGD(model.parameters(), lr=float(os.environ.get("LR", 0.01)), momentum=0.5)
told = when_told()
settings = json.loads(os.environ.get("SETTINGS", "{}"))
try:
    swarm = swarmsgd.join(model, optimizer, local_steps=1, exchange_state=("momentum_buffer",),
                          **settings)
except swarmsgd.errors.SwarmError as error:
    say(error=str(error))
    raise SystemExit(3)
say(node=swarm.rank, life=swarm.stats()["incarnation"], x=model.x.detach()[:4].tolist(),
    seen=model.seen.tolist(), before=swarm.progress.steps)
while not told.is_set():
    optimizer.zero_grad()
    (model.x - 1.0).square().mean().backward()
    optimizer.step()
    time.sleep(0.002)  # a step takes some time
    if swarm.steps % 25 == 0:
        stats = swarm.stats()
        say(trained=swarm.steps, completed=stats["completed"], open=stats["open_peers"],
            nodes=swarm.num_nodes, total=swarm.progress.steps)
swarm.mean_model()
say(mean_of=swarm.mean_of, made=swarm.steps, total=swarm.progress.steps, gamma=swarm.gamma)
swarm.leave()
"""


@pytest.fixture
def store() -> Iterator[Tracker]:
    tracker = Tracker("127.0.0.1", free_port(), refill_s=0.5)
    yield tracker
    tracker.close()


def at(tracker: Tracker) -> str:
    return f"127.0.0.1:{tracker.port}"


def test_a_killed_node_that_is_started_again_takes_its_place_with_a_live_model():
    with Nodes(TRAIN, 3, DIM="3000") as nodes:
        for rank in range(3):
            nodes.wait_said(rank, "trained", 25)
        nodes.signal(2, signal.SIGKILL)
        nodes.processes[2].wait()
        back = nodes.add(2, SEED="77")
        here = nodes.wait_said(back, "node")
        assert (here["node"], here["life"]) == (2, 1)
        assert here["seen"] == [0.0] * 5  # node 0's buffer, as all have it
        assert here["before"] > 0  # and begins where the swarm's count is
        nodes.wait_said(back, "completed", 5)
        nodes.wait_said(back, "open", 2)
        now = nodes.said(0)[-1]["trained"]
        nodes.wait_said(0, "trained", now + 25)
        nodes.go()
        means = [nodes.wait_said(process, "mean_of") for process in (0, 1, back)]
        assert nodes.wait()[:2] == [0, 0]
    assert [mean["mean_of"] for mean in means] == [[0, 1, 2]] * 3
    assert len({mean["gamma"] for mean in means}) == 1


def test_nodes_of_an_open_swarm_come_and_go_as_they_like(store: Tracker):
    with Nodes(TRAIN, 0, SWARMSGD_SWARM=at(store)) as nodes:
        first = nodes.add(0)
        assert nodes.wait_said(first, "node")["node"] == 0
        others = [nodes.add(0, SEED=str(seed)) for seed in (5, 6, 7)]
        numbers = {nodes.wait_said(process, "node")["node"] for process in others}
        assert numbers == {1, 2, 3}
        for process in others:
            assert nodes.wait_said(process, "node")["seen"] == [0.0] * 5
            nodes.wait_said(process, "completed", 3)
        nodes.signal(others[0], signal.SIGKILL)
        nodes.wait_said(first, "nodes", 4)
        late = nodes.add(0, SEED="9")
        assert nodes.wait_said(late, "node")["node"] == 4  # a number is used once
        nodes.wait_said(late, "completed", 3)
        nodes.go()
        here = [first, *others[1:], late]
        means = [nodes.wait_said(process, "mean_of") for process in here]
        made = sum(mean["made"] for mean in means)
        codes = nodes.wait()
    assert [codes[process] for process in here] == [0] * 4
    assert len(means[0]["mean_of"]) == 4 and all(m["mean_of"] == means[0]["mean_of"] for m in means)
    for mean in means:  # what the killed one made is counted too
        assert mean["total"] > 0.8 * made


def test_a_newcomer_takes_model_state_and_buffers_to_the_last_bit(store: Tracker):
    settings = {"SWARMSGD_SWARM": at(store), "LR": "0", "DIM": "700000"}
    with Nodes(TRAIN, 0, **settings) as nodes:
        first = nodes.add(0, SEED="3")
        own = nodes.wait_said(first, "node")
        nodes.wait_said(first, "trained", 25)
        newcomer = nodes.add(0, SEED="4")
        here = nodes.wait_said(newcomer, "node")
        assert here["x"] == own["x"] and here["seen"] == [3.0] * 5
        nodes.wait_said(newcomer, "completed", 2)
        nodes.go()
        assert nodes.wait() == [0, 0], nodes.everything()
        assert nodes.said(first)[-1]["gamma"] < 1e-6


def test_a_node_that_has_not_begun_to_step_gives_what_it_has_too(store: Tracker):
    body = """
seed = float(os.environ["SEED"])
model = Vector(100, seed=int(seed))
model.register_buffer("seen", torch.full((5,), seed))
told = when_told()
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
    say(seen=model.seen.tolist())
    told.wait()
"""
    with Nodes(body, 0, SWARMSGD_SWARM=at(store)) as nodes:
        first = nodes.add(0, SEED="3")
        nodes.wait_said(first, "seen")
        assert nodes.wait_said(nodes.add(0, SEED="4"), "seen")["seen"] == [3.0] * 5
        nodes.go()
        assert nodes.wait() == [0, 0]


def test_if_the_neighbour_that_gives_its_model_dies_another_does(store: Tracker):
    body = (
        """
from swarmsgd.core.endpoint import Endpoint
serve, served = Endpoint._serve, []
def dies(self, peer, want):
    served.append(want)
    if os.environ.get("DIES") and len(served) == 2:
        os.kill(os.getpid(), 9)
    serve(self, peer, want)
Endpoint._serve = dies
"""
        + TRAIN
    )
    with Nodes(body, 0, SWARMSGD_SWARM=at(store), LR="0", DIM="900000") as nodes:
        first = nodes.add(0, SEED="3", DIES="1")
        own = nodes.wait_said(first, "node")
        second = nodes.add(0, SEED="4", DIES="")
        # The second takes it from the first, which dies of that: nobody is left to give it.
        error = nodes.wait_said(second, "error")["error"]
        assert "ended before this node had a model" in error
        assert nodes.wait() == [-9, 3]
        first = nodes.add(0, SEED="3")
        own = nodes.wait_said(first, "node")
        second = nodes.add(0, SEED="4")
        nodes.wait_said(second, "completed", 2)
        dying = [nodes.add(0, SEED="5", DIES="1")]
        nodes.wait_said(dying[0], "completed", 2)
        for _ in range(3):  # numbers decide who is asked first: one of three asks the dying one
            newcomer = nodes.add(0, SEED="6")
            assert nodes.wait_said(newcomer, "node")["x"] == pytest.approx(own["x"], abs=1e-4)
        nodes.processes[dying[0]].wait()
        nodes.go()


def test_the_store_may_die_and_the_next_one_is_filled_by_those_who_live(store: Tracker):
    with Nodes(TRAIN, 0, SWARMSGD_SWARM=at(store)) as nodes:
        pair = [nodes.add(0), nodes.add(0)]
        for process in pair:
            nodes.wait_said(process, "completed", 3)
        port = store.port
        store.close()
        late = nodes.add(0, SEED="8")
        for process in pair:  # training goes on
            now = nodes.said(process)[-1]["trained"]
            nodes.wait_said(process, "trained", now + 100)
        assert nodes.said(late) == []
        again = Tracker("127.0.0.1", port, refill_s=3.0)
        try:
            assert nodes.wait_said(late, "node")["node"] == 2
            nodes.wait_said(late, "completed", 3)
            nodes.go()
            assert nodes.wait() == [0, 0, 0], nodes.everything()
        finally:
            again.close()
        assert nodes.said(pair[0])[-1]["mean_of"] == [0, 1, 2]


def test_who_has_other_settings_or_another_model_is_refused_by_name(store: Tracker):
    with Nodes(TRAIN, 0, SWARMSGD_SWARM=at(store)) as nodes:
        first = nodes.add(0)
        nodes.wait_said(first, "trained", 25)
        other = nodes.add(0, SETTINGS='{"bits": 4}')
        larger = nodes.add(0, DIM="3001")
        rounds = nodes.add(0, SETTINGS='{"mode": "matching"}')
        for process, text in (
            (other, "other settings than this node: bits: 4 here, 8 there"),
            (larger, "number of parameters: 3001 here, 3000 there"),
            (rounds, "in matching mode all nodes make all rounds together"),
        ):
            assert text in nodes.wait_said(process, "error")["error"]
        nodes.go(first)
        assert nodes.wait() == [0, 3, 3, 3]


def test_a_swarm_where_nobody_listens_is_an_error_in_time():
    where = f"127.0.0.1:{free_port()}"
    with Nodes(TRAIN, 0, SWARMSGD_SWARM=where, SETTINGS='{"join_timeout_s": 4}') as nodes:
        alone = nodes.add(0)
        error = nodes.wait_said(alone, "error")["error"]
    assert f"cannot reach the store at {where}: Connection refused" in error
    assert "Is `swarmsgd store` up there" in error


UNTIL = """
model = Vector(500, seed=1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with swarmsgd.join(model, optimizer, local_steps=2) as swarm:
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1 - 0.9 * swarm.share)
    data = [torch.ones(8, 1)] * 10
    for batch in swarm.until(data, samples=16_000):
        optimizer.zero_grad()
        (model.x * batch.mean()).square().mean().backward()
        optimizer.step()
        schedule.step()
        time.sleep(0.004 if RANK == 0 else 0.001)
    swarm.mean_model()
    say(made=swarm.steps, samples=swarm.progress.samples, rate=optimizer.param_groups[0]["lr"])
"""


def test_all_stop_together_at_a_total_of_the_whole_swarm_and_fast_nodes_make_more_of_it():
    with Nodes(UNTIL, 3) as nodes:
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        said = [nodes.said(rank)[-1] for rank in range(3)]
    made = 8 * sum(one["made"] for one in said)
    assert 0.85 * 16_000 < made < 1.15 * 16_000
    assert said[0]["made"] < min(said[1]["made"], said[2]["made"])
    assert all(0.0009 < one["rate"] < 0.002 for one in said)


DIVERGES = """
model = Vector(2000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
with swarmsgd.join(model, optimizer, local_steps=1, on_divergence="heal") as swarm:
    for step in range(300):
        optimizer.zero_grad()
        (model.x - 1.0).square().sum().backward()
        if RANK == 1 and step == 100:
            model.x.grad.fill_(float(os.environ["VALUE"]))
        optimizer.step()
        time.sleep(0.001)
    finite = bool(torch.isfinite(model.x).all())
    mean = swarm.mean_model()["x"]
    say(finite=finite, off=float((mean - 1.0).abs().max()))
"""


@pytest.mark.parametrize("value", ["nan", "1e37"], ids=["not finite", "large"])
def test_a_model_that_diverged_begins_again_from_its_copy_and_harms_nobody(value):
    with Nodes(DIVERGES, 3, VALUE=value) as nodes:
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        for rank in range(3):
            assert nodes.said(rank)[-1]["finite"] and nodes.said(rank)[-1]["off"] < 0.1
        assert "begins again from its copy" in nodes.output(1)
        assert "begins again" not in nodes.output(0) + nodes.output(2)


LIES = """
model = Vector(2000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
with swarmsgd.join(model, optimizer, local_steps=1, refuse_beyond=50) as swarm:
    def tries():
        stats = swarm.stats()
        return stats["started"] + stats["skipped"]

    def over():
        if RANK != 2:
            return 2 in swarm.stats()["lost_peers"]
        return lied is not None and tries() >= lied + 40

    lied = None
    while not over():
        optimizer.zero_grad()
        (model.x - 1.0 + 0.1 * torch.randn(2000)).square().sum().backward()
        optimizer.step()
        time.sleep(0.001)
        stats = swarm.stats()
        if RANK == 2 and lied is None and stats["completed"] + stats["answered"] >= 60:
            lied = tries()  # the others know by now what is usual
            with torch.no_grad():
                model.x.mul_(1e6)
    say(largest=float(model.x.abs().max()), lost=swarm.stats()["lost_peers"])
    os._exit(0) if RANK == 2 else None
"""


def test_a_model_a_million_times_too_large_is_refused_and_its_sender_named():
    with Nodes(LIES, 3) as nodes:
        nodes.wait()
        for rank in (0, 1):
            said = nodes.said(rank)[-1]
            assert said["largest"] < 100, nodes.everything()
            # who sees the other's model first refuses it, which is chance
            assert "its model is" in said["lost"]["2"], nodes.everything()
            assert "peer 2 distrust" in nodes.output(rank)


def test_a_launch_starts_a_failed_node_again_and_it_joins_the_others(tmp_path):
    from swarmsgd.train.launch.launcher import Launcher
    from swarmsgd.train.launch.processes import NodeEnd, Note, OutputLine

    script = tmp_path / "train.py"
    script.write_text(
        """
import os, sys, torch, swarmsgd
torch.set_num_threads(1)
model = torch.nn.Linear(50, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    life = swarm.stats()["incarnation"]
    print("life", life, flush=True)
    flag = sys.argv[1]
    while not os.path.exists(flag):
        optimizer.zero_grad(); model(torch.ones(4, 50)).square().mean().backward(); optimizer.step()
        if swarm.rank == 1 and life == 0 and swarm.steps == 20:
            sys.exit("this life is over")
        if swarm.rank == 1 and life == 1 and swarm.stats()["completed"] > 5:
            open(flag, "w").close()
    swarm.mean_model()
    print("mean of", swarm.mean_of, flush=True)
"""
    )
    argv = [sys.executable, str(script), str(tmp_path / "flag")]
    with Launcher(argv, 2, restarts=1) as launcher:
        events = [event for event in launcher.events() if event is not None]
        outcome = launcher.outcome
    lines = {event.text for event in events if isinstance(event, OutputLine)}
    notes = [event.text for event in events if isinstance(event, Note)]
    assert {"life 0", "life 1", "mean of [0, 1]", "this life is over"} <= lines, lines
    assert notes == ["node 1 is started again in 1 s (1 of 1)"]
    assert sum(isinstance(event, NodeEnd) for event in events) == 3
    assert outcome.exit_code == 0


def test_sigterm_lets_a_node_leave_in_order():
    with Nodes(TRAIN, 2) as nodes:
        for rank in range(2):
            nodes.wait_said(rank, "completed", 2)
        nodes.signal(1, signal.SIGTERM)
        assert nodes.processes[1].wait() == 128 + signal.SIGTERM
        now = nodes.said(0)[-1]["trained"]
        nodes.wait_said(0, "trained", now + 25)
        nodes.go(0)
        assert nodes.processes[0].wait() == 0
        assert nodes.said(0)[-1]["mean_of"] == [0]
        assert "peer 1 lost" not in nodes.output(0)
