"""Raw memory for the compiled core: loads and stores at an address, bit scan, prefetch, cycle counter.

The core keeps its state in NumPy arrays that the engine owns and passes one address. Passing the arrays
themselves would cost reference counts and a hundred machine arguments per call; a pointer costs nothing and
compiles in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit, types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Functions that only compiled code calls need no Python entry and count no references: half the time to
# compile.
_INNER: dict[str, Any] = {
    "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False, "error_model": "numpy",
}  # fmt: skip
inlined: Callable[[F], F] = njit(forceinline=True, **_INNER)
compiled: Callable[[F], F] = njit(**_INNER)
# Pasted into its one caller before anything is compiled, for a large function that would be compiled twice.
spliced: Callable[[F], F] = njit(inline="always", **_INNER)

_I64 = types.int64
# llvmlite itself may be imported only where import-linter lets it; numba carries the two parts needed here.
cgutils: Any = _cgutils
ir: Any = cgutils.ir
_IR_I64 = ir.IntType(64)
_IR_I32 = ir.IntType(32)


# numba's decorator hides the types of what it makes; these give them back.
def _reads(emit: Any) -> Callable[[int], int]:
    return cast("Callable[[int], int]", intrinsic(emit))


def _writes(emit: Any) -> Callable[[int, int], None]:
    return cast("Callable[[int, int], None]", intrinsic(emit))


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@_reads
def load64(typing: Any, address: Any) -> Any:
    """The int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], _IR_I64))

    return _I64(_I64), emit


@_reads
def wire64(typing: Any, address: Any) -> Any:
    """The int64 at an address that need not be a multiple of eight."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], _IR_I64), align=1)

    return _I64(_I64), emit


@_reads
def wire32(typing: Any, address: Any) -> Any:
    """The uint32 at an address that need not be a multiple of four."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(_at(builder, args[0], _IR_I32), align=1), _IR_I64)

    return _I64(_I64), emit


@_reads
def fixed64(typing: Any, address: Any) -> Any:
    """The int64 at an address that no compiled code ever writes, so that the compiler may keep it."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_at(builder, args[0], _IR_I64))
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    return _I64(_I64), emit


@_writes
def store64(typing: Any, address: Any, value: Any) -> Any:
    """Writes an int64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _at(builder, args[0], _IR_I64))
        return context.get_dummy_value()

    return types.void(_I64, _I64), emit


@_reads
def load32(typing: Any, address: Any) -> Any:
    """The int32 at an address, sign kept."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(builder.load(_at(builder, args[0], _IR_I32)), _IR_I64)

    return _I64(_I64), emit


@_reads
def load_u32(typing: Any, address: Any) -> Any:
    """The uint32 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(_at(builder, args[0], _IR_I32)), _IR_I64)

    return _I64(_I64), emit


@_writes
def store32(typing: Any, address: Any, value: Any) -> Any:
    """Writes the low 32 bits of a value at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(builder.trunc(args[1], _IR_I32), _at(builder, args[0], _IR_I32))
        return context.get_dummy_value()

    return types.void(_I64, _I64), emit


@_reads
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Position of the lowest set bit of a mask that is not zero."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.true_bit)

    return _I64(_I64), emit


@intrinsic
def _high_product(typing: Any, left: Any, right: Any) -> Any:
    """The upper 64 bits of the 128-bit product of two int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.sext(args[0], wide), builder.sext(args[1], wide))
        return builder.trunc(builder.ashr(product, wide(64)), _IR_I64)

    return _I64(_I64, _I64), emit


@intrinsic
def _prefetch(typing: Any, address: Any) -> Any:
    """Asks for the cache line at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _IR_I32, _IR_I32, _IR_I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(args[0], byte), _IR_I32(1), _IR_I32(3), _IR_I32(1)])
        return context.get_dummy_value()

    return types.void(_I64), emit


@intrinsic
def _cycles(typing: Any) -> Any:
    """The processor's cycle counter."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_IR_I64, [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

    return _I64(), emit


@intrinsic
def _load_real(typing: Any, address: Any) -> Any:
    """The float64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_at(builder, args[0], ir.DoubleType()))

    return types.float64(_I64), emit


@intrinsic
def _store_real(typing: Any, address: Any, value: Any) -> Any:
    """Writes a float64 at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _at(builder, args[0], ir.DoubleType()))
        return context.get_dummy_value()

    return types.void(_I64, types.float64), emit


high_product = cast("Callable[[int, int], int]", _high_product)
prefetch = cast("Callable[[int], None]", _prefetch)
cycles = cast("Callable[[], int]", _cycles)
load_real = cast("Callable[[int], float]", _load_real)
store_real = cast("Callable[[int, float], None]", _store_real)
