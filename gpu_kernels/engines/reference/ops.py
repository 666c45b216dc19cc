"""The primitives of the reference engine, on whole NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
from scipy import special

# ln 2 in two parts: the product of the first with any exponent is exact.
LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10
INV_SQRT_2PI = 0.3989422804014327
# A quotient out of this range or its inverse may have lost digits, or all of them.
LEAST_RATIO = 1e-300

exp = np.exp
expm1 = np.expm1
log = np.log
sqrt = np.sqrt
absolute = np.absolute
minimum = np.minimum
maximum = np.maximum
where = np.where
ndtr = special.ndtr


def function(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Formulas run as they are."""
    return formula


def rounded(x: Any) -> Any:
    """x itself: every array is computed once."""
    return x


def expm1_parts(x: Any) -> Any:
    """e^x - 1 as the sum of two numbers, to 56 bits of the larger of 1 and e^x."""
    n = np.rint(x / np.log(2.0))
    whole = x - n * LN2_HIGH
    r = whole - n * LN2_LOW
    r_low = (whole - r) - n * LN2_LOW
    # e^r - 1 = r + r^2/2 + r^3 (1/6 + r/24 + ...); |r| < 0.35, so sixteen terms reach 1e-20.
    series = np.zeros_like(r)
    for power in range(18, 2, -1):
        series = series * r + 1.0 / factorial(power)
    square = r * r
    half = 0.5 * square
    m = r + half
    m_low = (half - (m - r)) + (0.5 * fma(r, r, -square) + square * r * series + r_low * (1.0 + m))
    scale = np.ldexp(1.0, n.astype(np.int64))
    moved, grown = scale - 1.0, scale * m
    total = moved + grown
    back = total - moved
    total_low = ((moved - (total - back)) + (grown - back)) + scale * m_low
    result = total + total_low
    return result, total_low - (result - total)


def log_ratio(a: Any, b: Any) -> Any:
    """log(a / b) with relative accuracy also where a is close to b."""
    near = np.absolute(a - b) < 0.5 * b
    ratio = a / b
    inside = (ratio > LEAST_RATIO) & (ratio < 1.0 / LEAST_RATIO)
    far = np.where(inside, np.log(ratio), np.log(a) - np.log(b))
    return np.where(near, np.log1p(np.where(near, (a - b) / b, 0.0)), far)


def log_ratio_parts(a: Any, b: Any) -> Any:
    """log(a / b) as the sum of two numbers, to about 1e-18 and 70 bits."""
    n = np.rint(np.log2(a) - np.log2(b))
    near = np.ldexp(a, -n.astype(np.int64))
    difference = near - b
    total = near + b
    b_part = total - near
    total_low = (near - (total - b_part)) + (b - b_part)
    u = difference / total
    u_low = (fma(-u, total, difference) - u * total_low) / total
    v = u * u
    # 2 atanh(u) = 2u + u^3 (2/3 + 2v/5 + 2v^2/7 + ...); |u| < 0.172, so twelve terms reach 1e-20.
    series = np.zeros_like(v)
    for power in range(25, 1, -2):
        series = series * v + 2.0 / power
    whole = n * LN2_HIGH
    high = whole + 2.0 * u
    back = high - whole
    low = (whole - (high - back)) + (2.0 * u - back)
    low = low + (n * LN2_LOW + (u * (v * series) + 2.0 * u_low))
    result = high + low
    return result, low - (result - high)


def npdf(x: Any) -> Any:
    """Density of the standard normal distribution."""
    return INV_SQRT_2PI * np.exp(-0.5 * (x * x))


def fma(a: Any, b: Any, c: Any) -> Any:
    """a*b + c with the product to twice the precision (Dekker 1971), then rounded."""
    product = a * b
    error = ((_high(a) * _high(b) - product) + _high(a) * _low(b) + _low(a) * _high(b)) + _low(a) * _low(b)
    total = product + c
    other = total - product
    return total + (((product - (total - other)) + (c - other)) + error)


def _high(x: Any) -> Any:
    split = 134217729.0 * x
    return split - (split - x)


def _low(x: Any) -> Any:
    return x - _high(x)
