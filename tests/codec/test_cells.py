"""The cells that a node chooses: wide enough almost always, and never much wider than was seen."""

import numpy as np
import pytest
from by_definition import Node, where
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.codec import make_code
from swarmsgd.codec.cells import Cells
from swarmsgd.codec.kernels import CODED, RAW, apply_and_publish
from swarmsgd.core.lattice import BLOCK, CODED_BITS

SIZES = st.floats(0, 2.0**100, width=32)


def of(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def reach(cells: Cells, bits: int) -> np.ndarray:
    """The distance that the next offer's cells allow for."""
    forms, chosen = cells.choose()
    assert (forms == CODED).all()
    return chosen * ((1 << bits) - 1) / 2


def test_nothing_is_coded_before_a_distance_is_known():
    cells = Cells(3, 8)
    assert (cells.choose()[0] == RAW).all()
    cells.burst(of(1, 1, 1))
    assert (cells.choose()[0] == RAW).all()
    cells.saw(of(1, -1, 2))
    np.testing.assert_array_equal(cells.choose()[0], [CODED, RAW, CODED])


def test_after_a_common_start_the_first_cells_are_for_a_burst_of_either_end():
    cells = Cells(3, 8, common_start=True)
    cells.burst(of(1, 3, 0))
    np.testing.assert_array_equal(cells.predict(), [2, 6, 0])
    np.testing.assert_array_equal(cells.choose()[0], [CODED, CODED, RAW])
    cells.burst(of(1, 1, 0))
    cells.saw(of(0.5, -1, 0.1))
    np.testing.assert_allclose(cells.predict(), [0.5, 6, 0.1])  # seen, or what it was before


@pytest.mark.parametrize("burst", ["normal", "signs", "sparse"])
@pytest.mark.parametrize(
    ("bits", "rotation"), [(8, False), (16, False), (4, False), (6, True), (4, True), (8, True)]
)
def test_after_a_common_start_first_bursts_are_mixed_at_once(bits, rotation, burst):
    rng = np.random.default_rng(0)
    dim = 4 * BLOCK
    model = rng.standard_normal(dim)
    i, j = (Node(model, make_code(dim, bits, rotation=rotation, common_start=True)) for _ in "ij")
    for node in i, j:
        change = {
            "normal": lambda: rng.standard_normal(dim),
            "signs": lambda: np.sign(rng.standard_normal(dim)),
            "sparse": lambda: rng.standard_normal(dim) * (rng.random(dim) < 0.01),
        }[burst]()
        live = node.copy + (1e-3 * change).astype(np.float32)
        burst_max = np.zeros(4, np.float32)
        apply_and_publish(*where(live), np.zeros_like(live), node.copy, burst_max)
        node.code.published(burst_max)
    offer = i.offer(0)
    mixed = i.mix(j.answer(offer, 0)[0])
    assert offer.size < 1.2 * dim * bits / 8
    if burst == "sparse":
        assert mixed.left_out <= 1  # where the other end's largest change is larger
    elif burst == "signs" and rotation:
        assert mixed.left_out == 4
        assert i.mix(j.answer(i.offer(1), 1)[0]).left_out == 0  # as float32
    else:
        assert mixed.left_out == 0


def test_rotated_distances_grow_as_bursts_do_and_no_slower():
    grown = []
    for rotated in False, True:
        cells = Cells(1, 4, rotated=rotated)
        cells.burst(of(1))
        cells.saw(of(4))  # signs: rotated they are normal, four times as large at most
        cells.burst(of(3))
        grown.append(cells.predict()[0])
    assert grown == [6, 12]


def test_a_common_start_that_was_none_ends_in_float32():
    cells = Cells(1, 8, common_start=True)
    cells.burst(of(1))
    forms, chosen = cells.choose()
    assert (forms == CODED).all()
    cells.offered(chosen)
    cells.replied(of(-1))
    assert (cells.choose()[0] == RAW).all()
    cells.replied(of(0.5))
    assert (cells.choose()[0] == CODED).all()


@pytest.mark.parametrize("bits", CODED_BITS)
def test_a_steady_distance_is_covered_with_a_margin(bits):
    cells = Cells(1, bits)
    for _ in range(10):
        cells.burst(of(0.7))
        cells.saw(of(1.0))
    assert 1.1 < reach(cells, bits)[0] <= 8


@settings(deadline=None)
@given(
    st.lists(st.tuples(SIZES, SIZES), min_size=1),
    SIZES,
)
def test_the_prediction_is_at_most_a_distance_seen_plus_the_newest_burst(history, burst):
    cells = Cells(1, 8)
    for size, distance in history:
        cells.burst(of(size))
        cells.saw(of(distance))
    cells.burst(of(burst))
    bursts = [burst, *(size for size, _ in history[:-3:-1])]
    largest = max(distance for _, distance in history[-4:])
    predicted = cells.predict()[0]
    assert largest * 0.999 <= predicted <= (largest + max(bursts)) * 1.001


def test_a_burst_that_grew_tenfold_widens_the_cells_at_once():
    cells = Cells(2, 8)
    for _ in range(5):
        cells.burst(of(0.1, 0))
        cells.saw(of(0.14, 0))
    cells.burst(of(1, 1))
    np.testing.assert_allclose(cells.predict(), [1.04, 1], rtol=1e-6)


def test_distances_that_shrink_are_followed_within_four_exchanges():
    cells = Cells(1, 8)
    for distance in [1.0] * 5 + [0.1] * 4:
        cells.saw(of(distance))
    assert cells.predict()[0] == np.float32(0.1)


def test_a_failure_doubles_the_reach_and_the_second_in_a_row_makes_it_float32_until_one_decodes():
    cells = Cells(1, 8)
    cells.saw(of(1.0))
    before = reach(cells, 8)
    cells.offered(cells.choose()[1])
    cells.replied(of(-1))
    assert reach(cells, 8) == pytest.approx(2 * before)
    cells.offered(cells.choose()[1])
    cells.replied(of(-1))
    assert cells.choose()[0][0] == RAW
    cells.saw(of(0.5))
    assert cells.choose()[0][0] == RAW
    cells.replied(of(50.0))
    assert reach(cells, 8)[0] >= 50


def trained(bits, rotation, burst, scale="steady"):
    """Shares of blocks left out, and noise: squared errors of both ends over their squared
    distance; 1/2 undoes an exchange.
    """
    rng = np.random.default_rng(0)
    blocks, count, steps = 3, 6, 240
    dim = blocks * BLOCK
    model = rng.standard_normal(dim)
    nodes = [Node(model, make_code(dim, bits, rotation=rotation)) for _ in range(count)]
    left_out, noise = [], []
    for step in range(steps):
        i, j = (nodes[int(n)] for n in rng.permutation(count)[:2])
        size = 1e-3 * {"s": 1, "d": 0.1, "g": 10}[scale[0] if step > steps // 2 else "s"]
        change = {
            "n": lambda: rng.standard_normal(dim),
            "h": lambda: rng.standard_t(3, dim) * np.exp(0.5 * rng.standard_normal()),
            "s": lambda: rng.standard_normal(dim) * (rng.random(dim) < 0.002) * 20,
            "r": lambda: (
                rng.standard_normal((dim // 256, 256)) * (rng.random((dim // 256, 1)) < 0.02)
            ).reshape(dim),
        }[burst[0]]()
        live = i.copy + (size * change).astype(np.float32)
        burst_max = np.zeros(blocks, np.float32)
        assert apply_and_publish(*where(live), np.zeros_like(live), i.copy, burst_max)
        i.code.published(burst_max)
        average = (i.copy.astype(np.float64) + j.copy) / 2
        apart = i.copy.astype(np.float64) - j.copy
        before = i.copy.copy()
        reply, _ = j.answer(i.offer(step), step)
        left_out.append(i.mix(reply).left_out / blocks)
        mixed = i.copy != before
        if step > 20 and mixed.any():
            errors = np.square(i.copy - average) + np.square(j.copy - average)
            noise.append(errors[mixed].sum() / np.square(apart[mixed]).sum())
    return left_out, noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "rotation", "most_left_out", "most_noise"),
    [
        (8, False, 0.05, 0.03),
        (6, False, 0.08, 0.25),
        (6, True, 0.05, 0.01),
        (4, False, 0.12, 0.6),
        (4, True, 0.05, 0.1),
    ],
)
@pytest.mark.parametrize("burst", ["normal", "heavy-tailed", "sparse"])
@pytest.mark.parametrize("scale", ["steady", "drops tenfold", "grows tenfold"])
def test_few_blocks_are_left_out_and_little_noise_is_added(
    bits, rotation, most_left_out, most_noise, burst, scale
):
    left_out, noise = trained(bits, rotation, burst, scale)
    assert np.mean(left_out) < most_left_out
    assert np.median(noise) < most_noise
    assert np.mean(noise) < 2 * most_noise


def test_rotation_keeps_the_noise_of_rows_that_seldom_move_down():
    left_out, noise = trained(6, True, "rows")
    _, plain = trained(6, False, "rows")
    assert np.mean(left_out) < 0.1
    assert np.median(noise) < 0.5 * np.median(plain)
