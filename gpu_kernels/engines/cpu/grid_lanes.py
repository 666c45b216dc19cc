"""One step in time of LANES grids side by side: each node's numbers are one vector, held in registers.

Written in LLVM's own vectors. A tridiagonal solution is a chain along the nodes, so only several grids at a
time can fill a vector, and numba's loops over lanes keep the chain in memory: four times slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils as numba_cgutils
from numpy.typing import NDArray

from gpu_kernels.engines.cpu.compile import FASTMATH

LANES = 8
intrinsic: Any = extending.intrinsic
cgutils: Any = numba_cgutils
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = tuple(sorted(FASTMATH))

# Rows of `coefficients`, each (LANES,). The first five are divided by the weight of the node above in the
# matrix, so that its factors need one column only.
(
    FROM_BELOW,  # of the explicit part
    FROM_HERE,
    FROM_ABOVE,
    FROM_PUSH,
    LOW,  # of the matrix: the node below
    TIME,  # length of the step, years
    PER_TIME,  # 1 / TIME
    SIGN,  # 1 a call, -1 a put; 0 where exercise counts for nothing
    SHIFT,  # SIGN times what the holder gets besides the spot of the grid, less the strike
    FLOOR,  # least that exercise pays; far below 0 where it counts for nothing
    RATIO,  # spot of a node as a part of the next one's
    TOP,  # spot of the last node but one
    FIRST,  # pivot of the second node
    END_LOW,  # of the last node but one
    END,
    MIDDLE,  # of the matrix: the node itself
    HIGH,  # the node above
) = range(17)
COEFFICIENTS = 17


def room(nodes: int) -> tuple[NDArray[np.float64], ...]:
    """Values, pushes and factors (nodes, LANES), and coefficients, each on the edge of a cache line."""
    return tuple(_aligned(rows) for rows in (nodes, nodes, nodes, COEFFICIENTS))


def _aligned(rows: int) -> NDArray[np.float64]:
    raw = np.zeros(rows * LANES + 8)
    start = (-raw.ctypes.data % 64) // 8
    return raw[start : start + rows * LANES].reshape(rows, LANES)


class _Vectors:
    """An array (n, LANES) as n vectors."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self._builder = builder
        data = context.make_array(kind)(context, builder, array).data
        self._base = builder.bitcast(data, _VECTOR.as_pointer())

    def _at(self, place: Any) -> Any:
        where = ir.Constant(ir.IntType(64), place) if isinstance(place, int) else place
        return self._builder.gep(self._base, [where], inbounds=True)

    def load(self, place: Any) -> Any:
        return self._builder.load(self._at(place), align=64)

    def store(self, value: Any, place: Any) -> None:
        self._builder.store(value, self._at(place), align=64)


class _Arithmetic:
    """Operations on vectors, fused where the machine can."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def plus(self, a: Any, b: Any) -> Any:
        return self._builder.fadd(a, b, flags=_FLAGS)

    def minus(self, a: Any, b: Any) -> Any:
        return self._builder.fsub(a, b, flags=_FLAGS)

    def times(self, a: Any, b: Any) -> Any:
        return self._builder.fmul(a, b, flags=_FLAGS)

    def over(self, a: Any, b: Any) -> Any:
        return self._builder.fdiv(a, b, flags=_FLAGS)

    def largest(self, a: Any, b: Any) -> Any:
        return self._builder.select(self._builder.fcmp_ordered(">", a, b), a, b)


class _Kept:
    """A vector that a loop carries along."""

    def __init__(self, builder: Any, first: Any) -> None:
        self._builder, self._place = builder, cgutils.alloca_once(builder, _VECTOR)
        self.put(first)

    def put(self, value: Any) -> None:
        self._builder.store(value, self._place)

    def get(self) -> Any:
        return self._builder.load(self._place)


@intrinsic
def factor(typingctx: Any, upper: Any, coefficients: Any, nodes: Any) -> Any:
    """Factors of all nodes but the outer two on each side, from that of the second, which is there."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, given = (
            _Vectors(context, builder, *pair) for pair in zip(signature.args[:2], args[:2], strict=True)
        )
        do, one = _Arithmetic(builder), ir.Constant(args[2].type, 1)
        low, middle, high = (given.load(name) for name in (LOW, MIDDLE, HIGH))
        low = do.times(low, high)
        before = _Kept(builder, rows.load(1))
        stop = builder.sub(args[2], ir.Constant(args[2].type, 2))
        with cgutils.for_range_slice(builder, builder.add(one, one), stop, one) as (j, _):
            here = do.over(high, do.minus(middle, do.times(low, before.get())))
            rows.store(here, j)
            before.put(here)
        return context.get_dummy_value()

    return types.void(upper, coefficients, types.intp), codegen


@intrinsic
def step(typingctx: Any, value: Any, push: Any, upper: Any, coefficients: Any, nodes: Any) -> Any:
    """One step back in time of all nodes but the first and the last: solve, then split off what early
    exercise adds."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, pushes, factors, given = (
            _Vectors(context, builder, *pair) for pair in zip(signature.args[:4], args[:4], strict=True)
        )
        do, one = _Arithmetic(builder), ir.Constant(args[4].type, 1)
        last = builder.sub(args[4], ir.Constant(args[4].type, 2))
        c = [given.load(row) for row in range(COEFFICIENTS)]
        under, here = _Kept(builder, values.load(0)), _Kept(builder, values.load(1))

        def explicit(j: Any) -> Any:
            """The explicit part at a node; the next call is of the node above."""
            middle, above = here.get(), values.load(builder.add(j, one))
            sides = do.plus(do.times(c[FROM_BELOW], under.get()), do.times(c[FROM_HERE], middle))
            pushed = do.times(c[FROM_PUSH], pushes.load(j))
            under.put(middle)
            here.put(above)
            return do.plus(do.plus(sides, do.times(c[FROM_ABOVE], above)), pushed)

        before = _Kept(builder, do.times(explicit(one), c[FIRST]))
        values.store(before.get(), one)
        with cgutils.for_range_slice(builder, builder.add(one, one), last, one) as (j, _):
            rest = do.minus(explicit(j), do.times(c[LOW], before.get()))
            before.put(do.times(rest, factors.load(j)))
            values.store(before.get(), j)
        rest = do.minus(explicit(last), do.times(c[END_LOW], before.get()))
        before.put(do.times(rest, c[END]))
        spot = _Kept(builder, c[TOP])

        def split(solved: Any, j: Any) -> None:
            at = spot.get()
            free = do.minus(solved, do.times(c[TIME], pushes.load(j)))
            pays = do.largest(do.plus(do.times(c[SIGN], at), c[SHIFT]), c[FLOOR])
            kept = do.largest(free, pays)
            pushes.store(do.times(do.minus(kept, free), c[PER_TIME]), j)
            values.store(kept, j)
            spot.put(do.times(at, c[RATIO]))

        split(before.get(), last)
        with cgutils.for_range_slice(builder, one, last, one) as (i, _):
            j = builder.sub(last, i)
            solved = do.minus(values.load(j), do.times(factors.load(j), before.get()))
            before.put(solved)
            split(solved, j)
        return context.get_dummy_value()

    return types.void(value, push, upper, coefficients, types.intp), codegen
