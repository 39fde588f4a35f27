"""The start of a swarm: one slow node delays the others, and never makes their join fail."""

from __future__ import annotations

import pytest
from nodes import Nodes, run

pytestmark = pytest.mark.slow

SLOW = """
from swarmsgd.train.meet import collective

class Slow(torch.distributed.Store):
    "A store whose first answer comes only when one of `keys` is there: somebody has gone on."
    def __init__(self, store, keys):
        super().__init__()
        self.store, self.keys = store, keys
    def hold(self):
        while self.keys and not any(self.store.check([key]) for key in self.keys):
            time.sleep(0.01)  # between two looks at another process
        self.keys = []
    def get(self, key):
        self.hold()
        return self.store.get(key)
    def wait(self, keys, *timeout):
        self.hold()
        return self.store.wait(keys, *timeout)
    def multi_get(self, keys):
        self.hold()
        return self.store.multi_get(keys)
    def set(self, key, value): self.store.set(key, value)
    def add(self, key, value): return self.store.add(key, value)
    def check(self, keys): return self.store.check(keys)
    def multi_set(self, keys, values): self.store.multi_set(keys, values)
    def has_extended_api(self): return True

open_group = collective.open_group

def slowly(name, store, *arguments, address, **options):
    # Gloo lets the higher address connect: node 1 only needs to listen, until it looks itself.
    if RANK != 1:
        return open_group(name, store, *arguments, address="127.0.0.2", **options)
    run = name.rpartition("/")[0]
    node_2_is_done = [f"{run}/started/2", f"{run}/links/link/0-2/card/2"]
    slow = Slow(store, node_2_is_done)
    return open_group(name, slow, *arguments, address="127.0.0.1", **options)

collective.open_group = slowly
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
