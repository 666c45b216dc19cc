"""The primitives of the CPU engine: what formulas are built from, inlined into the kernels."""

from __future__ import annotations

import math
import sys

from gpu_kernels.engines.cpu.compile import inline
from gpu_kernels.engines.cpu.elementary import exp, expm1, expm1_parts, fma, log, log_ratio, log_ratio_parts
from gpu_kernels.formulas.mills import mills_one

__all__ = [
    "absolute",
    "exp",
    "expm1",
    "expm1_parts",
    "fma",
    "function",
    "log",
    "log_ratio",
    "log_ratio_parts",
    "maximum",
    "minimum",
    "ndtr",
    "npdf",
    "rounded",
    "sqrt",
    "where",
]

INV_SQRT_2PI = 0.3989422804014327

# How a function that a formula defines becomes one that other formulas can call.
function = inline


@inline
def sqrt(x):  # type: ignore[no-untyped-def]
    """Square root, correctly rounded."""
    return math.sqrt(x)


@inline
def absolute(x):  # type: ignore[no-untyped-def]
    """|x|"""
    return abs(x)


@inline
def where(condition, yes, no):  # type: ignore[no-untyped-def]
    """yes if condition else no; both are computed."""
    return yes if condition else no


@inline
def rounded(x):  # type: ignore[no-untyped-def]
    """x itself: a kernel computes it once."""
    return x


@inline
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The smaller of two numbers."""
    return a if a < b else b


@inline
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The larger of two numbers."""
    return a if a > b else b


@inline
def npdf(x):  # type: ignore[no-untyped-def]
    """Density of the standard normal distribution."""
    return INV_SQRT_2PI * exp(-0.5 * (x * x))


mills_ratio = mills_one(sys.modules[__name__])


@inline
def ndtr(x):  # type: ignore[no-untyped-def]
    """Distribution function of the standard normal, with relative accuracy in the lower tail."""
    lower = npdf(x) * mills_ratio(-abs(x))
    return 1.0 - lower if x > 0.0 else lower
