"""Nodes where descriptors are scarce."""

import pytest
from nodes import Nodes

JOIN = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
model = Vector(8, RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
try:
    swarm = swarmsgd.join(model, optimizer, local_steps=1, graph="complete")
except ValueError as error:
    say(refused=str(error))
    raise SystemExit(1)
with swarm:
    for _ in range(5):
        optimizer.zero_grad()
        model.x.square().sum().backward()
        optimizer.step()
    swarm.mean_model()
    say(mean_of=len(swarm.mean_of))
"""


@pytest.mark.slow
def test_a_complete_graph_fits_into_a_hard_limit_above_the_soft_one():
    """Two ports, and a descriptor a link: a square of the nodes' number would not."""
    with Nodes(JOIN.format(soft=40, hard=180), 10) as nodes:
        assert [nodes.wait_said(rank, "mean_of")["mean_of"] for rank in range(10)] == [10] * 10


@pytest.mark.slow
def test_a_node_whose_mean_would_find_no_descriptors_does_not_begin():
    with Nodes(JOIN.format(soft=90, hard=90), 2) as nodes:
        said = nodes.wait_said(0, "refused")["refused"]
    assert "a node with 1 link wants" in said and "`ulimit -n` allows 90 a process" in said
