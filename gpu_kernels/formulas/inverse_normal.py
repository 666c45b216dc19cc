"""The inverse of the standard normal distribution function, for uniforms of up to 52 bits.

In the middle x/(u − ½) is a rational function of (u − ½)², in the tails x is one of √(−ln p). Both were
fitted by iterated weighted least squares at 50 digits: relative errors 8e-17 and 9e-18; all coefficients are
positive.
"""

from __future__ import annotations

from typing import Any

# Half-width of the middle range, and its square.
MIDDLE = 0.425
MIDDLE_SQUARED = 0.180625
TAIL_CENTRE = 1.6


def inverse_normal(ops: Any) -> Any:
    """``value(u)`` with Φ(value) = u for 2^-53 ≤ u ≤ 1 − 2^-53, within 6 ulp."""
    absolute, log, minimum, sqrt, where = ops.absolute, ops.log, ops.minimum, ops.sqrt, ops.where

    def value(u: Any) -> Any:
        q = u - 0.5
        s = MIDDLE_SQUARED - q * q
        top = 33418.54824236324 + s * 2507.9233371953305
        top = 67247.53815230756 + s * top
        top = 45912.97820061537 + s * top
        top = 13729.8786536268 + s * top
        top = 1971.4338228627869 + s * top
        top = 133.136848325276 + s * top
        top = 3.3871328727963665 + s * top
        bottom = 28719.678000526335 + s * 5224.308122701856
        bottom = 39298.16429580998 + s * bottom
        bottom = 21209.991816843973 + s * bottom
        bottom = 5393.539259889866 + s * bottom
        bottom = 687.1363417853375 + s * bottom
        bottom = 42.31190779712996 + s * bottom
        bottom = 1.0 + s * bottom
        middle = q * (top / bottom)
        # 1 − u is exact above a half.
        r = sqrt(-log(minimum(u, 1.0 - u))) - TAIL_CENTRE
        top = 0.001811447415513391 + r * 3.480130840785888e-05
        top = 0.0321746048959784 + r * top
        top = 0.27760233089793174 + r * top
        top = 1.3293845597542993 + r * top
        top = 3.678896571490939 + r * top
        top = 5.756020624912738 + r * top
        top = 4.618227140423721 + r * top
        top = 1.4234371107496835 + r * top
        bottom = 0.0012416578665817514 + r * 2.460753477607063e-05
        bottom = 0.02083787511745579 + r * bottom
        bottom = 0.16567741962860183 + r * bottom
        bottom = 0.7099563570458318 + r * bottom
        bottom = 1.6771246258651995 + r * bottom
        bottom = 2.0446835544220154 + r * bottom
        bottom = 1.0 + r * bottom
        tail = top / bottom
        return where(absolute(q) <= MIDDLE, middle, where(q < 0.0, -tail, tail))

    return ops.function(value)
