"""The buffer pool: exact lengths, used pages, bounded, safe against what callers do wrong."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmsgd.transport.pool import BufferPool


@given(st.integers(0, 1 << 22))
def test_a_buffer_has_exactly_the_length_asked_for_and_little_more_behind_it(nbytes):
    buffer = BufferPool().take(nbytes)
    assert buffer.shape == (nbytes,) and buffer.dtype == np.uint8 and buffer.flags.c_contiguous
    behind = 0 if buffer.base is None else len(buffer.base)
    assert nbytes <= behind <= max(4096, nbytes * 9 / 8 + 4096) or nbytes == 0


def test_a_buffer_given_back_is_used_again_by_messages_of_nearly_its_length():
    pool = BufferPool()
    buffer = pool.take(1_000_000)
    address = buffer.ctypes.data
    for nbytes in (1_000_000, 999_000, 600_000, 1_000_001):
        pool.give(buffer)
        buffer = pool.take(nbytes)
        assert buffer.ctypes.data == address
    pool.give(buffer)
    assert pool.take(10).ctypes.data != address, "a short message must not hold a long buffer"


def test_what_is_out_is_not_handed_out_again():
    pool = BufferPool()
    first, second = pool.take(5000), pool.take(5000)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize("view", [lambda b: b, lambda b: b[10:20], lambda b: b.view(np.float32)])
def test_any_view_of_a_buffer_can_be_given_back(view):
    pool = BufferPool()
    pool.give(view(pool.take(8192)))
    assert pool.free_bytes == 8192


def test_a_buffer_given_twice_or_from_elsewhere_is_ignored():
    pool = BufferPool()
    buffer = pool.take(8192)
    pool.give(buffer)
    pool.give(buffer)
    pool.give(BufferPool().take(8192))
    pool.give(np.zeros(8192, np.uint8))
    pool.give(np.frombuffer(bytes(8192), np.uint8))
    pool.give(np.zeros((2, 4096), np.uint8)[0])
    pool.give(pool.take(0))
    assert pool.free_bytes == 8192


def test_what_is_kept_is_bounded():
    pool = BufferPool(max_bytes=100_000)
    buffers = [pool.take(n) for n in (30_000, 40_000, 50_000, 200_000)]
    for buffer in buffers:
        pool.give(buffer)
        assert pool.free_bytes <= 100_000
    assert pool.free_bytes > 60_000


def test_a_buffer_that_is_never_given_back_is_collected():
    pool = BufferPool()
    buffer = pool.take(8192)
    assert len(pool._out) == 1
    del buffer
    gc.collect()
    assert not pool._out and pool.free_bytes == 0


def test_threads_never_share_a_buffer():
    pool = BufferPool()
    torn: list[int] = []

    def work(value: int) -> None:
        for k in range(2000):
            buffer = pool.take(100 + 977 * (k % 7))
            buffer[:] = value
            if (buffer != value).any():
                torn.append(value)
            pool.give(buffer)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    assert pool.free_bytes <= 4 * 7 * 8192
