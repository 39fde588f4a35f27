"""Blocks around, at and beyond the reach of their cells: each is mixed right or left alone.

The cells are too narrow because the history they were chosen from misleads; what must come of each
block is worked out in integers by `by_integers`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from by_definition import Node
from by_integers import LEFT_OUT, RAW, Sent, expected, parts, turned
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.codec import make_code
from swarmsgd.core import lattice
from swarmsgd.core.lattice import CODED_BITS

CODES = [(bits, rotated) for bits in CODED_BITS for rotated in (False, True)]
DIM = 3 * 4096 + 100
SEEDS = st.integers(0, 2**63 - 1)
WITHIN = (0.0, 0.3, 0.9, 0.999)
AROUND = (1 - 1e-6, 1.0, 1 + 1e-6, 1.001)
BEYOND = (1.5, 2.0, 4.0, 1e3, 1e7)
HOW = ("all", "one", "signs")


def away(rng: np.random.Generator, size: int, how: str, most: float) -> np.ndarray:
    """A difference with `most` as its largest: of all coordinates, of one, or of both signs."""
    if how == "one":
        apart = np.zeros(size)
        apart[rng.integers(size)] = rng.choice([-1, 1])
        return most * apart
    if how == "all":
        return np.full(size, most * rng.choice([-1, 1]))
    return most * rng.choice([-1.0, 1.0], size)


def place(rng: np.random.Generator, sent: Sent, x: np.ndarray, data: st.DataObject) -> np.ndarray:
    """A partner's model, in the code's own coordinates: each block of it a distance away that is
    taken from the block's cell.
    """
    q = 1 << sent.bits
    y = x.copy()
    for block, part in enumerate(parts(x.size)):
        here, how = sent.lattices[block], data.draw(st.sampled_from(HOW))
        if sent.forms[block] == RAW:
            y[part] += away(rng, x[part].size, how, data.draw(st.sampled_from([1e-3, 1.0, 1e3])))
            continue
        cells = data.draw(st.sampled_from([*WITHIN, *AROUND, *BEYOND])) * (q - 1) / 2
        if data.draw(st.booleans()):  # the same colours, whole steps of q away
            cells = q * data.draw(st.integers(1, 3))
        points = here.points(here.integers(x[part]))
        y[part] = points + away(rng, points.size, how, cells * here.cell)
    return y


def exchange(i: Node, j: Node, rng: np.random.Generator, data: st.DataObject, rotated: bool):
    """One exchange, in which j is put where it hurts once the offer is made."""
    offer = i.offer(data.draw(SEEDS))
    x = i.copy.copy()
    sent = Sent.read(offer, DIM)
    y = place(rng, sent, turned(x, rotated), data).astype(np.float32)
    j.copy[:] = lattice.unrotate(torch.from_numpy(y)).numpy() if rotated else y
    y = j.copy.copy()
    i.pending[:] = j.pending[:] = 0
    reply, seen_j = j.answer(offer, data.draw(SEEDS))
    late = 0.01 * rng.standard_normal(DIM).astype(np.float32)
    i.copy += late  # another exchange is mixed meanwhile
    then = i.copy.copy()
    seen_i = i.mix(reply)

    delta, mixed = expected(offer, reply, x, y, rotated)
    for block, part in enumerate(parts(DIM)):
        if not mixed[block]:
            delta[part] = 0
        np.testing.assert_array_equal(j.pending[part], -delta[part])
        np.testing.assert_array_equal(i.pending[part], delta[part])
        np.testing.assert_array_equal(j.copy[part], y[part] - delta[part])
        np.testing.assert_array_equal(i.copy[part], then[part] + delta[part])
    left_out = [not each for each in mixed]
    assert (Sent.read(reply, DIM).forms == LEFT_OUT).tolist() == left_out
    assert seen_i.left_out == seen_j.left_out == sum(left_out)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "rotated"), CODES)
@settings(deadline=None, max_examples=12)
@given(data=st.data(), seed=st.integers(0, 2**32), history=st.sampled_from([-30, -15, -5, 0]))
def test_each_block_becomes_what_exact_arithmetic_says_or_stays_at_both_ends(
    bits, rotated, data, seed, history
):
    rng = np.random.default_rng(seed)
    model = rng.standard_normal(DIM)
    near = model + 2.0**history * rng.standard_normal(DIM)
    i, j = (Node(m, make_code(DIM, bits, rotation=rotated)) for m in (model, near))
    for _ in range(2):  # a history of this distance
        i.mix(j.answer(i.offer(1), 2)[0])
    for _ in range(3):  # a block that fails twice goes as float32
        i.code.published(np.full(4, 2.0 ** data.draw(st.integers(-20, 4)), np.float32))
        exchange(i, j, rng, data, rotated)


@pytest.mark.parametrize("bits", CODED_BITS)
@pytest.mark.parametrize("how", HOW)
def test_the_cliff_is_where_the_definition_says(bits, how):
    """Just within reach all blocks are mixed; past it none, whole steps of q away included."""
    q = 1 << bits
    for cells, wanted in (
        (0.49 * (q - 1), 0),
        (0.51 * (q - 1) + 1, 4),
        (q, 4),
        (2 * q, 4),
        (1000 * q, 4),
    ):
        rng = np.random.default_rng(5)
        model = rng.standard_normal(DIM)
        i, j = (Node(model, make_code(DIM, bits, rotation=False)) for _ in range(2))
        j.copy += np.float32(2.0**-8)
        i.mix(j.answer(i.offer(1), 2)[0])
        offer = i.offer(3)
        sent = Sent.read(offer, DIM)
        for block, part in enumerate(parts(DIM)):
            here = sent.lattices[block]
            points = here.points(here.integers(i.copy[part].astype(np.float64)))
            j.copy[part] = points + away(rng, points.size, how, cells * here.cell)
        before_i, before_j = i.state(), j.state()
        reply, seen_j = j.answer(offer, 4)
        seen_i = i.mix(reply)
        assert seen_i.left_out == seen_j.left_out == wanted, cells
        if wanted:
            assert (i.state(), j.state()) == (before_i, before_j)
