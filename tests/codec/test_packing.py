"""Payloads: their size, and that nothing but what a peer of this run sends is taken."""

import numpy as np
import pytest
from by_definition import Node, Room, allocate, sealed
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.codec import make_code, packing
from swarmsgd.codec.kernels import CODED, LEFT_OUT, RAW
from swarmsgd.codec.packing import OFFER, REPLY, Format
from swarmsgd.core.lattice import CODED_BITS
from swarmsgd.errors import ProtocolError


def pair(dim: int, bits: int | None) -> tuple[Node, Node]:
    rng = np.random.default_rng(0)
    model = rng.standard_normal(dim).astype(np.float32)
    near = model + 0.01 * rng.standard_normal(dim).astype(np.float32)
    code_i, code_j = (make_code(dim, bits, rotation=False) for _ in range(2))
    return Node(model, code_i), Node(near, code_j)


def after_first_exchange(dim: int, bits: int | None) -> tuple[Node, Node]:
    """A pair that knows its distance, so that offers are no longer in float32."""
    i, j = pair(dim, bits)
    reply, _ = j.answer(i.offer(1), 2)
    i.mix(reply)
    return i, j


@pytest.mark.parametrize(("bits", "bytes_each"), [(8, 1.01), (4, 0.51), (3, 0.385), (None, 4.01)])
def test_an_offer_and_a_reply_take_little_more_than_their_codes(bits, bytes_each):
    i, j = after_first_exchange(1_000_000, bits)
    offer = i.offer(3)
    reply, _ = j.answer(offer, 4)
    assert offer.size <= bytes_each * 1_000_000 and reply.size <= bytes_each * 1_000_000


@settings(deadline=None)
@given(st.sampled_from([0, *CODED_BITS]), st.integers(1, 20000), st.integers(0, 2**32 - 1))
def test_a_payload_parses_to_what_was_put_in(bits, dim, seed):
    rng = np.random.default_rng(seed)
    form = Format(dim, bits, rotated=bool(bits and seed % 2))
    for kind in OFFER, REPLY:
        forms = rng.choice(np.array(form.forms(kind), np.uint8), form.blocks)
        out = packing.new(form, kind, seed << 32, forms, allocate)
        out.checks[:] = rng.integers(2**32, size=form.blocks)
        out.cells[:] = np.where(forms == CODED, rng.random(form.blocks) + 0.1, 0)
        out.body[:] = rng.integers(256, size=out.body.size)
        got = packing.parse_payload(form, kind, sealed(out))
        assert got.seed == seed << 32
        for name in "checks", "cells", "forms", "starts", "body":
            np.testing.assert_array_equal(getattr(got, name), getattr(out, name))


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: data[:20], "bytes"),
        (lambda data: data[:0], "bytes"),
        (lambda data: data[:-1], "bytes"),
        (lambda data: np.append(data, np.uint8(0)), "bytes"),
        (lambda data: np.append(np.uint8(0), data)[:-1], "begins with"),
    ],
)
def test_a_payload_that_is_cut_or_shifted_is_refused(bits, spoil, says):
    i, j = after_first_exchange(10_000, bits)
    before = j.state()
    with pytest.raises(ProtocolError, match=says):
        j.answer(spoil(i.offer(1)), 2)
    assert j.state() == before


def test_a_payload_of_another_kind_size_or_code_is_refused():
    i, j = after_first_exchange(10_000, 8)
    offer = i.offer(1)
    before = i.state()
    with pytest.raises(ProtocolError, match=r"this reply has \(kind.*\(1, 8.*wanted \(2, 8"):
        i.mix(offer)
    for other in make_code(10_000, 4), make_code(10_000, None), make_code(10_000, 8, rotation=True):
        with pytest.raises(ProtocolError, match="one version and config"):
            other.answer(offer, j.copy, j.pending, 2, allocate)
    with pytest.raises(ProtocolError, match="one version and config"):
        make_code(9_999, 8).answer(offer, j.copy[1:], j.pending[1:], 2, allocate)
    assert i.state() == before


@pytest.mark.parametrize("cell", [0.0, -1.0, np.nan, np.inf, 1e-38])
def test_a_cell_that_no_block_can_have_is_refused(cell):
    form = Format(5000, 8)
    out = packing.new(form, OFFER, 1, np.full(2, CODED, np.uint8), allocate)
    out.cells[:] = cell
    with pytest.raises(ProtocolError, match="a form or a cell"):
        packing.parse_payload(form, OFFER, sealed(out))


@pytest.mark.parametrize(("kind", "form"), [(OFFER, LEFT_OUT), (REPLY, RAW), (OFFER, 7)])
def test_a_form_that_no_block_can_have_is_refused(kind, form):
    layout = Format(5000, 8)
    out = packing.new(layout, kind, 1, np.full(2, form, np.uint8), allocate)
    with pytest.raises(ProtocolError, match="a form or a cell"):
        packing.parse_payload(layout, kind, sealed(out))


@pytest.mark.parametrize("bits", [None, 3, 8, 16])
def test_payloads_are_read_wherever_they_lie_in_memory(bits):
    i, j = after_first_exchange(9001, bits)
    offer = i.offer(1)
    lane = np.zeros(offer.size + 8, np.uint8)
    results = []
    for shift in range(8):
        view = lane[shift : shift + offer.size]
        view[:] = offer
        view.flags.writeable = False
        copy, pending = j.copy.copy(), j.pending.copy()
        code = make_code(9001, bits, rotation=False)
        room = Room()
        code.answer(view, copy, pending, 2, room)
        results.append((room.payload.tobytes(), copy.tobytes(), pending.tobytes()))
    assert len(set(results)) == 1
