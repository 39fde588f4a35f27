"""What every wire code promises: conservation, nothing wrong ever mixed, and who is told what."""

from typing import Any

import numpy as np
import pytest
from by_definition import Node, Room, allocate, where
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.codec import make_code, packing
from swarmsgd.codec.kernels import LEFT_OUT, RAW, apply_and_publish
from swarmsgd.codec.packing import OFFER, REPLY, Format
from swarmsgd.core.lattice import BLOCK, blocks_of
from swarmsgd.errors import ConfigError, ModelError, ProtocolError

KINDS = [
    (None, False),
    *((bits, False) for bits in (3, 4, 5, 6, 7, 8, 16)),
    (4, True),
    (8, True),
]
EVERY_CODE = pytest.mark.parametrize(("bits", "rotation"), KINDS)
SEEDS = st.integers(0, 2**32 - 1)


def swarm(rng: np.random.Generator, nodes: int, dim: int, bits, rotation, apart=0.01) -> list[Node]:
    model = rng.standard_normal(dim)
    return [
        Node(
            model + apart * rng.standard_normal(dim),
            make_code(dim, bits, rotation=rotation),
        )
        for _ in range(nodes)
    ]


def exchange(i: Node, j: Node, rng: np.random.Generator):
    """One exchange that nothing overlaps; what both ends saw."""
    reply, seen_j = j.answer(i.offer(int(rng.integers(2**63))), int(rng.integers(2**63)))
    return i.mix(reply), seen_j


def total(nodes: list[Node]) -> np.ndarray:
    return np.sum([node.copy.astype(np.float64) for node in nodes], 0)


@EVERY_CODE
def test_overlapping_exchanges_conserve_the_sum_of_copies(bits, rotation):
    rng = np.random.default_rng(7)
    dim, steps = 9000, 120
    nodes = swarm(rng, 5, dim, bits, rotation)
    moved = total(nodes)
    in_flight: dict[int, np.ndarray] = {}
    for _ in range(steps):
        i = int(rng.integers(5))
        if i in in_flight:  # a reply arrives, after whatever its initiator did meanwhile
            nodes[i].mix(in_flight.pop(i))
            continue
        burst = 0.003 * rng.standard_normal(dim).astype(np.float32)
        burst_max = np.zeros(blocks_of(dim), np.float32)
        live = nodes[i].copy + burst
        moved += live.astype(np.float64) - nodes[i].copy
        assert apply_and_publish(*where(live), np.zeros_like(live), nodes[i].copy, burst_max)
        nodes[i].code.published(burst_max)
        j = (i + int(rng.integers(1, 5))) % 5
        offer = nodes[i].offer(int(rng.integers(2**63)))
        in_flight[i], _ = nodes[j].answer(offer, int(rng.integers(2**63)))
    for i, reply in in_flight.items():
        nodes[i].mix(reply)
    roundings = 4 * steps * np.finfo(np.float32).eps * 4
    assert np.abs(total(nodes) - moved).max() < roundings
    assert np.abs((total(nodes) - moved).mean()) < roundings / 50


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(KINDS),
    st.sampled_from([1, 5, 4096, 4100, 9000]),
    SEEDS,
    st.integers(-20, 20),
    st.integers(-25, 2),
)
def test_the_two_ends_of_an_exchange_change_by_exact_opposites(kind, dim, seed, scale, apart):
    rng = np.random.default_rng(seed)
    i, j = swarm(rng, 2, dim, *kind, apart=2.0**apart)
    for node in i, j:
        node.copy *= np.float32(2.0**scale)
    for _ in range(3):
        i.pending[:] = j.pending[:] = 0
        seen_i, seen_j = exchange(i, j, rng)
        np.testing.assert_array_equal(i.pending, -j.pending)
        assert seen_i.left_out == seen_j.left_out
        assert seen_i.distance_sq == pytest.approx(seen_j.distance_sq, rel=1e-4, abs=1e-35)


def test_an_exact_exchange_leaves_both_at_the_average_and_tells_their_distance():
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 10_000, None, False, apart=1.0)
    want = (i.copy.astype(np.float64) + j.copy) / 2
    distance_sq = float(np.square(i.copy.astype(np.float64) - j.copy).sum())
    for seen in exchange(i, j, rng):
        assert seen.distance_sq == pytest.approx(distance_sq) and seen.blocks == 3
    for node in i, j:
        np.testing.assert_allclose(node.copy, want, rtol=0, atol=1e-6)


@pytest.mark.slow
@EVERY_CODE
@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e3, 1e30])
def test_unrelated_models_reach_consensus_without_a_wrong_value(bits, rotation, scale):
    rng = np.random.default_rng(3)
    dim, count = 5000, 4
    nodes = [
        Node(scale * rng.standard_normal(dim), make_code(dim, bits, rotation=rotation))
        for _ in range(count)
    ]
    form = Format(dim, bits or 0, rotation)
    mean = total(nodes) / count
    spread = max(np.abs(node.copy - mean).max() for node in nodes)
    for _ in range(160):
        i, j = (nodes[int(node)] for node in rng.permutation(count)[:2])
        was_i, was_j = i.copy.astype(np.float64), j.copy.astype(np.float64)
        offer = i.offer(int(rng.integers(2**63)))
        reply, _ = j.answer(offer, int(rng.integers(2**63)))
        i.mix(reply)
        # Each end's point is within half a cell of it; a wrong colour would be q cells off.
        offered, replied = (
            packing.parse_payload(form, OFFER, offer),
            packing.parse_payload(form, REPLY, reply),
        )
        limit = (offered.cells + replied.cells).astype(np.float64) / 4 + 1e-6 * scale
        for block, left_out in enumerate(replied.forms == LEFT_OUT):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            wrong_i = i.copy[part] - (was_i if left_out else (was_i + was_j) / 2)[part]
            wrong_j = j.copy[part] - (was_j if left_out else (was_i + was_j) / 2)[part]
            for wrong in wrong_i, wrong_j:
                if rotation:
                    assert np.linalg.norm(wrong) < limit[block] * wrong.size**0.5
                else:
                    assert np.abs(wrong).max() < limit[block]
    assert max(np.abs(node.copy - mean).max() for node in nodes) < 1e-3 * spread


@EVERY_CODE
@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, data=st.data())
def test_a_flipped_bit_is_refused_or_left_out_and_never_mixed(bits, rotation, seed, data):
    rng = np.random.default_rng(seed)
    dim = 4500
    i, j = swarm(rng, 2, dim, bits, rotation)
    exchange(i, j, rng)
    offer = i.offer(1)
    before = j.state()
    copy, pending = j.copy.copy(), j.pending.copy()
    reply, _ = j.answer(offer, 2)
    want, after = j.copy.copy(), j.state()

    figures = Format(dim, bits or 0).figures_size
    in_figures = data.draw(st.booleans())
    at = data.draw(st.integers(0, figures - 1) if in_figures else st.integers(0, offer.size - 1))
    broken = offer.copy()
    broken[at] ^= np.uint8(1 << data.draw(st.integers(0, 7)))
    j.copy[:], j.pending[:] = copy, pending
    try:
        _, seen = j.answer(broken, 2)
    except ProtocolError:
        assert j.state() == before
    else:
        assert at >= figures, "a flip in the head or the figures was not refused"
        for block in range(2):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            left_out = np.array_equal(j.copy[part], copy[part])
            assert left_out or np.array_equal(j.copy[part], want[part])
        assert seen.left_out == 1 or j.state() == after

    at = at % figures if in_figures else at % reply.size
    broken = reply.copy()
    broken[at] ^= np.uint8(1 << data.draw(st.integers(0, 7)))
    copy, pending, before = i.copy.copy(), i.pending.copy(), i.state()
    i.mix(reply)
    want, after = i.copy.copy(), i.state()
    i.copy[:], i.pending[:] = copy, pending
    try:
        i.mix(broken)
    except ProtocolError:
        if at < figures:
            assert i.state() == before
        else:  # the damaged block is left alone, the other mixed as the partner has mixed it
            hit = (
                at - figures
                >= packing.parse_payload(Format(dim, bits or 0, rotation), REPLY, reply).starts[1]
            )
            want[BLOCK:] = copy[BLOCK:] if hit else want[BLOCK:]
            want[:BLOCK] = want[:BLOCK] if hit else copy[:BLOCK]
            np.testing.assert_array_equal(i.copy, want)
            np.testing.assert_allclose(i.pending - pending, want - copy, atol=1e-6)
    else:
        assert i.state() == after


@EVERY_CODE
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("known", [False, True])
def test_a_model_that_cannot_be_sent_is_refused_at_the_sender(bits, rotation, value, known):
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 6000, bits, rotation)
    if known:
        exchange(i, j, rng)
    i.copy[5001] = value
    before = i.state()
    with pytest.raises(ModelError, match=r"1 of 6000 .* the first is .* at 5001; wanted finite"):
        i.offer(1)
    assert i.state() == before


@EVERY_CODE
def test_a_partner_whose_own_block_cannot_be_sent_leaves_it_out(bits, rotation):
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 2 * BLOCK, bits, rotation)
    exchange(i, j, rng)
    j.copy[10] = np.nan
    copy_i, copy_j = i.copy.copy(), j.copy.copy()
    for seen in exchange(i, j, rng):
        assert (seen.blocks, seen.left_out) == (2, 1)
    np.testing.assert_array_equal(i.copy[:BLOCK], copy_i[:BLOCK])
    np.testing.assert_array_equal(j.copy[:BLOCK], copy_j[:BLOCK])
    assert (i.copy[BLOCK:] != copy_i[BLOCK:]).any()


@EVERY_CODE
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-45, -1e-39, 1e30])
@pytest.mark.parametrize("dim", [1, 4097])
def test_equal_models_stay_where_they_are(bits, rotation, value, dim):
    i, j = (Node(np.full(dim, value), make_code(dim, bits, rotation=rotation)) for _ in range(2))
    rng = np.random.default_rng(1)
    before = i.copy.copy()
    for _ in range(4):
        for seen in exchange(i, j, rng):
            assert seen.left_out == 0
    for node in i, j:
        limit = 64 * (2.0**-22 * abs(value) + 2.0**-99)
        np.testing.assert_allclose(node.copy, before, rtol=0, atol=limit if bits else 0)


@EVERY_CODE
def test_a_block_that_fails_is_left_out_by_both_doubled_then_sent_as_float32(bits, rotation):
    if bits is None:
        pytest.skip("float32 always decodes")
    rng = np.random.default_rng(5)
    i, j = swarm(rng, 2, 3 * BLOCK, bits, rotation)
    exchange(i, j, rng)
    jump = slice(BLOCK, 2 * BLOCK)
    j.copy[jump] += 1e4 * rng.standard_normal(BLOCK).astype(np.float32)
    forms: list[int] = []
    before_i, before_j = i.copy.copy(), j.copy.copy()
    while len(forms) < 3:
        before_i[:], before_j[:] = i.copy, j.copy
        offer = i.offer(int(rng.integers(2**63)))
        forms.append(
            packing.parse_payload(Format(3 * BLOCK, bits, rotation), OFFER, offer).forms[1]
        )
        reply, seen_j = j.answer(offer, 1)
        seen_i = i.mix(reply)
        assert seen_i.left_out == seen_j.left_out == (forms[-1] != RAW)
        if forms[-1] != RAW:
            np.testing.assert_array_equal(i.copy[jump], before_i[jump])
            np.testing.assert_array_equal(j.copy[jump], before_j[jump])
        others = np.r_[0:BLOCK, 2 * BLOCK : 3 * BLOCK]
        assert (i.copy[others] != before_i[others]).any()
    assert forms == [0, 0, RAW]
    apart = np.abs(before_i[jump] - before_j[jump]).mean()
    assert np.abs(i.copy[jump] - j.copy[jump]).mean() < 0.7 * apart


def test_a_corrupted_float32_block_is_left_out_of_an_offer_and_refused_in_a_reply():
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 3 * BLOCK, None, False)
    offer = i.offer(1)
    offer[-1] ^= 0x40
    copy = j.copy.copy()
    reply, seen = j.answer(offer, 2)
    assert seen.left_out == 1
    np.testing.assert_array_equal(j.copy[2 * BLOCK :], copy[2 * BLOCK :])
    forms = packing.parse_payload(Format(3 * BLOCK, 0), REPLY, reply).forms
    np.testing.assert_array_equal(forms, [RAW, RAW, LEFT_OUT])
    reply[500] ^= 1
    before = i.copy.copy()
    with pytest.raises(ProtocolError, match="1 of 3 blocks of this reply"):
        i.mix(reply)
    sound = slice(BLOCK, 2 * BLOCK)
    np.testing.assert_array_equal(i.copy[:BLOCK], before[:BLOCK])
    np.testing.assert_array_equal(i.copy[2 * BLOCK :], before[2 * BLOCK :])
    np.testing.assert_array_equal(i.pending[sound], -j.pending[sound])
    assert i.pending[sound].any() and not i.pending[:BLOCK].any()


@EVERY_CODE
def test_nothing_is_mixed_for_a_model_that_changed_after_it_was_offered(bits, rotation):
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 3 * BLOCK, bits, rotation)
    exchange(i, j, rng)
    reply, _ = j.answer(i.offer(1), 2)
    i.pending[:] = 0
    i.offered[BLOCK + 7] += np.float32(0.5)
    before = i.copy.copy()
    with pytest.raises(ProtocolError, match="1 of 3 blocks of the model that was offered changed"):
        i.mix(reply)
    np.testing.assert_array_equal(i.copy[BLOCK : 2 * BLOCK], before[BLOCK : 2 * BLOCK])
    assert not i.pending[BLOCK : 2 * BLOCK].any() and i.pending[:BLOCK].any()


def test_a_reply_is_refused_by_whoever_offered_nothing():
    rng = np.random.default_rng(0)
    i, j, other = swarm(rng, 3, 5000, 8, False)
    reply, _ = j.answer(i.offer(1), 2)
    before = other.state()
    with pytest.raises(ProtocolError, match="nothing was offered"):
        other.mix(reply)
    assert other.state() == before


def test_a_reply_to_another_offer_is_refused():
    rng = np.random.default_rng(0)
    i, j = swarm(rng, 2, 5000, 8, False)
    exchange(i, j, rng)
    stale, _ = j.answer(i.offer(1), 2)
    i.copy += np.float32(1)
    i.offer(3)
    before = i.state()
    with pytest.raises(ProtocolError, match="do not decode next to what was offered"):
        i.mix(stale)
    assert i.state() == before


def test_the_same_seeds_give_the_same_bytes():
    payloads = []
    for _ in range(2):
        i, j = swarm(np.random.default_rng(0), 2, 5000, 8, False)
        exchange(i, j, np.random.default_rng(1))
        payloads.append((i.offer(1).tobytes(), j.offer(2).tobytes()))
    assert payloads[0] == payloads[1]
    assert payloads[0][0] != payloads[0][1]


@pytest.mark.parametrize(("dim", "bits"), [(0, 8), (-1, None), (10, 1), (10, 2), (10, 9), (10, 32)])
def test_a_code_that_does_not_exist_is_refused(dim, bits):
    with pytest.raises(ConfigError, match="got"):
        make_code(dim, bits)


@EVERY_CODE
def test_a_vector_of_the_wrong_kind_is_refused(bits, rotation):
    code = make_code(10, bits, rotation=rotation)
    right = np.zeros(10, np.float32)
    wrongs: list[Any] = [np.zeros(11, np.float32), np.zeros(10), np.zeros(20, np.float32)[::2]]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"wanted a contiguous float32\[10\]"):
            code.offer(wrong, 1, allocate)
        room = Room()
        code.offer(right, 1, room)
        payload = room.payload
        with pytest.raises(TypeError, match="wanted"):
            code.answer(payload, right, wrong, 1, allocate)
        with pytest.raises(TypeError, match="wanted"):
            code.mix(payload, wrong, right, right)
