"""Raw memory for the compiled core: loads and stores at an address, bit scan, prefetch, cycle counter.

The core keeps its state in NumPy arrays that the engine owns and passes one address. Passing the arrays
themselves would cost reference counts and a hundred machine arguments per call; a pointer costs nothing and
compiles in a fraction of the time.
"""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

inlined = njit(forceinline=True)
compiled = njit()

_I64 = types.int64
_IR_I64 = cgutils.ir.IntType(64)
_IR_I32 = cgutils.ir.IntType(32)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def load64(typing: Any, address: Any) -> Any:
    """The int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], _IR_I64))

    return _I64(_I64), emit


@intrinsic
def fixed64(typing: Any, address: Any) -> Any:
    """The int64 at an address that no compiled code ever writes, so that the compiler may keep it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_at(builder, args[0], _IR_I64))
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    return _I64(_I64), emit


@intrinsic
def store64(typing: Any, address: Any, value: Any) -> Any:
    """Writes an int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _at(builder, args[0], _IR_I64))
        return context.get_dummy_value()

    return types.void(_I64, _I64), emit


@intrinsic
def load32(typing: Any, address: Any) -> Any:
    """The int32 at an address, sign kept."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.load(_at(builder, args[0], _IR_I32)), _IR_I64)

    return _I64(_I64), emit


@intrinsic
def load_u32(typing: Any, address: Any) -> Any:
    """The uint32 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(_at(builder, args[0], _IR_I32)), _IR_I64)

    return _I64(_I64), emit


@intrinsic
def store32(typing: Any, address: Any, value: Any) -> Any:
    """Writes the low 32 bits of a value at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], _IR_I32), _at(builder, args[0], _IR_I32))
        return context.get_dummy_value()

    return types.void(_I64, _I64), emit


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Position of the lowest set bit of a mask that is not zero."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.true_bit)

    return _I64(_I64), emit


@intrinsic
def high_product(typing: Any, left: Any, right: Any) -> Any:
    """The upper 64 bits of the 128-bit product of two int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = cgutils.ir.IntType(128)
        product = builder.mul(builder.sext(args[0], wide), builder.sext(args[1], wide))
        return builder.trunc(builder.ashr(product, wide(64)), _IR_I64)

    return _I64(_I64, _I64), emit


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Asks for the cache line at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = cgutils.ir.IntType(8).as_pointer()
        kind = cgutils.ir.FunctionType(cgutils.ir.VoidType(), [byte, _IR_I32, _IR_I32, _IR_I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(args[0], byte), _IR_I32(1), _IR_I32(3), _IR_I32(1)])
        return context.get_dummy_value()

    return types.void(_I64), emit


@intrinsic
def cycles(typing: Any) -> Any:
    """The processor's cycle counter."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = cgutils.ir.FunctionType(_IR_I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return _I64(), emit


@intrinsic
def load_real(typing: Any, address: Any) -> Any:
    """The float64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], cgutils.ir.DoubleType()))

    return types.float64(_I64), emit


@intrinsic
def store_real(typing: Any, address: Any, value: Any) -> Any:
    """Writes a float64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _at(builder, args[0], cgutils.ir.DoubleType()))
        return context.get_dummy_value()

    return types.void(_I64, types.float64), emit
