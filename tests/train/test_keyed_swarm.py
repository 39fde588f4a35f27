"""A swarm with a key: it trains, and who has another key, or none, is named at the start."""

import pytest
from nodes import Nodes, run

from swarmsgd.transport.keys import make_key

pytestmark = pytest.mark.slow

BODY = """
model = Vector(20_000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(20_000)
try:
    with swarmsgd.join(model, optimizer, mode="blocking", local_steps=1,
                       join_timeout_s=float(os.environ.get("WAIT", 600)),
                       key=os.environ[f"KEY{RANK}"] or None) as swarm:
        for _ in range(5):
            optimizer.step()
        mean = swarm.mean_model()["x"]
    say(sum=float(mean.double().sum()), of=swarm.mean_of, completed=swarm.stats()["completed"] > 0)
except swarmsgd.errors.PeerError as error:
    say(error=str(error))
"""


def test_nodes_with_one_key_start_exchange_and_take_their_mean(tmp_path):
    make_key(tmp_path / "key")
    said = run(
        BODY, 3, KEY0=str(tmp_path / "key"), KEY1=str(tmp_path / "key"), KEY2=str(tmp_path / "key")
    )
    assert said[0]["sum"] == said[1]["sum"] == said[2]["sum"]
    assert [one["of"] for one in said] == [[0, 1, 2]] * 3
    assert any(one["completed"] for one in said)


@pytest.mark.parametrize("theirs", ["none", "another"])
def test_a_node_without_the_key_gets_no_further_than_the_store(tmp_path, theirs):
    make_key(tmp_path / "key")
    make_key(tmp_path / "another")
    other = "" if theirs == "none" else str(tmp_path / "another")
    with Nodes(BODY, 2, KEY0=str(tmp_path / "key"), KEY1=other, WAIT="8") as nodes:
        assert nodes.wait() == [0, 0], nodes.everything()
        here, there = (nodes.said(rank)[-1]["error"] for rank in (0, 1))
        printed = nodes.output(0)
    assert "hangs up on this node, which has " + ("no key" if not other else "key ") in there
    assert "1 of 2 nodes did not appear within 8 s: node 1" in here
    if other:  # without any the other end may find out first, and hang up
        assert "somebody who is no node of this swarm was refused at its store" in printed
