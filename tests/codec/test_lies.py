"""Payloads that are whole in every check, and yet nothing that an honest peer sends."""

import numpy as np
import pytest
import torch
from by_definition import Node, allocate, sealed

from swarmsgd.codec import make_code, packing
from swarmsgd.codec.kernels import CODED
from swarmsgd.codec.packing import Format
from swarmsgd.core import lattice
from swarmsgd.core.wire_code import Bytes
from swarmsgd.errors import ProtocolError

DIM = 2 * lattice.BLOCK + 1000


def forged(form: Format, kind: int, cell: float) -> Bytes:
    """All coordinates are as far as can be from any model that is small against the cell."""
    out = packing.new(form, kind, 1, np.full(form.blocks, CODED, np.uint8), allocate)
    up = torch.where(lattice.offsets(1, form.blocks) < 0.5, -1, 1) << (form.bits - 1)
    k = up.repeat_interleave(lattice.BLOCK)[: form.dim]
    out.cells[:] = cell
    out.checks[:] = lattice.check(k).numpy()
    width = np.unpackbits(np.array([1 << (form.bits - 1)], "<u2").view(np.uint8), bitorder="little")
    for block, length in enumerate(form.lengths):
        bits = np.tile(width[: form.bits], length)
        data = np.packbits(bits, bitorder="little")
        out.body[out.starts[block] : out.starts[block + 1]] = data
    return sealed(out)


@pytest.mark.parametrize("exponent", [60, 105, 118, 120, 125, 126])
@pytest.mark.parametrize(
    ("bits", "rotated"), [(8, False), (8, True), (4, True), (4, False), (16, False)]
)
def test_what_a_liar_sends_never_makes_a_model_infinite(bits: int, rotated: bool, exponent: int):
    rng = np.random.default_rng(0)
    form = Format.shared(DIM, bits, rotated)
    node = Node(rng.standard_normal(DIM), make_code(DIM, bits, rotation=rotated))
    before = node.state()
    _, mixed = node.answer(forged(form, packing.OFFER, 2.0**exponent), 2)
    assert np.isfinite(node.copy).all() and np.isfinite(node.pending).all()
    assert (mixed.left_out == mixed.blocks) == (node.state() == before)
    node = Node(rng.standard_normal(DIM), make_code(DIM, bits, rotation=rotated))
    node.offer(3)
    before = node.state()
    try:
        node.mix(forged(form, packing.REPLY, 2.0**exponent))
    except ProtocolError as error:
        assert "do not decode next to what was offered" in str(error)
        assert node.state() == before
    assert np.isfinite(node.copy).all() and np.isfinite(node.pending).all()
    if exponent == 60:  # far, but a distance that models might have
        assert node.state() != before
    if exponent == 126:
        assert node.state() == before
