"""The arithmetic of an exchange, on one node and on many at once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.core import arithmetic

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=8))
def test_the_two_changes_are_exact_opposites(pairs: list[tuple[float, float]]):
    a, b = np.array(pairs, np.float32).T
    assert np.array_equal(arithmetic.change(a, b), -arithmetic.change(b, a))


def test_a_pair_that_exchanges_alone_ends_at_the_average():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1000)).astype(np.float32)
    mean = (a + b) / 2
    pending = np.zeros((2, 1000), np.float32)
    to_a, to_b = arithmetic.change(a, b), arithmetic.change(b, a)
    arithmetic.mix(a, pending[0], to_a)
    arithmetic.mix(b, pending[1], to_b)
    assert np.allclose(a, mean, atol=1e-6) and np.allclose(b, mean, atol=1e-6)
    assert np.array_equal(pending[0], -pending[1])


def test_publish_lands_what_is_pending_first():
    live, pending, copy = (np.full((3, 5), v, np.float32) for v in (1.0, 0.25, 9.0))
    arithmetic.publish(live, pending, copy)
    assert (live == 1.25).all() and (copy == 1.25).all() and (pending == 0).all()


def test_a_stack_of_nodes_gives_what_each_gives_alone():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 4, 33)).astype(np.float32)
    together = arithmetic.change(a, b)
    for row in range(4):
        assert np.array_equal(together[row], arithmetic.change(a[row], b[row]))
