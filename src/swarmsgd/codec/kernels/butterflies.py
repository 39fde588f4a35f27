"""Hadamard transforms of sixteen vectors of sixteen floats, in registers.

LLVM vectorises loops, but not this: a butterfly network whose last steps are between the lanes of
one vector. So these are written out, in vectors that it maps to what the processor has. No step is
fused or reordered in a way that rounds differently: a product with 1 or -1 is exact.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from swarmsgd.codec.kernels.intrinsics import intrinsic, unknown

LANES = 16
_FLOAT, _WORD = ir.FloatType(), ir.IntType(32)
_FLOATS, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any, of: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), of.as_pointer())


def _times_signs(builder: Any, row: Any, word: Any) -> Any:
    """Changes the sign of lane t if bit t of a 16-bit word is set."""
    minus = builder.and_(
        builder.sext(builder.bitcast(word, _BITS), _WORDS),
        ir.Constant(_WORDS, [0x80000000] * LANES),
    )
    return builder.bitcast(builder.xor(builder.bitcast(row, _WORDS), minus), _FLOATS)


def _everywhere(builder: Any, value: Any) -> Any:
    """A row with this value in every lane."""
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * LANES))


def _times_plus(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c in one instruction if there is one: for an exact product a b, rounded once anyway."""
    product = builder.fmul(a, b, flags=("contract",))
    return builder.fadd(product, c, flags=("contract",))


def _between(builder: Any, rows: list[Any]) -> None:
    """The transform over the numbers of the rows, the highest bit first.

    Some processors add in two of their units and multiply and add in two others. So that all four
    work, every other difference is made with a product by a -1 that LLVM does not recognise.
    """
    minus = _everywhere(builder, unknown(builder, -1.0))
    for bit in 8, 4, 2, 1:
        for low in range(LANES):
            if not low & bit:
                a, b = rows[low], rows[low | bit]
                rows[low] = builder.fadd(a, b)
                rows[low | bit] = (
                    _times_plus(builder, b, minus, a) if bit in (8, 2) else builder.fsub(a, b)
                )


def _within(builder: Any, row: Any) -> Any:
    """The transform over the lanes of a row, the highest bit first."""
    for bit in 8, 4, 2, 1:
        order = ir.Constant(_WORDS, [lane ^ bit for lane in range(LANES)])
        signs = ir.Constant(_FLOATS, [-1.0 if lane & bit else 1.0 for lane in range(LANES)])
        other = builder.shuffle_vector(row, row, order)
        row = _times_plus(builder, row, signs, other)
    return row


def _load(context: Any, builder: Any, kind: Any, array: Any, at: Any, stride: int) -> list[Any]:
    return [
        builder.load(
            _place(context, builder, kind, array, _plus(builder, at, r * stride), _FLOATS), align=4
        )
        for r in range(LANES)
    ]


def _plus(builder: Any, at: Any, more: int) -> Any:
    return builder.add(at, ir.Constant(at.type, more))


def _strided(flip: bool) -> Any:
    @intrinsic
    def strided(_typing, source, signs, target, at):
        """target[at + 256 r + t] for r, t < 16: the transform over r of source; `signs` first."""

        def build(context, builder, signature, arguments):
            source_kind, signs_kind, target_kind = signature.args[:3]
            source, signs, target, at = arguments
            rows = _load(context, builder, source_kind, source, at, 256)
            sixteenth = builder.lshr(at, ir.Constant(at.type, 4))
            for r in range(LANES if flip else 0):
                word = _plus(builder, sixteenth, r * 16)
                place = _place(context, builder, signs_kind, signs, word, ir.IntType(16))
                rows[r] = _times_signs(builder, rows[r], builder.load(place))
            _between(builder, rows)
            for r, row in enumerate(rows):
                place = _plus(builder, at, 256 * r)
                place = _place(context, builder, target_kind, target, place, _FLOATS)
                builder.store(row, place, align=4)
            return context.get_dummy_value()

        return types.void(source, signs, target, types.int64), build

    return strided


def _compact(flip: bool) -> Any:
    @intrinsic
    def compact(_typing, values, signs, at, scale):
        """values[at : at + 256]: their transform times scale, in place; `signs` last."""

        def build(context, builder, signature, arguments):
            values_kind, signs_kind = signature.args[:2]
            values, signs, at, scale = arguments
            rows = _load(context, builder, values_kind, values, at, LANES)
            _between(builder, rows)
            scales = _everywhere(builder, scale)
            sixteenth = builder.lshr(at, ir.Constant(at.type, 4))
            for r in range(LANES):
                row = builder.fmul(_within(builder, rows[r]), scales)
                if flip:
                    word = _plus(builder, sixteenth, r)
                    place = _place(context, builder, signs_kind, signs, word, ir.IntType(16))
                    row = _times_signs(builder, row, builder.load(place))
                place = _plus(builder, at, LANES * r)
                place = _place(context, builder, values_kind, values, place, _FLOATS)
                builder.store(row, place, align=4)
            return context.get_dummy_value()

        return types.void(values, signs, types.int64, types.float32), build

    return compact


strided, strided_flip = _strided(False), _strided(True)
compact, compact_flip = _compact(False), _compact(True)
