"""Compiled passes over whole vectors and payloads. Callers check what they hand in.

`starts`, `forms`, `cells` and `checks` are those of `packing.Payload`. The colours of a block are
bytes, or for 16 bits the same bytes seen as pairs: two compiled variants of each loop. A rotated
code works on rotated blocks throughout, and rotates changes back.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types

from swarmsgd.codec.blocks import (
    FINITE,
    LARGEST,
    add_change,
    add_to,
    cell_for,
    check_of,
    decode,
    decode_change,
    distance_of,
    encode,
    encode_and_add,
    floor_cell,
    half_change,
    magnitude_bits,
    offset_of,
    points_of,
)
from swarmsgd.codec.colours import read_colours, write_colours
from swarmsgd.codec.compiled import (
    BYTES,
    BYTES_IN,
    PLACES_IN,
    VECTOR,
    VECTOR_IN,
    WORDS,
    WORDS_IN,
    kernel,
    prepare,
)
from swarmsgd.codec.hadamard import rotate, unrotate
from swarmsgd.codec.intrinsics import borrowed, from_bits, move, size_bits
from swarmsgd.codec.publishing import apply_and_publish, apply_pending
from swarmsgd.core import lattice
from swarmsgd.core.lattice import BLOCK

__all__ = [
    "CHANGED",
    "CODED",
    "LEFT_OUT",
    "RAW",
    "SCRATCH",
    "WRONG",
    "answer",
    "apply_and_publish",
    "apply_pending",
    "mix",
    "offer",
    "prepare",
]

CODED, RAW, LEFT_OUT = 0, 1, 2
"""The forms that a block has in a payload."""
LEFT, WRONG, CHANGED = -1.0, -2.0, -3.0
"""Instead of a distance: left out, not decoded right, or the model is not what was offered."""

_SMALLEST_CELL = np.float32(lattice.SMALLEST_CELL)
_LARGEST_CELL = np.float32(lattice.LARGEST_CELL)
_INTEGER = types.int64
_PAYLOAD_IN = (_INTEGER, BYTES_IN, PLACES_IN, BYTES_IN, VECTOR_IN, WORDS_IN)
_PAYLOAD = (_INTEGER, BYTES, PLACES_IN, BYTES, VECTOR, WORDS)


SCRATCH = 5 * BLOCK + 2
"""Floats of scratch that a payload kernel needs: four blocks, the colours of one, those packed."""


@nb.njit
def _colours(scratch):
    """Room for the colours of one block seen as bytes, pairs and words, and for the same packed."""
    room = scratch.view(np.uint8)
    at = 4 * BLOCK * 4
    colours = borrowed(room, at, at + 2 * BLOCK)
    packed = borrowed(room, at + 2 * BLOCK, room.size)
    return colours, colours.view(np.uint16), colours.view(np.uint64), packed


@nb.njit
def _room(scratch, number):
    return borrowed(scratch, number * BLOCK, (number + 1) * BLOCK)


@kernel(types.boolean(_INTEGER, types.boolean, VECTOR, VECTOR, *_PAYLOAD))
def offer(bits, rotated, scratch, copy, stream, body, starts, forms, cells, checks):
    """Encode copy, in cells no finer than float32 allows.

    False if a value cannot be exchanged; what is then in body means nothing.
    """
    body = borrowed(body, 0, body.size)
    colours, wide, words, packed = _colours(scratch)
    turned, spare = _room(scratch, 0), _room(scratch, 1)
    for block in range(forms.size):
        start = block * BLOCK
        mine = borrowed(copy, start, min(start + BLOCK, copy.size))
        own = mine
        if rotated:
            own = borrowed(turned, 0, mine.size)
            move(own, 0, mine, 0, 4 * mine.size)
            rotate(own, block, spare)
        if (rotated or forms[block] == RAW) and magnitude_bits(mine) > LARGEST:
            return False
        if forms[block] == RAW:
            if rotated and magnitude_bits(own) > LARGEST:
                return False
            cells[block] = np.float32(0)
            checks[block] = check_of(mine.view(np.int32))
            move(body, starts[block], mine, 0, 4 * mine.size)
            continue
        offset = offset_of(stream, block)
        cell = max(cells[block], _SMALLEST_CELL)
        check = np.uint32(0)
        while True:
            if bits == 16:
                check, magnitude = encode(own, cell, offset, wide)
            else:
                check, magnitude = encode(own, cell, offset, colours)
            if magnitude > LARGEST:
                return False
            finest = floor_cell(from_bits(magnitude))
            if cell >= finest:
                break
            cell = finest  # the cell was too fine for these values: encode them again
        write_colours(colours, words, mine.size, bits, packed, body, starts[block])
        cells[block] = cell
        checks[block] = check
    return True


@kernel(
    types.float64(
        _INTEGER,
        types.boolean,
        VECTOR,
        types.float32,
        *_PAYLOAD_IN,
        VECTOR,
        VECTOR,
        *_PAYLOAD,
        VECTOR,
    )
)
def answer(
    bits,
    rotated,
    scratch,
    cells_in_reach,
    offer_stream,
    offer_body,
    offer_starts,
    offer_forms,
    offer_cells,
    offer_checks,
    copy,
    pending,
    stream,
    body,
    starts,
    forms,
    cells,
    checks,
    seen,
):
    """Decode an offer next to copy, encode the reply, add (Q_i - Q_j)/2 to copy and pending.

    A block that does not decode, or whose values or changes here are not finite, becomes LEFT_OUT
    in forms. seen[block] = max|Q_i - c_j|, -1 for those left out. Returns ||Q_i - Q_j||^2.
    """
    body = borrowed(body, 0, body.size)
    offer_body = borrowed(offer_body, 0, offer_body.size)
    colours, wide, words, packed = _colours(scratch)
    points, turned = _room(scratch, 0), _room(scratch, 1)
    change, spare = _room(scratch, 2), _room(scratch, 3)
    total = 0.0
    for block in range(forms.size):
        start = block * BLOCK
        mine = borrowed(copy, start, min(start + BLOCK, copy.size))
        coming = borrowed(pending, start, start + mine.size)
        theirs = borrowed(points, 0, mine.size)
        own = mine
        if rotated:
            own = borrowed(turned, 0, mine.size)
            move(own, 0, mine, 0, 4 * mine.size)
            rotate(own, block, spare)
        first = offer_starts[block]
        check = np.uint32(0)
        whole = True
        if offer_forms[block] == RAW:
            move(theirs, 0, offer_body, first, 4 * mine.size)
            check = check_of(theirs.view(np.int32))
            if rotated:
                rotate(theirs, block, spare)
            whole = magnitude_bits(theirs) <= LARGEST
            distance = distance_of(theirs, own)
            magnitude = from_bits(magnitude_bits(own))
        else:
            cell = offer_cells[block]
            offset = offset_of(offer_stream, block)
            read_colours(offer_body, first, mine.size, bits, packed, colours, words)
            if bits == 16:
                check, distance, magnitude, due = decode(
                    wide, own, cell, offset, bits, theirs, coming
                )
            else:
                check, distance, magnitude, due = decode(
                    colours, own, cell, offset, bits, theirs, coming
                )
            whole = due <= FINITE
        cell = cell_for(distance, magnitude + distance, cells_in_reach)
        whole &= check == offer_checks[block] and size_bits(magnitude) <= LARGEST
        if not (whole and cell <= _LARGEST_CELL):
            forms[block] = LEFT_OUT
            cells[block] = np.float32(0)
            checks[block] = 0
            body[starts[block] : starts[block + 1]] = 0
            seen[block] = np.float32(-1)
            continue
        seen[block] = distance
        if forms[block] == RAW:
            cells[block] = np.float32(0)
            checks[block] = check_of(mine.view(np.int32))
            move(body, starts[block], mine, 0, 4 * mine.size)
            total += add_to(mine, theirs, coming)
            continue
        landing = coming
        if rotated:
            landing = borrowed(change, 0, mine.size)
            landing[:] = np.float32(0)
        offset = offset_of(stream, block)
        part = 0.0
        if bits == 16:
            check, part = encode_and_add(own, theirs, landing, cell, offset, wide)
        else:
            check, part = encode_and_add(own, theirs, landing, cell, offset, colours)
        if rotated:
            unrotate(landing, block, spare)
            add_change(landing, mine, coming)
        write_colours(colours, words, mine.size, bits, packed, body, starts[block])
        cells[block] = cell
        checks[block] = check
        total += part
    return total


@kernel(
    types.float64(
        _INTEGER,
        types.boolean,
        VECTOR,
        _INTEGER,
        BYTES,
        VECTOR,
        WORDS,
        *_PAYLOAD_IN,
        VECTOR,
        VECTOR,
        VECTOR,
        VECTOR,
    )
)
def mix(
    bits,
    rotated,
    scratch,
    offer_stream,
    offer_forms,
    offer_cells,
    offer_checks,
    stream,
    body,
    starts,
    forms,
    cells,
    checks,
    offered,
    copy,
    pending,
    seen,
):
    """Add (Q_j - Q_i)/2 to copy and pending in all blocks that pass their checks.

    Q_i is made again from offered, which may be copy. seen[block] = max|Q_j - Q_i|, or why there is
    none. Returns ||Q_i - Q_j||^2.
    """
    body = borrowed(body, 0, body.size)
    colours, wide, words, packed = _colours(scratch)
    points, turned = _room(scratch, 0), _room(scratch, 1)
    spare = _room(scratch, 2)
    total = 0.0
    for block in range(forms.size):
        if forms[block] == LEFT_OUT:
            seen[block] = np.float32(LEFT)
            continue
        start = block * BLOCK
        own = borrowed(offered, start, min(start + BLOCK, offered.size))
        ours = borrowed(points, 0, own.size)
        if offer_forms[block] == RAW:
            move(ours, 0, own, 0, 4 * own.size)
            again = check_of(ours.view(np.int32))
            if rotated:
                rotate(ours, block, spare)
        else:
            if rotated:
                source = borrowed(turned, 0, own.size)
                move(source, 0, own, 0, 4 * own.size)
                rotate(source, block, spare)
                own = source
            again = points_of(own, offer_cells[block], offset_of(offer_stream, block), ours)
        if again != offer_checks[block]:
            seen[block] = np.float32(CHANGED)
            continue
        if forms[block] == RAW:
            theirs = borrowed(turned, 0, ours.size)
            move(theirs, 0, body, starts[block], 4 * ours.size)
            check = check_of(theirs.view(np.int32))
            whole = magnitude_bits(theirs) <= LARGEST
            distance, part = half_change(theirs, ours)
        else:
            whole = True
            cell = cells[block]
            offset = offset_of(stream, block)
            read_colours(body, starts[block], ours.size, bits, packed, colours, words)
            if bits == 16:
                check, distance, part = decode_change(wide, ours, cell, offset, bits)
            else:
                check, distance, part = decode_change(colours, ours, cell, offset, bits)
            if rotated:
                unrotate(ours, block, spare)
        if not (whole and check == checks[block]):
            seen[block] = np.float32(WRONG)
            continue
        mine = borrowed(copy, start, start + ours.size)
        add_change(ours, mine, borrowed(pending, start, start + ours.size))
        seen[block] = distance
        total += part
    return total
