"""Vectors for the kernels lie in memory as these like it."""

import numpy as np
import pytest

from swarmsgd.codec.vectors import empty, zeros


@pytest.mark.parametrize("dim", [1, 15, 4096, 100_001])
def test_a_vector_begins_where_a_cache_line_does(dim):
    for vector in empty(dim), zeros(dim):
        assert vector.dtype == np.float32 and vector.shape == (dim,)
        assert vector.ctypes.data % 64 == 0 and vector.flags.c_contiguous
        assert vector.flags.writeable
    assert not zeros(dim).any()
