"""The lattice code in plain tensor operations: the definition, which the compiled kernels equal.

A vector [..., D] is cut into blocks of `BLOCK` coordinates, of which the last may be short. What
belongs to a block (cell, offset, check) has shape [..., P] with P = ceil(D / BLOCK). For cell s and
offset u of a block, all in float32 with every operation rounded on its own::

    k      = floor(x * (1/s) + u)              integer lattice coordinate
    colour = k mod q,  q = 2**bits             what is sent
    value  = (float(k) + (1/2 - u)) * s        the lattice point Q that k stands for
    decode = the k of that colour in m - q/2 ... m + q/2 - 1,  m = floor(y * (1/s) + (u + 1/2))

The decoded value is the one nearest to y among those of its colour. It is the one that was sent
if |x - y| < s (q - 1) / 2, less what float32 rounds away, which `cell_for` allows for.
`check` tells whether it was.

At few bits x and y may be rotated first (`rotate`), and the difference of two points rotated back.

Source: Davies et al., arXiv 2002.09268. One offset for a block, instead of a random shift for
each coordinate, is ours.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

BLOCK = 4096
"""Coordinates that share one cell, one offset and one check."""
CODED_BITS = (3, 4, 5, 6, 7, 8, 16)
"""Bits a coordinate that the code is made for. With 2, cells that reach the largest of 4,096 normal
differences are so wide that an exchange adds more noise than it averages away."""
SMALLEST_CELL = 2.0**-100
"""Below it 1/s could overflow; models this close differ by nothing."""
LARGEST_CELL = 2.0**126
"""Beyond it 1/s would lose precision; models this far apart are not mixed."""
FINEST = 2.0**-22
"""The finest cell, as a part of the block's largest |x|: k stays within 2**22, float32's reach."""
EXCHANGEABLE = 2.0**125
"""The largest |value| that is exchanged, so that no lattice point or difference overflows."""
PUBLISHED = EXCHANGEABLE / BLOCK
"""The largest that a node publishes: a rotated block has sums of as many values."""

_WORD = 0xFFFFFFFF
_CLAMP = 2.0**23

Word = TypeVar("Word", int, Tensor)


def scramble(word: Word) -> Word:
    """Murmur3's finaliser: a bijection of 32-bit words that makes neighbours look unrelated."""
    word = word ^ (word >> 16)
    word = (word * 0x85EBCA6B) & 0xFFFFFFFF
    word = word ^ (word >> 13)
    word = (word * 0xC2B2AE35) & 0xFFFFFFFF
    return word ^ (word >> 16)


def offset_stream(seed: int) -> int:
    """The 32-bit word that stands for a 64-bit seed."""
    return scramble((seed & _WORD) ^ scramble((seed >> 32) & _WORD))


def offsets(seed: int, blocks: int) -> Tensor:
    """[P] float32 in [0, 1), multiples of 2**-23: u + 1/2 and 1/2 - u are exact."""
    words = scramble((offset_stream(seed) + torch.arange(blocks) * 0x9E3779B9) & _WORD)
    return (words >> 9).float() * 2.0**-23


def blocks_of(dim: int) -> int:
    """Blocks of a vector of `dim` coordinates."""
    return -(-dim // BLOCK)


def encode(x: Tensor, cell: Tensor, offset: Tensor) -> Tensor:
    """[..., D] -> [..., D] int32: the integer lattice coordinates k of x."""
    inverse = _spread(1.0 / cell, x)
    return torch.floor(x * inverse + _spread(offset, x)).int()


def colours(k: Tensor, bits: int) -> Tensor:
    """What is sent of k: k mod 2**bits."""
    return k & ((1 << bits) - 1)


def points(k: Tensor, cell: Tensor, offset: Tensor) -> Tensor:
    """The lattice points of k: unbiased over the offset, with error variance cell**2 / 12."""
    return (k.float() + _spread(0.5 - offset, k)) * _spread(cell, k)


def decode(colour: Tensor, y: Tensor, cell: Tensor, offset: Tensor, bits: int) -> Tensor:
    """The integers of these colours with points nearest to y: `check` says if they are right."""
    place = y * _spread(1.0 / cell, y) + _spread(offset + 0.5, y)
    lowest = torch.floor(place.clamp(-_CLAMP, _CLAMP)).int() - (1 << (bits - 1))
    return lowest + ((colour - lowest) & ((1 << bits) - 1))


def check(integers: Tensor) -> Tensor:
    """[..., D] int32 -> [..., P] int64: 32 bits for each block, over its integers and their places.

    The sum over a block, mod 2**32, of a hash of each integer with its place in the block. A change
    of a single integer always changes it, since for each place the hash is a bijection. The
    shift between its two products, and keys that enter squared, keep regular errors in neighbours
    (1, -2, 1 times 2**bits) from cancelling in the sum more often than by chance.
    """
    place = torch.arange(integers.shape[-1]) % BLOCK
    return to_blocks(hashes(integers.long(), place)).sum(-1) & _WORD


def hashes(integer: Tensor, place: Tensor) -> Tensor:
    """A 32-bit word for each (integer, place)."""
    key = (0x9E3779B1 + place * 0x0BD794D6) & _WORD  # odd
    z = (integer * key) & _WORD
    return ((z ^ (z >> 16)) * key) & _WORD


def rotate(x: Tensor) -> Tensor:
    """[..., D] -> [..., D]: random signs, then an orthonormal Hadamard transform of each block.

    It spreads a few large differences over the whole block. The signs are the same in every run and
    every block. A block that is no power of two long is transformed in parts that are, the longest
    first.
    """
    turned = x * signs(torch.arange(x.shape[-1]))
    return torch.cat([_hadamard(turned[..., part]) for part in parts(x.shape[-1])], -1)


def unrotate(x: Tensor) -> Tensor:
    """The inverse of `rotate`, but for rounding; exactly opposite for opposite x."""
    turned = torch.cat([_hadamard(x[..., part]) for part in parts(x.shape[-1])], -1)
    return turned * signs(torch.arange(x.shape[-1]))


def parts(dim: int) -> list[slice]:
    """The parts that are rotated as one: whole blocks, then what is left by powers of two."""
    cuts = [start + BLOCK for start in range(0, dim - BLOCK + 1, BLOCK)]
    at = cuts[-1] if cuts else 0
    while at < dim:
        at += 1 << ((dim - at).bit_length() - 1)
        cuts.append(at)
    return [slice(start, stop) for start, stop in zip([0, *cuts], cuts, strict=False)]


def _hadamard(x: Tensor) -> Tensor:
    size = half = x.shape[-1]
    while half > 1:  # the longest strides first, which is part of the definition: it rounds so
        half //= 2
        pairs = x.reshape(*x.shape[:-1], -1, 2, half)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([first + second, first - second], -2).flatten(-3)
    return x * float(torch.tensor(size**-0.5, dtype=torch.float32))


def signs(at: Tensor) -> Tensor:
    """1 or -1 for each place in a vector: what `rotate` multiplies with."""
    return 1.0 - 2.0 * (scramble(at % BLOCK) >> 31).float()


def floor_cell(magnitude: Tensor) -> Tensor:
    """The finest cell for blocks whose largest |x| is `magnitude`."""
    return (magnitude * FINEST).clamp_min(SMALLEST_CELL)


def cell_for(distance: Tensor, magnitude: Tensor, bits: int) -> Tensor:
    """The finest cell at which x decodes next to y, however they round.

    `distance` is max|x - y| and `magnitude` at least max|x| and max|y| over each block.
    """
    reach = (distance + magnitude * 2.0**-20) * cells_in_reach(bits)
    return torch.maximum(reach, floor_cell(magnitude))


@cache
def cells_in_reach(bits: int) -> float:
    """Cell over distance: 2 / (q - 1), and a little for rounding. A float32 value."""
    return float(torch.tensor((1 + 2.0**-18) * 2 / ((1 << bits) - 1), dtype=torch.float32))


def largest(values: Tensor) -> Tensor:
    """[..., D] -> [..., P]: max|values| of each block."""
    return to_blocks(values).abs().amax(-1)


def to_blocks(values: Tensor) -> Tensor:
    """[..., D] -> [..., P, BLOCK], the last block filled up with zeros."""
    dim = values.shape[-1]
    padded = torch.nn.functional.pad(values, (0, blocks_of(dim) * BLOCK - dim))
    return padded.reshape(*values.shape[:-1], blocks_of(dim), BLOCK)


def _spread(per_block: Tensor, like: Tensor) -> Tensor:
    """[..., P] -> [..., D]"""
    return per_block.repeat_interleave(BLOCK, dim=-1)[..., : like.shape[-1]]
