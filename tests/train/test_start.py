"""The start of a swarm: one slow node delays the others, and never makes their join fail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from bench import HERE
from nodes import Nodes, free_port, run
from torch.distributed import TCPStore

pytestmark = pytest.mark.slow

SLOW = """
from swarmsgd.train.meet.tree import Tree

def slowly(tree, values, broadcast=Tree.broadcast):
    while RANK == 1 and swarm_store.line.absent("started") != [1]:
        time.sleep(0.01)  # between two looks at who has taken over the start
    broadcast(tree, values)

from swarmsgd.train.meet.rendezvous import Rendezvous
listen = Rendezvous.listen
def listens(rendezvous, *limits):
    global swarm_store
    swarm_store = rendezvous
    return listen(rendezvous, *limits)
Rendezvous.listen = listens
Tree.broadcast = slowly
"""


def test_a_node_that_is_slow_to_take_over_the_start_makes_no_join_fail() -> None:
    body = (
        SLOW
        + """
model = Vector(10, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with swarmsgd.join(model, optimizer): pass
say(start=model.x.detach().tolist())
"""
    )
    said = run(body, 3)
    assert said[0] == said[1] == said[2]


def test_a_node_that_cannot_take_over_the_start_is_named_to_the_others() -> None:
    body = """
model = Vector(10)
model.register_buffer("counts", torch.zeros(1).expand(3) if RANK == 1 else torch.zeros(3))
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1))
except swarmsgd.errors.SwarmError as error:
    say(error=type(error).__name__ + ": " + str(error))
"""
    with Nodes(body, 3) as nodes:
        assert nodes.wait() == [0, 0, 0], nodes.everything()
        errors = [nodes.said(rank)[-1]["error"] for rank in range(3)]
    assert errors[1].startswith("ModelError: a tensor of shape [3] and strides [0]")
    for error in (errors[0], errors[2]):
        assert error.startswith("PeerError: node 1 ended before it had joined"), errors


@pytest.mark.parametrize("seed", [0, 1])
def test_no_join_fails_of_delays_in_every_step_of_the_start(seed: int) -> None:
    """`benchmarks/joining.py --delayed 60` makes more of them, with longer ones."""
    body = f"""
sys.path.insert(0, {str(HERE)!r})
from delays import STEPS, delay_every_step
waited = delay_every_step(f"{seed} {{RANK}}", 0.2)
model = Vector(10, seed=RANK)
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
    swarm.mean_model()
say(start=model.x.detach().tolist(), of=swarm.mean_of, late=len(waited) > len(STEPS))
"""
    said = run(body, 3)
    assert said[0] == said[1] == said[2]
    assert said[0]["of"] == [0, 1, 2] and said[0]["late"]


def test_nodes_whose_agents_count_restarts_each_for_itself_meet_again() -> None:
    """As under torchrun on two machines: one node fails, and only its agent counts that."""
    body = """
model = Vector(10, seed=RANK)
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
    say(joined=True)
    if os.environ["TRY"] == "1":
        when_told().wait()
        os._exit(1)  # the agent ends the other one, too
    swarm.mean_model()
    say(of=swarm.mean_of)
"""
    port = free_port()
    agent = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False,
                     timeout=timedelta(seconds=60))  # fmt: skip
    names = {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    names |= {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "0", "TRY": "1"}
    with Nodes(body, 2, **names) as nodes:
        for rank in (0, 1):
            nodes.wait_said(rank, "joined")
        nodes.go()
        assert nodes.wait() == [1, 1]
        again = nodes.add(1, TRY="2", TORCHELASTIC_RESTART_COUNT="1")
        other = nodes.add(0, TRY="2")
        for process in (again, other):
            assert nodes.wait_said(process, "of")["of"] == [0, 1]
    del agent
