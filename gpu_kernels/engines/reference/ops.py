"""The primitives of the reference engine, on whole NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

INV_SQRT_2PI = 0.3989422804014327

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


def log_ratio(a: Any, b: Any) -> Any:
    """log(a / b) with relative accuracy also where a is close to b."""
    near = np.absolute(a - b) < 0.5 * b
    return np.where(near, np.log1p(np.where(near, (a - b) / b, 0.0)), np.log(a / b))


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
