"""The primitives of the XLA engine. All but `log_ratio_parts` and `expm1_parts` can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# ln 2 in two parts: the product of the first with any exponent is exact.
LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10
INV_SQRT_2PI = 0.3989422804014327
LOG2_E = 1.4426950408889634
# A quotient out of this range or its inverse may have lost digits, or all of them.
LEAST_RATIO = 1e-300
# exp(-708) is the smallest result whose power of two can be built in the exponent field.
EXP_LOWEST, EXP_HIGHEST = -708.0, 709.0
ONE_BITS = 0x3FF0000000000000
# (e^r - 1 - r) / r^2 for |r| <= ln(2)/2, lowest first; what is left out is below 2e-17 of e^r.
EXP = (
    0.5000000000000001,
    0.16666666666666669,
    0.04166666666662413,
    0.008333333333330062,
    0.0013888888917213717,
    0.00019841269863053618,
    2.4801521295954376e-05,
    2.7557268459997064e-06,
    2.7620088445409746e-07,
    2.510038549551032e-08,
)
HALF_EXPONENT_STEP = 1 << 51
# (2 atanh(u) - 2u) / u^3 in powers of u^2 up to 0.0402, lowest first; what is left out is below 2e-17 of log.
ATANH = (
    0.6666666666666666,
    0.40000000000008085,
    0.285714285672117,
    0.22222223059033036,
    0.18181736789201602,
    0.15388901197185678,
    0.13209052444000552,
    0.13614059585772761,
)

log = jnp.log
sqrt = jnp.sqrt
absolute = jnp.abs
minimum = jnp.minimum
maximum = jnp.maximum
where = jnp.where
ndtr = jax.scipy.special.ndtr


def function(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Formulas are traced as they are."""
    return formula


@jax.custom_jvp
def exp(x: Any) -> Any:
    """e^x to 1 ulp, where XLA's own has 2; 0 below -708."""
    m, n = _exp_parts(x)
    power = jax.lax.bitcast_convert_type(_bits(1.0 + m) + (n << 52), jnp.float64)
    # The comparisons are false for NaN, which goes through.
    return jnp.where(x >= EXP_LOWEST, power, jnp.where(x < EXP_LOWEST, 0.0, x))


@exp.defjvp
def _exp_slope(values: Any, tangents: Any) -> Any:
    power = exp(values[0])
    return power, power * tangents[0]


@jax.custom_jvp
def expm1(x: Any) -> Any:
    """e^x - 1 with relative accuracy around 0, where XLA's own is off by 3 ulp."""
    m, n = _exp_parts(x)
    scale = jax.lax.bitcast_convert_type((n << 52) + ONE_BITS, jnp.float64)
    return (scale - 1.0) + scale * m


@expm1.defjvp
def _expm1_slope(values: Any, tangents: Any) -> Any:
    return expm1(values[0]), exp(values[0]) * tangents[0]


def expm1_parts(x: Any) -> tuple[Any, Any]:
    """e^x - 1 as the sum of two numbers, to 56 bits of the larger of 1 and e^x."""
    clamped = jnp.minimum(jnp.maximum(x, EXP_LOWEST), EXP_HIGHEST)
    n = jnp.round(clamped * LOG2_E)
    whole = clamped - n * LN2_HIGH
    r = whole - n * LN2_LOW
    r_low = (whole - r) - n * LN2_LOW
    r2 = r * r
    tail: Any = EXP[-1]
    for coefficient in (*EXP[-2:0:-1], EXP[0] - 0.5):
        tail = tail * r + coefficient
    half = 0.5 * r2
    m = r + half
    m_low = (half - (m - r)) + (0.5 * fma(r, r, -r2) + r2 * tail + r_low * (1.0 + m))
    scale = jax.lax.bitcast_convert_type((n.astype(jnp.int64) << 52) + ONE_BITS, jnp.float64)
    moved = scale - 1.0
    grown = scale * m
    total = moved + grown
    back = total - moved
    total_low = ((moved - (total - back)) + (grown - back)) + scale * m_low
    result = total + total_low
    return result, total_low - (result - total)


@jax.custom_jvp
def rounded(x: Any) -> Any:
    """x itself, out of which no compiler makes a fused product and sum."""
    # XLA computes cheap values anew in each of its loops, fused with what follows there or not, so that two
    # loops may take different sides of one decision. A selection in between cannot be fused.
    return jnp.where(x != 0.0, x, 0.0)


@rounded.defjvp
def _rounded_slope(values: Any, tangents: Any) -> Any:
    return rounded(values[0]), tangents[0]


def log_ratio(a: Any, b: Any) -> Any:
    """log(a / b), relative accuracy also where a is close to b: XLA's own log1p loses two digits there."""
    u = (a - b) / (a + b)
    # 2 atanh(u) for ratios from 2/3 to 3/2. The side that is not chosen gets a harmless number, or its
    # derivative would spoil the other's.
    near = jnp.abs(u) < 0.2
    small = jnp.where(near, u, 0.0)
    v = small * small
    series = 2.0 * small + small * (v * _series(v))
    ratio = a / b
    inside = (ratio > LEAST_RATIO) & (ratio < 1.0 / LEAST_RATIO)
    far = jnp.where(inside, jnp.log(jnp.where(near | ~inside, 1.0, ratio)), jnp.log(a) - jnp.log(b))
    return jnp.where(near, series, far)


def log_ratio_parts(a: Any, b: Any) -> tuple[Any, Any]:
    """log(a / b) as the sum of two numbers, to about 1e-18 and 70 bits."""
    n = (_bits(a) - _bits(b) + HALF_EXPONENT_STEP) >> 52
    near = jax.lax.bitcast_convert_type(_bits(a) - (n << 52), jnp.float64)
    n = n.astype(jnp.float64)
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
    low = low + (n * LN2_LOW + (u * (v * _series(v)) + 2.0 * u_low))
    result = high + low
    return result, low - (result - high)


def npdf(x: Any) -> Any:
    """Density of the standard normal distribution."""
    return INV_SQRT_2PI * exp(-0.5 * (x * x))


def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c with the product to twice the precision (Dekker 1971), then rounded."""
    product = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    total = product + c
    other = total - product
    return total + (((product - (total - other)) + (c - other)) + error)


def _exp_parts(x: Any) -> tuple[Any, Any]:
    """m and the integer n with e^x = (1 + m) 2^n."""
    clamped = jnp.minimum(jnp.maximum(x, EXP_LOWEST), EXP_HIGHEST)
    n = jnp.round(clamped * LOG2_E)
    r = (clamped - n * LN2_HIGH) - n * LN2_LOW
    total: Any = EXP[-1]
    for coefficient in EXP[-2::-1]:
        total = total * r + coefficient
    return r + (r * r) * total, n.astype(jnp.int64)


def _series(v: Any) -> Any:
    total = ATANH[-1]
    for coefficient in ATANH[-2::-1]:
        total = total * v + coefficient
    return total


def _bits(x: Any) -> Any:
    return jax.lax.bitcast_convert_type(x, jnp.int64)


def _high(x: Any) -> Any:
    """The upper half of the digits. By its bits, since a compiler may reorder sums and products."""
    return jax.lax.bitcast_convert_type(_bits(x) & jnp.int64(-(1 << 27)), jnp.float64)
