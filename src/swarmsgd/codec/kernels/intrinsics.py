"""What compiled passes need and numba does not say: bits, bytes, borrowed parts, loose sums."""

from __future__ import annotations

import struct
from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types
from numba.np import arrayobj

intrinsic: Any = extending.intrinsic  # what it makes is called without the first argument


@intrinsic
def size_bits(_typing, value):
    """The bits of |value|, which are in the same order as |value| itself."""

    def build(_context, builder, _signature, arguments):
        word = ir.IntType(32)
        return builder.and_(builder.bitcast(arguments[0], word), word(0x7FFFFFFF))

    return types.int32(types.float32), build


@intrinsic
def from_bits(_typing, value):
    """The float32 with these bits."""

    def build(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


def _part(writable: bool) -> Any:
    def part(_typing, array, start, stop):
        def build(context, builder, signature, arguments):
            array, start, stop = arguments
            data = context.make_array(signature.args[0])(context, builder, array).data
            result = context.make_array(signature.return_type)(context, builder)
            size = context.get_constant(
                types.intp, context.get_abi_sizeof(context.get_data_type(array_type.dtype))
            )
            arrayobj.populate_array(
                result,
                data=builder.gep(data, [start]),
                shape=[builder.sub(stop, start)],
                strides=[size],
                itemsize=size,
                meminfo=None,
            )
            return result._getvalue()

        array_type = array.copy(readonly=not writable) if not writable else array
        return array_type(array, types.int64, types.int64), build

    return part


borrowed = intrinsic(_part(True))
"""``borrowed(array, start, stop)``: array[start:stop] without a share in its ownership, which
whoever called the kernel holds. Counting references is atomic: the processor waits for its stores.
"""

lent = intrinsic(_part(False))
"""As `borrowed`, but read-only: what comes in and scratch are then of one type."""


@intrinsic
def lying_at(_typing, address, size):
    """The float32 array of this size at an address that the kernel's caller holds."""

    def build(context, builder, signature, arguments):
        address, size = arguments
        result = context.make_array(signature.return_type)(context, builder)
        arrayobj.populate_array(
            result,
            data=builder.inttoptr(address, ir.FloatType().as_pointer()),
            shape=[size],
            strides=[context.get_constant(types.intp, 4)],
            itemsize=context.get_constant(types.intp, 4),
            meminfo=None,
        )
        return result._getvalue()

    return types.Array(types.float32, 1, "C")(types.int64, types.int64), build


@intrinsic
def move(_typing, target, target_byte, source, source_byte, size):
    """memcpy between arrays of any kind and alignment; offsets and size are in bytes."""

    def build(context, builder, signature, arguments):
        target, target_byte, source, source_byte, size = arguments
        byte = ir.IntType(8).as_pointer()
        to = context.make_array(signature.args[0])(context, builder, target).data
        of = context.make_array(signature.args[2])(context, builder, source).data
        to = builder.gep(builder.bitcast(to, byte), [target_byte])
        of = builder.gep(builder.bitcast(of, byte), [source_byte])
        cgutils.raw_memcpy(builder, to, of, size, 1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), build


@intrinsic
def times_sign(_typing, value, sign):
    """The float32 with its sign bit changed if that bit is set in `sign`."""

    def build(_context, builder, _signature, arguments):
        word = builder.xor(builder.bitcast(arguments[0], ir.IntType(32)), arguments[1])
        return builder.bitcast(word, ir.FloatType())

    return types.float32(types.float32, types.uint32), build


@intrinsic
def load_word(_typing, source, at):
    """The uint64 that begins at byte `at` of a byte array."""

    def build(context, builder, signature, arguments):
        array, at = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        word = ir.IntType(64).as_pointer()
        return builder.load(builder.bitcast(builder.gep(data, [at]), word), align=1)

    return types.uint64(source, types.int64), build


@intrinsic
def store_word(_typing, target, at, value):
    """Write a uint64 at byte `at` of a byte array."""

    def build(context, builder, signature, arguments):
        array, at, value = arguments
        data = context.make_array(signature.args[0])(context, builder, array).data
        word = ir.IntType(64).as_pointer()
        builder.store(value, builder.bitcast(builder.gep(data, [at]), word), align=1)
        return context.get_dummy_value()

    return types.void(target, types.int64, types.uint64), build


@intrinsic
def loose_sum(_typing, total, term):
    """total + term in any order: only for figures to record, never for a part of a model."""

    def build(_context, builder, _signature, arguments):
        return builder.fadd(*arguments, flags=("reassoc",))

    return total(total, term), build


def unknown(builder: Any, value: float) -> Any:
    """For building other intrinsics: this float32, of which LLVM does not know what it is.

    It comes through a register that an empty piece of assembly may have changed.
    """
    word = ir.IntType(32)
    bits = word(int.from_bytes(struct.pack("<f", value), "little"))
    same = builder.asm(ir.FunctionType(word, [word]), "", "=r,0", [bits], False)
    return builder.bitcast(same, ir.FloatType())


@intrinsic
def loose_squares(_typing, total, value):
    """total + value * value in any order, in one operation where the processor has it: for bounds,
    never for a part of a model.
    """

    def build(_context, builder, _signature, arguments):
        total, value = arguments
        square = builder.fmul(value, value, flags=("contract",))
        return builder.fadd(total, square, flags=("reassoc", "contract"))

    return total(total, total), build


@intrinsic
def fetch(_typing, array, at):
    """Ask for the cache line of array[at], which may lie past its end, into the second cache."""

    def build(context, builder, signature, arguments):
        array, at = arguments
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, array).data
        place = builder.bitcast(builder.gep(data, [at]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(prefetch, [place, word(0), word(2), word(1)])  # to read, level 2, data
        return context.get_dummy_value()

    return types.void(array, types.int64), build
