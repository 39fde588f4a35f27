"""The compiled figures of blocks, next to what they are by definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.codec.kernels import CHANGED, CODED, LEFT, LEFT_OUT, RAW, WRONG, tally
from swarmsgd.codec.packing import Format
from swarmsgd.core.lattice import BLOCK


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, BLOCK - 1), st.integers(0, 2**32 - 1), st.booleans())
def test_a_tally_counts_blocks_and_finds_the_noise_and_the_median_cell(blocks, short, seed, equal):
    rng = np.random.default_rng(seed)
    lengths = Format(blocks * BLOCK - short, 8).lengths
    forms = rng.choice(np.array([CODED, CODED, RAW, LEFT_OUT], np.uint8), blocks)
    seen = rng.choice(np.array([0, 0.5, LEFT, WRONG, CHANGED], np.float32), blocks)
    cells = (2.0 ** rng.uniform(-100, 126, 1 if equal else blocks)).astype(np.float32)
    cells = np.resize(cells, blocks)
    changed, wrong, left, raw, noise_sq, median = tally(forms, cells, seen, lengths)
    assert changed == np.count_nonzero(seen == CHANGED)
    assert wrong == np.count_nonzero(seen == WRONG)
    assert left == np.count_nonzero(seen == LEFT)
    assert raw == np.count_nonzero(forms == RAW)
    mixed = (forms == CODED) & (seen != LEFT)
    widths = np.sort(cells[mixed])
    want = float(lengths[mixed] @ np.square(cells[mixed], dtype=np.float64)) / 12
    assert noise_sq == pytest.approx(want, rel=1e-12)
    assert median == (widths[widths.size // 2] if widths.size else 0)
