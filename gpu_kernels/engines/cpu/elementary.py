"""exp, expm1 and log for the CPU: branch-free and inlined, so that LLVM vectorises the loops around them.

Coefficients are interpolants at Chebyshev nodes (near-minimax), computed at 60 digits and rounded to float64;
the remainder left out is below 2e-17 of the result.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpu_kernels.engines.cpu.compile import inline

LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 21 trailing zero bits, so that its product with any exponent is exact.
LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10

# Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits of the sum.
ROUNDER = 6755399441055744.0
ROUNDER_BITS = 0x4338000000000000
ONE_BITS = 0x3FF0000000000000
HALF_ULP_OF_EXPONENT = 1 << 51

# exp(-708) is the smallest result whose power of two can be built in the exponent field.
EXP_LOWEST = -708.0
EXP_HIGHEST = 709.0


def _to_bits(typingctx: Any, value: Any) -> Any:
    """The 64 bits of a float64 as a signed integer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _from_bits(typingctx: Any, value: Any) -> Any:
    """The float64 with these 64 bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a*b + c rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float64(types.float64, types.float64, types.float64), codegen


# Typed as Any: numba's own types describe the builder, not the function that kernels call.
to_bits: Any = intrinsic(_to_bits)
from_bits: Any = intrinsic(_from_bits)
fma: Any = intrinsic(_fma)


@inline
def _exp_parts(x):  # type: ignore[no-untyped-def]
    """m and n bits with e^x = (1 + m) * 2^n; n is left in the low bits of the second result."""
    clamped = min(max(x, EXP_LOWEST), EXP_HIGHEST)
    shifted = clamped * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (clamped - n * LN2_HIGH) - n * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = 0.5000000000000001 + r * 0.16666666666666669 + r2 * (0.04166666666662413 + r * 0.008333333333330062)
    high = (
        0.0013888888917213717
        + r * 0.00019841269863053618
        + r2 * (2.4801521295954376e-05 + r * 2.7557268459997064e-06)
        + r4 * (2.7620088445409746e-07 + r * 2.510038549551032e-08)
    )
    return r + r2 * (low + r4 * high), to_bits(shifted)


@inline
def exp(x):  # type: ignore[no-untyped-def]
    """e^x to 1 ulp; 0 below -708; the largest finite power above 709."""
    m, n = _exp_parts(x)
    power = from_bits(to_bits(1.0 + m) + (n << 52))
    # The comparisons are false for NaN, which goes through.
    return power if x >= EXP_LOWEST else (0.0 if x < EXP_LOWEST else x)


@inline
def expm1(x):  # type: ignore[no-untyped-def]
    """e^x - 1 with relative accuracy around 0."""
    m, n = _exp_parts(x)
    scale = from_bits((n << 52) + ONE_BITS)
    return (scale - 1.0) + scale * m


@inline
def expm1_parts(x):  # type: ignore[no-untyped-def]
    """e^x - 1 as the sum of two numbers, to 56 bits of the larger of 1 and e^x."""
    clamped = min(max(x, EXP_LOWEST), EXP_HIGHEST)
    shifted = clamped * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    whole = clamped - n * LN2_HIGH
    r = whole - n * LN2_LOW
    r_low = (whole - r) - n * LN2_LOW
    r2 = r * r
    r2_low = fma(r, r, -r2)
    r4 = r2 * r2
    # As in _exp_parts, less the terms r and r^2 / 2, which are added with what rounding takes from them.
    low = (
        1.1102230246251565e-16
        + r * 0.16666666666666669
        + r2 * (0.04166666666662413 + r * 0.008333333333330062)
    )
    high = (
        0.0013888888917213717
        + r * 0.00019841269863053618
        + r2 * (2.4801521295954376e-05 + r * 2.7557268459997064e-06)
        + r4 * (2.7620088445409746e-07 + r * 2.510038549551032e-08)
    )
    half = 0.5 * r2
    m = r + half
    m_low = (half - (m - r)) + (0.5 * r2_low + r2 * (low + r4 * high) + r_low * (1.0 + m))
    scale = from_bits((to_bits(shifted) << 52) + ONE_BITS)
    moved = scale - 1.0
    grown = scale * m
    total = moved + grown
    back = total - moved
    total_low = ((moved - (total - back)) + (grown - back)) + scale * m_low
    result = total + total_low
    return result, total_low - (result - total)


@inline
def nearest_power(a, b):  # type: ignore[no-untyped-def]
    """a * 2^-n and n, 2^n being about a / b: the first is within a factor 2^0.59 of b."""
    n_bits = (to_bits(a) - to_bits(b) + HALF_ULP_OF_EXPONENT) >> 52
    near = from_bits(to_bits(a) - (n_bits << 52))
    return near, from_bits(n_bits + ROUNDER_BITS) - ROUNDER


@inline
def atanh_series(v):  # type: ignore[no-untyped-def]
    """(2 atanh(u) - 2u) / u^3 as a function of v = u^2 up to 0.0402."""
    v2 = v * v
    low = 0.6666666666666666 + v * 0.40000000000008085 + v2 * (0.285714285672117 + v * 0.22222223059033036)
    high = (
        0.18181736789201602 + v * 0.15388901197185678 + v2 * (0.13209052444000552 + v * 0.13614059585772761)
    )
    return low + (v2 * v2) * high


@inline
def log_ratio(a, b):  # type: ignore[no-untyped-def]
    """log(a / b) with relative accuracy also where a is close to b; both positive and normal."""
    # Within a factor of two the difference is exact, and log is 2 atanh of difference over sum.
    near, n = nearest_power(a, b)
    u = (near - b) / (near + b)
    v = u * u
    return n * LN2_HIGH + (2.0 * u + (n * LN2_LOW + u * (v * atanh_series(v))))


@inline
def log_ratio_parts(a, b):  # type: ignore[no-untyped-def]
    """log(a / b) as the sum of two numbers, to about 1e-18 and 70 bits."""
    near, n = nearest_power(a, b)
    difference = near - b
    total = near + b
    b_part = total - near
    total_low = (near - (total - b_part)) + (b - b_part)
    u = difference / total
    u_low = (fma(-u, total, difference) - u * total_low) / total
    v = u * u
    whole = n * LN2_HIGH
    high = whole + 2.0 * u
    back = high - whole
    low = (whole - (high - back)) + (2.0 * u - back)
    low += n * LN2_LOW + (u * (v * atanh_series(v)) + 2.0 * u_low)
    result = high + low
    return result, low - (result - high)


@inline
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of a positive normal number, with relative accuracy near 1."""
    return log_ratio(x, 1.0)
