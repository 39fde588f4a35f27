"""Compiled passes over whole vectors and payloads. Callers check what they hand in.

`starts`, `forms`, `cells` and `checks` are those of `packing.Payload`. The colours of a block are
bytes, or for 16 bits the same bytes seen as pairs: two compiled variants of each loop. A rotated
code works on rotated blocks throughout, and rotates changes back.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba.core import types

from swarmsgd.codec.kernels.blocks import (
    FARTHEST,
    FARTHEST_TURNED,
    FINITE,
    LARGEST,
    LARGEST_TURNED,
    add_change,
    add_to,
    at_most,
    cell_for,
    check_of,
    decode,
    decode_change,
    distance_of,
    encode,
    encode_and_add,
    encode_change,
    floor_cell,
    half_change,
    magnitude_bits,
    offset_of,
    points_of,
    stream_of,
)
from swarmsgd.codec.kernels.colours import read_colours, write_colours
from swarmsgd.codec.kernels.compiled import (
    BYTES,
    BYTES_IN,
    PLACES_IN,
    VECTOR,
    VECTOR_IN,
    WORDS,
    WORDS_IN,
    kernel,
)
from swarmsgd.codec.kernels.hadamard import rotate, unrotate
from swarmsgd.codec.kernels.intrinsics import borrowed, fetch, from_bits, lent, move, size_bits
from swarmsgd.core import lattice
from swarmsgd.core.lattice import BLOCK

CODED, RAW, LEFT_OUT = 0, 1, 2
"""The forms that a block has in a payload."""
LEFT, WRONG, CHANGED = -1.0, -2.0, -3.0
"""Instead of a distance: left out, not decoded right, or the model is not what was offered."""

_TWICE = 0x00800000
"""What doubles a float32, added to its bits."""

_SMALLEST_CELL = np.float32(lattice.SMALLEST_CELL)
_LARGEST_CELL = np.float32(lattice.LARGEST_CELL)
_INTEGER = types.int64
_SEED = types.uint64
_PAYLOAD_IN = (_SEED, BYTES_IN, PLACES_IN, BYTES_IN, VECTOR_IN, WORDS_IN)
_PAYLOAD = (_SEED, BYTES, PLACES_IN, BYTES, VECTOR, WORDS)


SCRATCH = 4 * BLOCK + 2
"""Floats of scratch that a payload kernel needs: three blocks, the colours of one, those packed."""


@nb.njit
def _colours(scratch):
    """Room for the colours of one block seen as bytes and as pairs, and for the same packed."""
    room = scratch.view(np.uint8)
    at = 4 * 3 * BLOCK
    colours = borrowed(room, at, at + 2 * BLOCK)
    packed = borrowed(room, at + 2 * BLOCK, room.size)
    return colours, colours.view(np.uint16), packed


@nb.njit
def _room(scratch, number):
    return borrowed(scratch, number * BLOCK, (number + 1) * BLOCK)


@nb.njit
def _ask_for(body, start, stop):
    """The cache lines that are written soon: one more than fit if a line begins before `start`."""
    for line in range(start, stop + 63, 64):
        fetch(body, line)


@nb.njit
def _written(body, at, size, bits, colours):
    """Where an encoder puts the colours of a block: at 8 bits right into the body."""
    return borrowed(body, at, at + size) if bits == 8 else colours


@nb.njit
def _read(body, at, size, bits, packed, colours):
    """The colours of a block that came in."""
    if bits == 8:
        return lent(body, at, at + size)
    read_colours(body, at, size, bits, packed, colours)
    return lent(colours, 0, colours.size)


@kernel(types.boolean(_INTEGER, types.boolean, VECTOR, VECTOR, *_PAYLOAD))
def offer(bits, rotated, scratch, copy, seed, body, starts, forms, cells, checks):
    """Encode copy, in cells no finer than float32 allows.

    False if a value cannot be exchanged; what is then in body means nothing.
    """
    body = borrowed(body, 0, body.size)
    colours, wide, packed = _colours(scratch)
    turned = _room(scratch, 0)
    stream = stream_of(seed)
    largest = np.int32(LARGEST_TURNED if rotated else LARGEST)
    for block in range(forms.size):
        start = block * BLOCK
        mine = borrowed(copy, start, min(start + BLOCK, copy.size))
        own = mine
        if rotated:
            own = borrowed(turned, 0, mine.size)
            rotate(mine, own, borrowed(copy, start + BLOCK, start + BLOCK))
            _ask_for(body, starts[block], starts[block + 1])
        if forms[block] == RAW:
            # The values go as they are, not rotated; what is rotated is checked, since the
            # partner rotates them.
            if magnitude_bits(own) > largest:
                return False
            cells[block] = np.float32(0)
            checks[block] = check_of(mine.view(np.int32))
            move(body, starts[block], mine, 0, 4 * mine.size)
            continue
        offset = offset_of(stream, block)
        cell = max(cells[block], _SMALLEST_CELL)
        into = _written(body, starts[block], mine.size, bits, colours)
        check = np.uint32(0)
        while True:
            if bits == 16:
                check, squares = encode(own, cell, offset, wide)
            else:
                check, squares = encode(own, cell, offset, into)
            # The sum of squares comes almost free and bounds max|own|: nearly always that is
            # enough to know that the cell is wide enough, and no second pass looks for the maximum.
            bound = at_most(squares)
            if bound <= from_bits(largest) and cell >= floor_cell(bound):
                break
            magnitude = magnitude_bits(own)  # seldom: look again, and closely
            if magnitude > largest:
                return False
            finest = floor_cell(from_bits(magnitude))
            if cell >= finest:
                break
            cell = finest  # the cell was too fine for these values: encode them again
        if bits != 8:
            write_colours(colours, mine.size, bits, packed, body, starts[block])
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
    offer_seed,
    offer_body,
    offer_starts,
    offer_forms,
    offer_cells,
    offer_checks,
    copy,
    pending,
    seed,
    body,
    starts,
    forms,
    cells,
    checks,
    seen,
):
    """Decode an offer next to copy, encode the reply, add (Q_i - Q_j)/2 to copy and pending.

    A block that does not decode, or whose values or changes here are not finite, becomes LEFT_OUT
    in forms. seen[block] = max|Q_i - c_j|, or LEFT for those left out. Returns ||Q_i - Q_j||^2.
    """
    body = borrowed(body, 0, body.size)
    offer_body = lent(offer_body, 0, offer_body.size)
    colours, wide, packed = _colours(scratch)
    points, turned = _room(scratch, 0), _room(scratch, 1)
    offer_stream, stream = stream_of(offer_seed), stream_of(seed)
    farthest = FARTHEST_TURNED if rotated else FARTHEST
    total = 0.0
    for block in range(forms.size):
        start = block * BLOCK
        mine = borrowed(copy, start, min(start + BLOCK, copy.size))
        coming = borrowed(pending, start, start + mine.size)
        theirs = borrowed(points, 0, mine.size)
        own = mine
        if rotated:
            own = borrowed(turned, 0, mine.size)
            rotate(mine, own, coming)
        # 1. Their lattice point, with its check and its distance from ours.
        first = offer_starts[block]
        check = np.uint32(0)
        whole = True
        if offer_forms[block] == RAW:
            move(theirs, 0, offer_body, first, 4 * mine.size)
            check = check_of(theirs.view(np.int32))
            if rotated:
                rotate(theirs, theirs, coming)
            whole = magnitude_bits(theirs) <= LARGEST
            distance = distance_of(theirs, own)
            magnitude = from_bits(magnitude_bits(own))
        else:
            cell = offer_cells[block]
            offset = offset_of(offer_stream, block)
            read = _read(offer_body, first, mine.size, bits, packed, colours)
            if bits == 16:
                check, distance, magnitude, due = decode(
                    lent(wide, 0, mine.size), own, cell, offset, bits, theirs, coming
                )
            else:
                check, distance, magnitude, due = decode(
                    read, own, cell, offset, bits, theirs, coming
                )
            whole = due <= FINITE
        # 2. Whether to mix. The check says that what was decoded is what was sent. The rest keeps
        # out what a liar can make pass it: values or changes so large that a model would overflow.
        # A cell of this width is sure to decode next to their point, so the reply cannot fail.
        cell = cell_for(distance, magnitude + distance, cells_in_reach)
        whole &= check == offer_checks[block] and size_bits(magnitude) <= LARGEST
        whole &= size_bits(distance) <= farthest
        if not (whole and cell <= _LARGEST_CELL):
            # Both ends leave it out: the reply says so, and keeps its place as zeros.
            forms[block] = LEFT_OUT
            cells[block] = np.float32(0)
            checks[block] = 0
            body[starts[block] : starts[block + 1]] = 0
            seen[block] = np.float32(LEFT)
            continue
        # 3. Our own lattice point into the reply, and half of the difference into copy and pending,
        # in one pass: the values are in registers once.
        seen[block] = distance
        if forms[block] == RAW:
            cells[block] = np.float32(0)
            checks[block] = check_of(mine.view(np.int32))
            move(body, starts[block], mine, 0, 4 * mine.size)
            total += add_to(mine, theirs, coming)
            continue
        _ask_for(body, starts[block], starts[block + 1])
        into = _written(body, starts[block], mine.size, bits, colours)
        offset = offset_of(stream, block)
        part = 0.0
        if rotated:
            if bits == 16:
                check, part = encode_change(own, theirs, cell, offset, wide)
            else:
                check, part = encode_change(own, theirs, cell, offset, into)
            # The change is rotated back, not the points: one rotation instead of two, and both
            # ends' changes stay exact opposites, since rotating is odd.
            unrotate(theirs, borrowed(copy, start + BLOCK, start + BLOCK))
            add_change(theirs, mine, coming)
        elif bits == 16:
            check, part = encode_and_add(own, theirs, coming, cell, offset, wide)
        else:
            check, part = encode_and_add(own, theirs, coming, cell, offset, into)
        if bits != 8:
            write_colours(colours, mine.size, bits, packed, body, starts[block])
        cells[block] = cell
        checks[block] = check
        total += part
    return total


@kernel(
    types.float64(
        _INTEGER,
        types.boolean,
        VECTOR,
        _SEED,
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
    offer_seed,
    offer_forms,
    offer_cells,
    offer_checks,
    seed,
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
    body = lent(body, 0, body.size)
    colours, wide, packed = _colours(scratch)
    points, turned = _room(scratch, 0), _room(scratch, 1)
    offer_stream, stream = stream_of(offer_seed), stream_of(seed)
    farthest = FARTHEST_TURNED if rotated else FARTHEST
    total = 0.0
    for block in range(forms.size):
        if forms[block] == LEFT_OUT:
            seen[block] = np.float32(LEFT)
            continue
        start = block * BLOCK
        own = borrowed(offered, start, min(start + BLOCK, offered.size))
        coming = borrowed(pending, start, start + own.size)
        ours = borrowed(points, 0, own.size)
        # 1. Q_i again, from the model that was offered: it is not stored. The check that was sent
        # proves it the same; a value that changed since would shift the sum of models unseen.
        if offer_forms[block] == RAW:
            move(ours, 0, own, 0, 4 * own.size)
            again = check_of(ours.view(np.int32))
            if rotated:
                rotate(ours, ours, coming)
        else:
            if rotated:
                source = borrowed(turned, 0, own.size)
                rotate(own, source, coming)
                own = source
            again = points_of(own, offer_cells[block], offset_of(offer_stream, block), ours)
        if again != offer_checks[block]:
            seen[block] = np.float32(CHANGED)
            continue
        # 2. Q_j next to Q_i, which the partner knew: at the cell that it chose this decodes.
        whole = True
        if forms[block] == RAW:
            theirs = borrowed(turned, 0, ours.size)
            move(theirs, 0, body, starts[block], 4 * ours.size)
            check = check_of(theirs.view(np.int32))
            whole = magnitude_bits(theirs) <= LARGEST
            distance, part = half_change(theirs, ours)
        else:
            cell = cells[block]
            offset = offset_of(stream, block)
            read = _read(body, starts[block], ours.size, bits, packed, colours)
            if bits == 16:
                check, distance, part, _ = decode_change(
                    lent(wide, 0, ours.size), ours, cell, offset, bits, coming
                )
            else:
                check, distance, part, _ = decode_change(read, ours, cell, offset, bits, coming)
            if rotated:
                unrotate(ours, borrowed(offered, start + BLOCK, start + BLOCK))
        # 3. A partner leaves out blocks that are farther; its lattice point may be a cell from its
        # value, hence the factor of two.
        whole &= size_bits(distance) <= farthest + _TWICE
        if not (whole and check == checks[block]):
            seen[block] = np.float32(WRONG)
            continue
        add_change(ours, borrowed(copy, start, start + ours.size), coming)
        seen[block] = distance
        total += part
    return total
