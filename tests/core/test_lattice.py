"""The lattice code as defined: when it decodes right, how far it errs, and what its check sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.core import lattice

BITS = st.sampled_from(lattice.CODED_BITS)
DIMS = st.sampled_from([1, 2, 7, 9, 100, 4095, 4096, 4097, 9000])
SEEDS = st.integers(0, 2**64 - 1)
SCALES = st.integers(-25, 35).map(lambda power: 2.0**power)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed % 2**63))


def cells_that_reach(x: torch.Tensor, y: torch.Tensor, bits: int) -> torch.Tensor:
    magnitude = torch.maximum(lattice.largest(x), lattice.largest(y))
    return lattice.cell_for(lattice.largest(x - y), magnitude, bits)


@settings(deadline=None)
@given(BITS, DIMS, SEEDS, SCALES, st.integers(-30, 5))
def test_a_vector_in_reach_decodes_to_the_integers_that_were_sent(bits, dim, seed, scale, apart):
    x = normal(seed, dim) * scale
    y = x + normal(seed + 1, dim) * (scale * 2.0**apart)
    cell, offset = cells_that_reach(x, y, bits), lattice.offsets(seed, lattice.blocks_of(dim))
    k = lattice.encode(x, cell, offset)
    assert torch.equal(lattice.decode(lattice.colours(k, bits), y, cell, offset, bits), k)


@settings(deadline=None)
@given(BITS, SEEDS)
def test_the_reach_is_half_of_all_colours_and_not_much_more(bits, seed):
    q = 1 << bits
    x = normal(seed, 500)
    cell, offset = torch.tensor([0.01]), lattice.offsets(seed, 1)
    k = lattice.encode(x, cell, offset)

    def decoded(distance_in_cells: float) -> torch.Tensor:
        y = x + distance_in_cells * cell
        return lattice.decode(lattice.colours(k, bits), y, cell, offset, bits)

    inside = (q - 1) / 2 - 0.01
    assert torch.equal(decoded(inside), k) and torch.equal(decoded(-inside), k)
    outside = (q + 1) / 2 + 0.01
    assert (decoded(outside) != k).all() and (decoded(-outside) != k).all()


@settings(deadline=None)
@given(BITS, SEEDS, SCALES)
def test_the_check_sees_every_vector_out_of_reach(bits, seed, scale):
    x, y = normal(seed, 5000) * scale, normal(seed + 1, 5000) * scale
    cell = torch.full((2,), 0.1 * scale / (1 << bits))
    offset = lattice.offsets(seed, 2)
    k = lattice.encode(x, cell, offset)
    got = lattice.decode(lattice.colours(k, bits), y, cell, offset, bits)
    assert (lattice.check(got) != lattice.check(k)).all()


@settings(deadline=None)
@given(DIMS, SEEDS, SCALES, st.integers(-20, 2))
def test_a_point_is_at_most_half_a_cell_away(dim, seed, scale, fineness):
    x = normal(seed, dim) * scale
    finest = lattice.floor_cell(lattice.largest(x))
    cell = torch.maximum(torch.full_like(finest, scale * 2.0**fineness), finest)
    offset = lattice.offsets(seed, lattice.blocks_of(dim))
    error = lattice.points(lattice.encode(x, cell, offset), cell, offset).double() - x.double()
    rounding = 2.0**-22 * lattice.largest(x)
    limit = (0.5 * cell + rounding).repeat_interleave(lattice.BLOCK)[:dim]
    assert (error.abs() <= limit).all()


def test_points_are_unbiased_over_the_offsets_with_the_variance_of_a_uniform_error():
    x, cell = normal(3, 200), torch.tensor([0.37])
    errors = torch.stack(
        [
            lattice.points(lattice.encode(x, cell, u), cell, u) - x
            for u in (lattice.offsets(seed, 1) for seed in range(4000))
        ]
    )
    assert errors.mean(0).abs().max() < 5 * 0.37 / 12**0.5 / 4000**0.5
    assert errors.var(0).mean().item() == pytest.approx(0.37**2 / 12, rel=0.02)


@given(SEEDS, st.integers(1, 300))
def test_offsets_lie_in_the_unit_interval_and_add_exactly_to_one_half(seed, blocks):
    offset = lattice.offsets(seed, blocks)
    assert offset.shape == (blocks,) and (offset >= 0).all() and (offset < 1).all()
    assert torch.equal((offset + 0.5).double(), offset.double() + 0.5)
    assert torch.equal((0.5 - offset).double(), 0.5 - offset.double())


def test_offsets_of_different_seeds_and_blocks_are_unrelated():
    table = torch.stack(
        [lattice.offsets(seed, 64) for seed in [*range(32), *(2**s for s in range(6, 64))]]
    )
    assert table.unique().numel() > 0.99 * table.numel()
    assert table.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.corrcoef(table).fill_diagonal_(0).abs().max() < 0.6


@settings(deadline=None)
@given(DIMS, SEEDS, st.data())
def test_a_change_of_one_integer_or_an_exchange_of_two_changes_the_check(dim, seed, data):
    k = (normal(seed, dim) * 1000).int()
    at = data.draw(st.integers(0, dim - 1))
    changed = k.clone()
    changed[at] += data.draw(st.integers(1, 2**22)) * data.draw(st.sampled_from([-1, 1]))
    wrong = lattice.check(changed) != lattice.check(k)
    assert wrong[at // lattice.BLOCK] and wrong.sum() == 1
    other = data.draw(st.integers(0, dim - 1))
    if k[at] != k[other]:
        swapped = k.clone()
        swapped[at], swapped[other] = k[other], k[at]
        assert (lattice.check(swapped) != lattice.check(k)).any()


@pytest.mark.slow
@pytest.mark.parametrize("bits", lattice.CODED_BITS)
@pytest.mark.parametrize("wrong", [(1, -1), (1, 1), (1, -2, 1), (1, -1, -1, 1)])
def test_a_few_neighbours_that_decode_wrong_change_the_check(wrong, bits):
    k = (normal(bits, 2**11, len(wrong)) * 1000).int()  # rows, each a short block
    off = k + (torch.tensor(wrong) << bits)
    assert (lattice.check(off.int()) != lattice.check(k)).all()


@pytest.mark.slow
@settings(deadline=None)
@given(BITS, DIMS, SEEDS)
def test_rows_are_coded_as_if_they_were_alone(bits, dim, seed):
    x_ND = normal(seed, 3, dim)
    y_ND = x_ND + 0.01 * normal(seed + 1, 3, dim)
    cell, offset = cells_that_reach(x_ND, y_ND, bits), lattice.offsets(seed, lattice.blocks_of(dim))
    k_ND = lattice.encode(x_ND, cell, offset)
    for row in range(3):
        k = lattice.encode(x_ND[row], cell[row], offset)
        assert torch.equal(k, k_ND[row])
        assert torch.equal(lattice.check(k), lattice.check(k_ND)[row])
        points = lattice.points(k_ND, cell, offset)[row]
        assert torch.equal(lattice.points(k, cell[row], offset), points)
    assert torch.equal(lattice.decode(lattice.colours(k_ND, bits), y_ND, cell, offset, bits), k_ND)


@settings(deadline=None)
@given(st.sampled_from([1, 2, 3, 100, 4096, 4097, 7000]), SEEDS)
def test_rotation_keeps_lengths_and_is_undone(dim, seed):
    x = normal(seed, dim)
    turned = lattice.rotate(x)
    assert turned.norm().item() == pytest.approx(x.norm().item(), rel=1e-5)
    assert (lattice.unrotate(turned) - x).abs().max() < 1e-5
    assert torch.equal(lattice.unrotate(-turned), -lattice.unrotate(turned))


def test_rotation_spreads_a_few_large_values_over_their_block():
    spiky = torch.zeros(4096)
    spiky[::400] = normal(0, 11)
    assert lattice.largest(spiky) / spiky.square().mean().sqrt() > 20
    turned = lattice.rotate(spiky)
    assert lattice.largest(turned) / turned.square().mean().sqrt() < 6
