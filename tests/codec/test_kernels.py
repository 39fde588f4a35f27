"""The compiled kernels against the definitions in `core`, bit for bit."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import by_definition
import numpy as np
import pytest
from by_definition import Node, where
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core import types

from swarmsgd.codec import kernels, make_code, packing
from swarmsgd.codec.cells import Cells
from swarmsgd.codec.kernels import compiled
from swarmsgd.codec.packing import OFFER, REPLY, Format
from swarmsgd.core import arithmetic
from swarmsgd.core.lattice import BLOCK, CODED_BITS, PUBLISHED, blocks_of

DIMS = st.sampled_from([1, 2, 3, 9, 63, 100, 4095, 4096, 4097, 4103, 8192, 8200, 12345])
SEEDS = st.integers(0, 2**64 - 1)
CUTS = st.lists(st.integers(0, 12345), max_size=6)
"""Where a vector in segments is cut; two cuts at one place make an empty segment."""


def normal(seed: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


class Given(Cells):
    """Cells whose next offer is written down."""

    def __init__(self, form: Format, bits: int, forms: np.ndarray, cells: np.ndarray) -> None:
        super().__init__(form.blocks, bits)
        self._next = forms, cells

    def choose(self):
        return self._next


@settings(deadline=None)
@given(
    st.sampled_from(CODED_BITS),
    st.booleans(),
    DIMS,
    SEEDS,
    st.integers(-90, 90),
    st.integers(-24, 3),
    st.booleans(),
    st.booleans(),
)
def test_an_exchange_is_the_defined_one_bit_for_bit(
    bits, rotated, dim, seed, scale, apart, with_raw_blocks, unchanged
):
    form = Format(dim, bits, rotated)
    c_i = normal(seed, dim) * np.float32(2.0**scale)
    c_j = c_i + normal(seed + 1, dim) * np.float32(2.0 ** (scale + apart))
    p_i, p_j = normal(seed + 2, dim), normal(seed + 3, dim)
    rng = np.random.default_rng(seed)
    forms = (rng.random(form.blocks) < 0.4 * with_raw_blocks).astype(np.uint8)
    reach = 8 * 2.0 ** (scale + apart) * (64 if rotated else 1) / ((1 << bits) - 1)
    cells = np.where(forms, 0, 2 * reach).astype(np.float32)
    own_seed = int(rng.integers(2**63))

    offered = by_definition.offer(form, forms, cells, c_i, seed)
    replied = by_definition.answer(form, offered, seed, c_j, own_seed)
    want_i = by_definition.change(form, offered, replied)
    want_j = by_definition.change(form, replied, offered)

    i, j = (Node(c.copy(), make_code(dim, bits, rotation=rotated)) for c in (c_i, c_j))
    i.code._cells = Given(form, bits, forms, cells)
    i.pending, j.pending = p_i.copy(), p_j.copy()
    payload = i.offer(seed)
    reply, seen_j = j.answer(payload, own_seed)
    i.offered = i.copy if unchanged else c_i
    seen_i = i.mix(reply)

    assert seen_i.left_out == seen_j.left_out == 0
    for kind, data, coded in (OFFER, payload, offered), (REPLY, reply, replied):
        got = packing.parse_payload(form, kind, data)
        np.testing.assert_array_equal(got.checks, coded.checks.numpy())
        np.testing.assert_array_equal(got.cells, coded.cells.numpy())
        if not (coded.forms != kernels.CODED).any():
            colours = by_definition.unpack(got.body, got.starts, dim, bits)
            np.testing.assert_array_equal(colours, coded.colours.numpy())
    np.testing.assert_array_equal(want_i, -want_j)
    for copy, pending, was, pending_was, want in (
        (i.copy, i.pending, c_i, p_i, want_i),
        (j.copy, j.pending, c_j, p_j, want_j),
    ):
        np.testing.assert_array_equal(copy, was + want)
        np.testing.assert_array_equal(pending, pending_was + want)
    squared = float(np.square((offered.points - replied.points).double().numpy()).sum())
    assert seen_i.distance_sq == pytest.approx(squared, rel=1e-4)
    assert seen_j.distance_sq == pytest.approx(squared, rel=1e-4)


@settings(deadline=None)
@given(DIMS, SEEDS, st.booleans(), CUTS)
def test_publishing_is_the_defined_one_and_tells_how_far_each_block_moved(dim, seed, nothing, cuts):
    live, old = normal(seed, dim), normal(seed + 1, dim)
    pending = normal(seed + 2, dim) * np.float32(not nothing)
    want_live, want_pending, want_copy = live.copy(), pending.copy(), old.copy()
    arithmetic.publish(want_live, want_pending, want_copy)

    copy, burst_max = old.copy(), np.empty(blocks_of(dim), np.float32)
    assert kernels.apply_and_publish(*where(live, cuts), pending, copy, burst_max)
    np.testing.assert_array_equal(live, want_live)
    np.testing.assert_array_equal(copy, want_copy)
    assert not pending.any()
    moved = np.abs(live - old)
    for block, largest in enumerate(burst_max):
        assert largest == moved[block * BLOCK : (block + 1) * BLOCK].max()


@settings(deadline=None)
@given(DIMS, SEEDS, CUTS)
def test_what_is_pending_lands_once(dim, seed, cuts):
    live, pending = normal(seed, dim), normal(seed + 1, dim)
    want = live + pending
    for _ in range(2):
        kernels.apply_pending(*where(live, cuts), pending)
        np.testing.assert_array_equal(live, want)
        assert not pending.any()


BEYOND = np.nextafter(np.float32(PUBLISHED), np.float32(np.inf))


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_that_is_published_and_the_next_that_is_not(sign):
    for value, is_published in ((np.float32(PUBLISHED), True), (BEYOND, False)):
        live, pending, copy = np.full((3, 5), np.float32(0))
        live[2] = sign * value
        burst_max = np.empty(1, np.float32)
        done = kernels.apply_and_publish(*where(live, []), pending, copy, burst_max)
        assert done == is_published and copy[2] == (live[2] if is_published else 0)
        fresh, copy = live.copy(), np.zeros(5, np.float32)
        assert kernels.land(fresh, pending, copy, burst_max) == is_published


@settings(deadline=None)
@given(DIMS, SEEDS, st.sampled_from([np.nan, np.inf, -np.inf, BEYOND]), st.booleans(), st.data())
def test_a_model_that_has_diverged_is_not_published(dim, seed, value, is_pending, data):
    live, pending, old = normal(seed, dim), normal(seed + 1, dim), normal(seed + 2, dim)
    at = data.draw(st.integers(0, dim - 1))
    (pending if is_pending else live)[at] = value
    copy = old.copy()
    burst_max = np.empty(blocks_of(dim), np.float32)
    assert not kernels.apply_and_publish(*where(live, [dim // 2]), pending, copy, burst_max)
    np.testing.assert_array_equal(copy, old)


def test_a_kernel_that_cannot_be_cached_still_compiles():
    namespace: dict[str, Any] = {}
    exec("def double(x):\n    return 2 * x", namespace)  # no file, so no place for a cache
    double = compiled.Kernel(namespace["double"], types.float64(types.float64))
    assert double(3.0) == 6.0 and not double.was_cached


def test_where_the_usual_place_cannot_be_written_to_kernels_are_kept_elsewhere_and_that_is_said(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = compiled.cache_place()
    assert place.folder == tmp_path / "swarmsgd" / "kernels"
    assert place.instead_of == f"{tmp_path}/file/cache cannot be written to"
    assert compiled.what_takes_long(place).startswith(
        f"compiling for this machine, once: it is kept in {place.folder}, since {tmp_path}/file"
    )
    monkeypatch.setattr(compiled, "_PLACE", place)
    (tmp_path / "twice.py").write_text("def double(x):\n    return 2 * x")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("twice").double
    for cached in (False, True):
        caplog.clear()
        double = compiled.Kernel(function, types.float64(types.float64))
        monkeypatch.setattr(compiled, "KERNELS", [double])
        compiled.prepare()
        assert double(3.0) == 6.0
        assert double.was_cached == cached
        assert ("compiling for this machine" in caplog.text) == (not cached)
    assert list(place.folder.rglob("*.nbc"))


PREPARE = """
from swarmsgd.codec.kernels import publishing
few = [publishing.apply_pending, publishing.apply_and_publish]  # all would take half a minute
for kernel in few:
    _ = kernel.compiled
print(sum(kernel.was_cached for kernel in few), len(few))
"""


def prepare_elsewhere(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_processes_that_fill_one_empty_cache_at_once_all_work_and_the_next_one_only_loads(tmp_path):
    together = [prepare_elsewhere(tmp_path) for _ in range(4)]
    for process in together:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0 and not err, err
    out, err = prepare_elsewhere(tmp_path).communicate(timeout=600)
    loaded, wanted = out.split()
    assert loaded == wanted, f"{loaded} of {wanted} kernels came from the cache ({err})"
