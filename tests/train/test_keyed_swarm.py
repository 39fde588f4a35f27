"""A swarm with a key, as processes; who has another key, or none, is in test_wire.py."""

import pytest
from nodes import run

from swarmsgd.transport.keys import make_key

pytestmark = pytest.mark.slow

# The model is longer than what the common start and the mean send at once: so there is a message as
# long as its limit, and what encryption adds to it must not break that.
BODY = """
model = Vector(2_200_000, seed=RANK)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
model.x.grad = torch.zeros(2_200_000)
with swarmsgd.join(model, optimizer, mode="blocking", local_steps=1,
                   key=os.environ["KEY"]) as swarm:
    for _ in range(5):
        optimizer.step()
    mean = swarm.mean_model()["x"]
say(sum=float(mean.double().sum()), of=swarm.mean_of, completed=swarm.stats()["completed"] > 0)
"""


def test_nodes_with_one_key_start_exchange_and_take_their_mean(tmp_path):
    make_key(tmp_path / "key")
    said = run(BODY, 3, KEY=str(tmp_path / "key"))
    assert said[0]["sum"] == said[1]["sum"] == said[2]["sum"]
    assert [one["of"] for one in said] == [[0, 1, 2]] * 3
    assert any(one["completed"] for one in said)
