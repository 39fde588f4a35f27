"""The bench has the figures that it promises; how fast the codes are is not for a test to say."""

import pytest

from swarmsgd.codec.bench import bench


@pytest.mark.parametrize(("bits", "bytes_each"), [(None, 4), (8, 1), (4, 0.5)])
def test_a_bench_tells_seconds_copies_and_bytes(bits, bytes_each):
    found = bench(20_000, bits, 3)
    assert set(found) == {
        "copy_s",
        "offer_s",
        "answer_s",
        "mix_s",
        "offer",
        "answer",
        "mix",
        "bytes",
        "rotation",
    }
    for name in "offer", "answer", "mix":
        assert found[name] == pytest.approx(found[f"{name}_s"] / found["copy_s"])
    assert bytes_each < found["bytes"] < bytes_each + 0.01
