"""The colours of a block in bytes, compiled.

Widths under 8 go through 64-bit words that hold eight colours each: three steps move them together,
or apart, two by two, so every width costs the same. Four bits, the most used, take one step.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from swarmsgd.codec.kernels.intrinsics import borrowed, lent, load_word, move, store_word


@nb.njit
def _masks(bits):
    one = np.uint64((1 << bits) - 1) * np.uint64(0x0001000100010001)
    two = np.uint64((1 << 2 * bits) - 1) * np.uint64(0x0000000100000001)
    return one, two, np.uint64((1 << 4 * bits) - 1)


@nb.njit(inline="never")
def _pack(spread, count, bits, packed):
    """Eight bytes a word with one colour each, higher bits ignored -> `bits` bytes a word."""
    one, two, four = _masks(bits)
    b1, b2, b4 = np.uint64(bits), np.uint64(2 * bits), np.uint64(4 * bits)
    g1, g2, g4 = np.uint64(8) - b1, np.uint64(16) - b2, np.uint64(32) - b4
    for t in range(count):
        word = spread[t]
        word = (word & one) | ((word >> g1) & (one << b1))
        word = (word & two) | ((word >> g2) & (two << b2))
        spread[t] = (word & four) | ((word >> g4) & (four << b4))
    for t in range(count):
        store_word(packed, t * bits, spread[t])


@nb.njit(inline="never")
def _unpack(packed, bits, spread, count):
    """`bits` bytes a word -> eight bytes a word with one colour each."""
    one, two, four = _masks(bits)
    b1, b2, b4 = np.uint64(bits), np.uint64(2 * bits), np.uint64(4 * bits)
    g1, g2, g4 = np.uint64(8) - b1, np.uint64(16) - b2, np.uint64(32) - b4
    for t in range(count):
        spread[t] = load_word(packed, t * bits)
    for t in range(count):
        word = spread[t]
        word = (word & four) | ((word & (four << b4)) << g4)
        word = (word & two) | ((word & (two << b2)) << g2)
        spread[t] = (word & one) | ((word & (one << b1)) << g1)


@nb.njit(inline="never")
def _pack_halves(pairs, packed):
    """The case of 4 bits: two bytes with one colour each -> one byte."""
    for t in range(packed.size):
        pair = pairs[t]
        packed[t] = (pair & np.uint16(0xF)) | ((pair >> np.uint16(4)) & np.uint16(0xF0))


@nb.njit(inline="never")
def _unpack_halves(packed, pairs):
    for t in range(packed.size):
        byte = np.uint16(packed[t])
        pairs[t] = (byte | (byte << np.uint16(4))) & np.uint16(0x0F0F)


@nb.njit(inline="never")
def write_colours(colours, size, bits, packed, body, at):
    """Write the colours of `size` coordinates to body[at:]; `packed` is room for them."""
    length = (size * bits + 7) // 8
    if bits < 8:
        for t in range(size, -(-size // 8) * 8):
            colours[t] = 0  # they share a byte, or a word, with the last ones
    if bits == 4:
        _pack_halves(colours.view(np.uint16), borrowed(body, at, at + length))
    elif bits < 8:
        _pack(colours.view(np.uint64), (size + 7) // 8, bits, packed)
        move(body, at, packed, 0, length)
    else:
        move(body, at, colours, 0, length)


@nb.njit(inline="never")
def read_colours(body, at, size, bits, packed, colours):
    """Read them back."""
    length = (size * bits + 7) // 8
    if bits == 4:
        _unpack_halves(lent(body, at, at + length), colours.view(np.uint16))
    elif bits < 8:
        move(packed, 0, body, at, length)
        _unpack(packed, bits, colours.view(np.uint64), (size + 7) // 8)
    else:
        move(colours, 0, body, at, length)
