"""Real processes, real sockets: what a swarm promises."""

import re
import signal
import threading
from pathlib import Path

import pytest
import torch
from nodes import Nodes, free_port, run

import swarmsgd
from swarmsgd.core import messages

pytestmark = pytest.mark.slow

CONSERVE = """
D = 300_000
model = Vector(D, seed=RANK, scale=10.0 ** RANK / 100)
start = model.x.detach().double().clone()
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(D)
bits = None if os.environ["BITS"] == "none" else int(os.environ["BITS"])
with swarmsgd.join(model, optimizer, local_steps=1, broadcast_start=False, graph="complete",
                   mode=os.environ["MODE"], bits=bits) as swarm:
    swarm.mean_model()
    gamma_before = swarm.gamma
    while swarm.stats()["started"] < 100:
        optimizer.step()
        time.sleep(0.001)
    mean = swarm.mean_model()["x"].double()
    stats = swarm.stats()
final = model.x.detach().double().clone()
torch.save((start, final, mean), os.environ["TMP"] + f"/{RANK}.pt")
say(before=gamma_before, after=swarm.gamma, started=stats["started"], lost=stats["lost"])
"""


@pytest.mark.parametrize(
    ("mode", "bits"),
    [
        ("non-blocking", "none"),
        ("non-blocking", "8"),
        ("non-blocking", "4"),
        ("non-blocking", "3"),
        ("blocking", "none"),
        ("blocking", "4"),
        ("blocking", "3"),
    ],
)
def test_the_sum_of_models_is_conserved_over_hundreds_of_overlapping_exchanges(
    mode, bits, tmp_path
):
    import torch

    said = run(CONSERVE, 4, MODE=mode, BITS=bits, TMP=str(tmp_path))
    starts, finals, means = zip(
        *(torch.load(tmp_path / f"{rank}.pt") for rank in range(4)), strict=True
    )
    before, after = sum(starts), sum(finals)
    drift = float((after - before).norm() / before.norm())
    print(f"drift {drift:.2e}, Gamma {said[0]['before']:.3e} -> {said[0]['after']:.3e}, {said}")
    assert sum(s["started"] for s in said) >= 400
    assert sum(s["lost"] for s in said) == 0
    assert drift < 1e-5
    assert said[0]["after"] < said[0]["before"] / 1e6
    assert all(torch.equal(mean, means[0]) for mean in means)
    assert torch.allclose(means[0], before / 4, rtol=0, atol=1e-5 * float(before.abs().max()))


MATCHING = """
import hashlib
torch.manual_seed(RANK)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
draw = torch.Generator().manual_seed(RANK)
with swarmsgd.join(model, optimizer, local_steps=2, mode="matching", seed=3) as swarm:
    for step in range(60):
        x = torch.randn(16, 8, generator=draw)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    mean = swarm.mean_model()
    stats = swarm.stats()
digest = hashlib.sha256()
for value in mean.values():
    digest.update(value.numpy().tobytes())
for value in model.parameters():
    digest.update(value.detach().numpy().tobytes())
say(digest=digest.hexdigest(), exchanges=stats["completed"] + stats["answered"])
"""


def test_matching_mode_ends_with_the_same_bits_every_time():
    first, second = run(MATCHING, 4), run(MATCHING, 4, fresh=True)  # other hash seeds, addresses
    assert first == second
    assert [s["exchanges"] for s in first] == [30, 30, 30, 30]


START = """
torch.manual_seed(RANK)
model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
model[2].bias.requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters())
swarm = swarmsgd.join(model, optimizer)
say(sum=float(sum(v.double().abs().sum() for v in model.state_dict().values())))
swarm.leave()
swarm.leave()
"""


def test_all_nodes_begin_with_node_0s_model_frozen_parts_included():
    said = run(START, 3)
    assert said[0] == said[1] == said[2]


TRAIN = """
D = 1000
model = Vector(D)
target = torch.full((D,), float(RANK))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
with swarmsgd.join(model, optimizer, local_steps=2) as swarm:
    told, lost = when_told(), 0
    say(trained=0)
    while not told.is_set() or swarm.stats()["steps"] < 1000:
        optimizer.zero_grad()
        (model.x - target).square().sum().backward()
        optimizer.step()
        stats = swarm.stats()
        if stats["steps"] % 50 == 0:
            say(trained=stats["steps"])
        if len(stats["lost_peers"]) > lost:
            lost = len(stats["lost_peers"])
            say(lost=lost)
        time.sleep(0.001)
    mean = swarm.mean_model()["x"]
    stats = swarm.stats()
say(mean=float(mean.mean()), of=swarm.mean_of, gamma=swarm.gamma, blocked=stats["blocked_s"],
    completed=stats["completed"], lost_peers=sorted(stats["lost_peers"]))
"""


def test_four_nodes_find_the_mean_of_their_targets():
    with Nodes(TRAIN, 4) as nodes:
        for rank in range(4):
            nodes.wait_said(rank, "trained", 1000)  # all go on until all are there
        nodes.go()
        assert nodes.wait() == [0, 0, 0, 0], nodes.everything()
        said = [nodes.said(rank)[-1] for rank in range(4)]
    assert all(s["of"] == [0, 1, 2, 3] for s in said)
    # 1.5 if all make their steps equally fast; a busy machine lets some pull harder than others.
    # Alone, each would sit at its own target, 0 to 3: a gamma of 5 a parameter.
    assert len({s["mean"] for s in said}) == 1 and abs(said[0]["mean"] - 1.5) < 0.9
    assert said[0]["gamma"] < 2500
    assert sum(s["completed"] for s in said) > 20


def test_with_equal_steps_the_mean_is_that_of_the_targets_to_rounding():
    body = """
model = Vector(1000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
with swarmsgd.join(model, optimizer, local_steps=2, mode="matching") as swarm:
    for _ in range(400):
        optimizer.zero_grad()
        (model.x - float(RANK)).square().sum().backward()
        optimizer.step()
    mean = swarm.mean_model()["x"]
say(low=float(mean.min()), high=float(mean.max()), of=swarm.mean_of)
"""
    for said in run(body, 4):
        assert said["of"] == [0, 1, 2, 3]
        assert abs(said["low"] - 1.5) < 1e-3 and abs(said["high"] - 1.5) < 1e-3


def test_a_killed_node_costs_the_others_only_itself():
    with Nodes(TRAIN, 4) as nodes:
        for rank in range(4):
            nodes.wait_said(rank, "trained", 50)
        nodes.signal(3, signal.SIGKILL)
        for rank in range(3):
            nodes.wait_said(rank, "lost", 1)
        nodes.go()
        codes = nodes.wait()
        assert codes == [0, 0, 0, -signal.SIGKILL], nodes.everything()
        for rank in range(3):
            last = nodes.said(rank)[-1]
            assert last["of"] == [0, 1, 2]
            assert last["blocked"] == 0 and last["lost_peers"] == [3]


def test_a_stopped_node_stops_nobody_else():
    with Nodes(TRAIN, 4) as nodes:
        for rank in range(4):
            nodes.wait_said(rank, "trained", 50)
        nodes.signal(2, signal.SIGSTOP)
        for rank in (0, 1, 3):
            before = max(fields["trained"] for fields in nodes.said(rank))
            nodes.wait_said(rank, "trained", before + 500)
        nodes.signal(2, signal.SIGCONT)
        nodes.go()
        assert nodes.wait() == [0, 0, 0, 0], nodes.everything()
        assert all(nodes.said(rank)[-1]["of"] == [0, 1, 2, 3] for rank in range(4))
        assert all(nodes.said(rank)[-1]["blocked"] == 0 for rank in (0, 1, 3))


def test_a_mean_that_waits_for_a_node_says_so_and_does_not_wait_for_one_that_leaves():
    body = """
import logging
from swarmsgd.train.meet import mean
mean.TELL_S = 0.1
class Say(logging.Handler):
    def emit(self, record):
        said = record.getMessage()
        say(waits=said) if "waits" in said else say(alone=said)
logging.getLogger("swarmsgd").addHandler(Say())
told = when_told()
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(100)
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    optimizer.step()
    while RANK == 1 and not told.is_set():
        optimizer.step()
    if RANK != 1:  # as after `if swarm.rank == 0:`
        swarm.mean_model()
say(of=swarm.mean_of)
"""
    with Nodes(body, 3) as nodes:
        for rank in (0, 2):
            waits = nodes.wait_said(rank, "waits")["waits"]
            assert re.match(r"mean_model\(\) waits for node [02, ]*1", waits), waits
        nodes.go(1)
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        assert [nodes.said(rank)[-1]["of"] for rank in range(3)] == [[0, 2], [], [0, 2]]
        for rank in (0, 2):
            (alone,) = [fields["alone"] for fields in nodes.said(rank) if "alone" in fields]
            assert alone == "this mean is of nodes [0, 2] alone: node 1 has left or is dead"


def test_training_goes_on_after_a_mean():
    body = """
model = Vector(1000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(1000)
settings = dict(local_steps=1, broadcast_start=False, mode=os.environ["MODE"])
with swarmsgd.join(model, optimizer, **settings) as swarm:
    gammas = []
    for _ in range(3):
        swarm.mean_model()
        gammas.append(swarm.gamma)
        for _ in range(40):
            optimizer.step()
            time.sleep(0.002)
say(gammas=gammas)
"""
    for mode in ("non-blocking", "matching"):
        gammas = run(body, 4, MODE=mode)[0]["gammas"]
        assert gammas[1] < gammas[0] / 10
        assert gammas[2] <= max(gammas[1], 1e-12 * gammas[0])  # unless it is rounding already


REFUSED = """
try:
    {change}
except swarmsgd.errors.SwarmError as error:
    say(error=type(error).__name__ + ": " + str(error))
    sys.exit(3)
"""


def refused(change: str, count: int = 3) -> list[str]:
    body = REFUSED.format(change=change.replace("\n", "\n    "))
    with Nodes(body, count) as nodes:
        codes = nodes.wait()
        assert codes == [3] * count, nodes.everything()
        return [nodes.said(rank)[-1]["error"] for rank in range(count)]


def test_two_nodes_with_different_models_refuse_each_other_by_name():
    errors = refused("""
model = nn.Linear(4, 3 if RANK == 1 else 2)
swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1), join_timeout_s=600)
""")
    for rank, error in enumerate(errors):
        assert error.startswith("PeerError: ")
        other = "node 0, 2 has" if rank == 1 else "node 1 has"
        assert other in error and "number of parameters: " in error


def test_two_nodes_with_different_settings_refuse_each_other_by_name():
    errors = refused("""
model = nn.Linear(4, 2)
mode = "blocking" if RANK == 2 else "non-blocking"
swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1), mode=mode)
""")
    assert (
        "node 2 has other settings than node 0: mode: non-blocking here, blocking there"
        in errors[0]
    )


def test_settings_that_come_to_the_same_are_no_disagreement():
    body = """
model = Vector(10)
rotation = False if RANK == 1 else None  # at 8 bits blocks are not rotated unless one asks
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1), rotation=rotation): pass
say(joined=True)
"""
    assert all(said["joined"] for said in run(body, 2))


def test_a_nan_stops_the_node_that_has_it_and_harms_nobody():
    body = """
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(100)
try:
    with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
        for step in range(100):
            if RANK == 1 and step == 50:
                model.x.grad[7] = float("nan")
            optimizer.step()
            time.sleep(0.002)
        mean = swarm.mean_model()["x"]
    say(finite=bool(torch.isfinite(mean).all()), of=swarm.mean_of)
except swarmsgd.errors.ModelError as error:
    say(error=str(error))
"""
    said = run(body, 3)
    assert "x has 1 non-finite of 100 values" in said[1]["error"]
    assert said[0] == said[2] == {"finite": True, "of": [0, 2]}


def test_an_error_before_a_mean_reaches_its_node_and_the_others_have_theirs():
    body = """
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
try:
    with swarmsgd.join(model, optimizer) as swarm:
        if RANK == 1:
            def read():
                raise RuntimeError("the device is out of memory")
            type(swarm._connection.replica).read = lambda replica: read()
        swarm.mean_model()
    say(of=swarm.mean_of)
except RuntimeError as error:
    say(error=str(error))
"""
    said = run(body, 3)
    assert said[1] == {"error": "the device is out of memory"}
    assert said[0] == said[2] == {"of": [0, 2]}


def test_a_mean_that_fails_though_all_live_is_given_up_with_the_reason():
    body = """
from swarmsgd.train.meet import mean
def fails(*_):
    raise RuntimeError("the network says no")
mean.Tree.sum = fails
model = Vector(100)
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.0)) as swarm:
    try:
        swarm.mean_model()
    except swarmsgd.errors.PeerError as error:
        say(error=str(error))
"""
    errors = [said["error"] for said in run(body, 2)]
    assert all("of nodes [0, 1] failed 3 times, though all of them live" in e for e in errors)
    assert any("the network says no" in error for error in errors)


def test_a_mean_without_the_store_is_an_error_that_says_so():
    body = """
model = Vector(100)
swarm = swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.0))
say(joined=True)
sys.stdin.readline()
if RANK == 0:  # which hosts the store
    os._exit(0)
try:
    swarm.mean_model()
except swarmsgd.errors.PeerError as error:
    say(error=str(error))
swarm.leave()
"""
    with Nodes(body, 2) as nodes:
        for rank in range(2):
            nodes.wait_said(rank, "joined")
        for rank in range(2):
            nodes.go(rank)
            nodes.processes[rank].wait()
        error = nodes.said(1)[-1]["error"]
    assert "the store of this run, at 127.0.0.1:" in error
    assert "cannot be reached any more" in error and "own model is intact" in error


def test_a_forked_child_that_exits_is_not_the_node_that_leaves():
    body = """
import atexit
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
with swarmsgd.join(model, optimizer) as swarm:
    if RANK == 1:
        child = os.fork()
        if child == 0:
            swarm.leave()
            atexit._run_exitfuncs()
            os._exit(0)
        os.waitpid(child, 0)
    swarm.mean_model()
    say(of=swarm.mean_of)
"""
    assert [said["of"] for said in run(body, 3)] == [[0, 1, 2]] * 3


def test_in_matching_mode_nobody_waits_for_a_node_that_has_made_its_steps():
    body = """
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(100)
with swarmsgd.join(model, optimizer, mode="matching", local_steps=1) as swarm:
    for _ in range(30 if RANK == 0 else 20):
        optimizer.step()
    swarm.mean_model()
    say(**{name: swarm.stats()[name] for name in ("completed", "refused", "skipped", "lost")})
"""
    first, _ = run(body, 2)
    assert first["completed"] == 20
    assert first["refused"] + first["skipped"] == 10 and first["lost"] == 0


def test_in_matching_mode_nodes_meet_again_after_a_mean_however_many_steps_each_had_made():
    body = """
model = Vector(100, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(100)
settings = dict(mode="matching", local_steps=1, broadcast_start=False)
with swarmsgd.join(model, optimizer, **settings) as swarm:
    for _ in range((22, 18, 14, 10)[RANK]):
        optimizer.step()
    swarm.mean_model()
    before = swarm.stats()
    for _ in range(6):
        optimizer.step()
    after = swarm.stats()
say(**{name: after[name] - before[name] for name in ("overdue", "lost", "completed", "answered")})
"""
    said = run(body, 4)
    assert all(s["overdue"] == s["lost"] == 0 for s in said)
    assert all(s["completed"] + s["answered"] == 6 for s in said)


def test_a_mean_leaves_the_models_own_buffers_as_they_were():
    body = """
model = Vector(10)
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    model.register_buffer("b" + str(dtype)[6:], torch.full((3,), 1.0 + RANK, dtype=dtype))
settings = dict(broadcast_start=False, buffers=os.environ["BUFFERS"])
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.0), **settings) as swarm:
    mean = swarm.mean_model()
names = ("bfloat64", "bfloat32", "bbfloat16")
say(mean=[float(mean[n][0]) for n in names], own=[float(getattr(model, n)[0]) for n in names])
"""
    for rank, said in enumerate(run(body, 2, BUFFERS="average")):
        assert said == {"mean": [1.5] * 3, "own": [1.0 + rank] * 3}
    for rank, said in enumerate(run(body, 2, BUFFERS="local")):
        assert said == {"mean": [1.0 + rank] * 3, "own": [1.0 + rank] * 3}


def test_leaving_that_is_interrupted_leaves_all_the_same():
    body = """
model = Vector(100)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
swarm = swarmsgd.join(model, optimizer)
if RANK == 1:
    def interrupted():
        raise KeyboardInterrupt
    swarm._connection.worker.wait_released = interrupted
    try:
        swarm.leave()
    except KeyboardInterrupt:
        say(left=[t.name for t in threading.enumerate() if t.name.startswith("swarmsgd")])
else:
    swarm.mean_model()
    say(of=swarm.mean_of)
    swarm.leave()
"""
    assert run(body, 3) == [{"of": [0, 2]}, {"left": []}, {"of": [0, 2]}]


def test_a_tensor_that_cannot_take_over_node_0s_is_named_by_its_shape():
    body = """
model = Vector(10)
model.register_buffer("wide", torch.ones(1).expand(4))
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1))
except swarmsgd.errors.ModelError as error:
    say(error=str(error))
"""
    for said in run(body, 2):
        assert "a tensor of shape [4] and strides [0] cannot take over" in said["error"]


def test_a_join_that_fails_leaves_nothing_behind(tmp_path):
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    place = {"rank": 0, "num_nodes": 2, "master_addr": "127.0.0.1", "master_port": free_port()}
    with pytest.raises(swarmsgd.errors.PeerError, match="1 of 2 nodes did not appear"):
        swarmsgd.join(model, optimizer, join_timeout_s=0.5, record=tmp_path / "r.jsonl", **place)
    opened = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert tmp_path / "r.jsonl" not in opened
    assert not [t for t in threading.enumerate() if t.name.startswith("swarmsgd")]


def test_a_missing_node_is_named():
    body = """
model = Vector(10)
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1), num_nodes=3, join_timeout_s=2)
except swarmsgd.errors.PeerError as error:
    say(error=str(error))
"""
    errors = [said["error"] for said in run(body, 2)]
    missing = r"\d of 3 nodes did not appear within 2 s: node ([01], )?2\. Start them"
    # Whoever is first to give up names it; the other may learn only that this one has ended, or
    # that its store has.
    ended = "node [01] ended before|not all 3 nodes appeared within 2 s, and the store of this run"
    assert any(re.match(missing, error) for error in errors), errors
    assert all(re.match(f"{missing}|{ended}", error) for error in errors), errors


def test_who_has_not_come_yet_is_named_while_the_others_wait():
    body = """
import logging
import swarmsgd.train.meet.rendezvous as rendezvous
rendezvous._MISSED_S = 0.1
told = []
logging.getLogger("swarmsgd").addFilter(lambda record: told.append(record.getMessage()) or True)
model = Vector(10)
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1), num_nodes=3, join_timeout_s=1)
except swarmsgd.errors.PeerError:
    say(told=told)
"""
    told = run(body, 1)[0]["told"]
    assert any("waiting for node 1, 2 of 3, up to 1 s in all: start them" in text for text in told)


def test_a_taken_port_is_said_at_once():
    import socket

    body = """
model = Vector(10)
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1))
except swarmsgd.errors.ConfigError as error:
    say(error=str(error))
"""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        said = run(body, 1, MASTER_PORT=str(port))
    assert f"cannot host the store at 127.0.0.1:{port}" in said[0]["error"]


def test_a_peer_of_another_protocol_version_is_refused_by_name():
    errors = refused("""
from swarmsgd.core import messages
messages.VERSION += RANK == 1
model = nn.Linear(4, 2)
swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1))
""")
    versions = f"protocol version: {messages.VERSION} here, {messages.VERSION + 1} there"
    assert f"node 1 has other settings than node 0: {versions}" in errors[0]


GARBAGE = """
import socket
model = Vector(1000)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(1000)
def listening():
    inodes = {os.readlink(f"/proc/self/fd/{f}") for f in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{f}")}
    rows = [r.split() for r in open("/proc/net/tcp").read().splitlines()[1:]]
    return {int(r[1].split(":")[1], 16) for r in rows if r[3] == "0A" and f"socket:[{r[9]}]" in
    inodes}
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    say(ports=sorted(listening()))
    sys.stdin.readline()
    told, before = when_told(), swarm.stats()["completed"]
    while not told.is_set():
        optimizer.step()
        say(more=swarm.stats()["completed"] - before)
        time.sleep(0.005)
    stats = swarm.stats()
    swarm.mean_model()
say(peers=stats["open_peers"], of=swarm.mean_of)
"""


def test_garbage_sent_to_a_nodes_ports_harms_nobody():
    import contextlib
    import socket

    with Nodes(GARBAGE, 3) as nodes:
        ports = [port for rank in range(3) for port in nodes.wait_said(rank, "ports")["ports"]]
        assert ports
        for port in ports:
            for junk in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 4096, b""):
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", port), 0.2) as s,
                ):
                    s.sendall(junk)
        nodes.go()
        for rank in range(3):
            nodes.wait_said(rank, "more", 6)
        nodes.go()
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        for rank in range(3):
            last = nodes.said(rank)[-1]
            assert last["peers"] == 2 and last["of"] == [0, 1, 2]


def test_what_makes_no_sense_after_leaving_or_twice_is_refused():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with swarmsgd.join(model, optimizer, graph="ring") as swarm:
        with pytest.raises(swarmsgd.errors.ConfigError, match="part of a swarm already"):
            swarmsgd.join(model, optimizer)
        assert swarm.stats()["completed"] == 0
    with pytest.raises(swarmsgd.errors.SwarmError, match="after this node left"):
        swarm.mean_model()
    swarmsgd.join(model, optimizer).leave()


def test_one_node_alone_works_and_says_so():
    body = """
import logging
logging.basicConfig()
for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with swarmsgd.join(model, optimizer) as swarm:
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    mean = swarm.mean_model()
say(same=all(torch.equal(mean[k], v) for k, v in model.state_dict().items()), of=swarm.mean_of)
"""
    with Nodes(body, 1) as nodes:
        assert nodes.wait() == [0], nodes.everything()
        assert nodes.said(0)[-1] == {"same": True, "of": [0]}
        assert "a swarm of one node: nobody to average with" in nodes.output(0)
