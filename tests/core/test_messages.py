"""Messages: what is packed is parsed; what is damaged is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.core import messages
from swarmsgd.core.messages import Draft, ExchangeId, Kind
from swarmsgd.errors import ProtocolError

EXCHANGE = ExchangeId(3, 1, 77)


def build(payloads: list[bytes], kind: Kind = Kind.OFFER):
    draft = Draft(len(payloads), lambda n: np.full(n, 0xAA, np.uint8))
    for index, payload in enumerate(payloads):
        draft.allocator(index, 8)(len(payload))[:] = np.frombuffer(payload, np.uint8)
    return draft.finish(kind, run=2**63 + 5, sender=3, incarnation=1, exchange=EXCHANGE)


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_parse_gives_back_what_was_built(payloads: list[bytes]):
    message = messages.parse_message(build(payloads))
    assert message.kind is Kind.OFFER
    assert (message.run, message.sender, message.incarnation) == (2**63 + 5, 3, 1)
    assert message.exchange == EXCHANGE
    assert [bytes(s.payload) for s in message.sections] == payloads
    assert [(s.vector, s.bits) for s in message.sections] == [(i, 8) for i in range(len(payloads))]


def test_one_section_is_written_in_place():
    taken: list[np.ndarray] = []

    def take(nbytes: int) -> np.ndarray:
        taken.append(np.empty(nbytes, np.uint8))
        return taken[-1]

    draft = Draft(1, take)
    view = draft.allocator(0, 8)(1000)
    whole = draft.finish(Kind.OFFER, run=1, sender=0, incarnation=0, exchange=EXCHANGE)
    assert len(taken) == 1 and np.shares_memory(view, whole)


def test_payloads_are_aligned_for_float32():
    message = messages.parse_message(build([b"x" * 7, b"y" * 9]))
    start = message.sections[0].payload.ctypes.data
    assert (message.sections[1].payload.ctypes.data - start) % 64 == 0


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_of_the_header_is_refused_or_changes_nothing(data: st.DataObject):
    clean = build([b"payload"])
    bit = data.draw(st.integers(0, 8 * 128 - 1))
    torn = clean.copy()
    torn[bit // 8] ^= 1 << (bit % 8)
    try:
        message = messages.parse_message(torn)
    except ProtocolError:
        return
    assert bit // 8 >= messages._HEADER.size + messages._SECTION.size  # the padding of the table
    assert message.exchange == EXCHANGE and bytes(message.sections[0].payload) == b"payload"


@given(st.integers(0, 200))
def test_a_cut_message_is_refused(length: int):
    clean = build([b"payload" * 10])
    if length < len(clean):
        with pytest.raises(ProtocolError):
            messages.parse_message(clean[:length])


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes):
    with pytest.raises(ProtocolError):
        messages.parse_message(np.frombuffer(garbage, np.uint8))


def test_another_version_is_refused_by_name():
    message = build([b""])
    message[4] = 9
    told = f"version 9, this node speaks {messages.VERSION}: install the same"
    with pytest.raises(ProtocolError, match=told):
        messages.parse_message(message)


def test_control_messages_carry_their_text():
    buffer = messages.control(Kind.REFUSE, run=1, sender=2, incarnation=0, text="round 4 is over")
    message = messages.parse_message(buffer)
    assert message.kind is Kind.REFUSE and messages.text_of(message) == "round 4 is over"
    silent = messages.parse_message(messages.control(Kind.BYE, run=1, sender=2, incarnation=0))
    assert messages.text_of(silent) == ""


def test_a_draft_with_a_missing_section_is_not_sent():
    draft = Draft(2, lambda n: np.zeros(n, np.uint8))
    draft.allocator(0, 8)(10)
    with pytest.raises(ProtocolError, match="for 2 sections got 1"):
        draft.finish(Kind.OFFER, run=1, sender=0, incarnation=0, exchange=EXCHANGE)


def test_the_fingerprint_depends_on_values_not_on_order():
    a = messages.fingerprint({"mode": "blocking", "shape": [2, 3]})
    assert a == messages.fingerprint({"shape": [2, 3], "mode": "blocking"})
    assert a != messages.fingerprint({"mode": "blocking", "shape": [3, 2]})


def test_a_difference_is_named():
    mine = {"mode": "blocking", "bits": None}
    text = messages.explain_difference(mine, {"mode": "matching", "bits": None})
    assert text == "mode: blocking here, matching there"
    assert messages.explain_difference(mine, dict(mine)) == ""
    assert "(absent) here" in messages.explain_difference(mine, {**mine, "extra": 1})


def test_offsets_differ_between_the_legs_and_exchanges():
    seeds = {
        messages.offset_seed(ExchangeId(i, 0, c), kind)
        for i in range(4)
        for c in range(50)
        for kind in (Kind.OFFER, Kind.REPLY)
    }
    assert len(seeds) == 400
