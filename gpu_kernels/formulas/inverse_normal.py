"""The inverse of the standard normal distribution function, for uniforms of up to 52 bits.

In the middle x = (u − ½)(√2π + (u − ½)² R), in the tails x = x₀ + r (√2 + R) with r = √(−ln p) − 1.6. Each R,
a rational function of (u − ½)² or of r, is a small part of the whole, and so are its rounding errors. Both
were fitted by iterated weighted least squares at 50 digits: they leave 7e-18 and 8e-18 of x; all coefficients
are positive.
"""

from __future__ import annotations

from typing import Any

# Half-width of the middle range, and its square.
MIDDLE = 0.425
MIDDLE_SQUARED = 0.180625
TAIL_CENTRE = 1.6
# x where √(−ln p) = 1.6.
TAIL_AT_CENTRE = 1.4234371107496837
ROOT_TWO = 1.4142135623730951
ROOT_TWO_PI = 2.5066282746310002


def inverse_normal(ops: Any) -> Any:
    """``value(u)`` with Φ(value) = u for 2^-53 ≤ u ≤ 1 − 2^-53, within 4 ulp."""
    absolute, log, minimum, sqrt, where = ops.absolute, ops.log, ops.minimum, ops.sqrt, ops.where

    def value(u: Any) -> Any:
        q = u - 0.5
        t = q * q
        s = MIDDLE_SQUARED - t
        top = 36692.4717888062 + s * 571.9632974563201
        top = 86189.5551932136 + s * top
        top = 62205.07398497838 + s * top
        top = 19109.481136968152 + s * top
        top = 2786.9704605847146 + s * top
        top = 190.16352004569933 + s * top
        top = 4.874765941399952 + s * top
        bottom = 67858.593442784 + s * 19930.90882004871
        bottom = 69780.76470325892 + s * bottom
        bottom = 31074.659812758906 + s * bottom
        bottom = 6885.284298264698 + s * bottom
        bottom = 791.513144679984 + s * bottom
        bottom = 45.034092308647196 + s * bottom
        bottom = 1.0 + s * bottom
        middle = q * (ROOT_TWO_PI + t * (top / bottom))
        # 1 − u is exact above a half.
        r = sqrt(-log(minimum(u, 1.0 - u))) - TAIL_CENTRE
        top = 2.0652720331368648e-05 + r * 1.0239997190941948e-09
        top = 0.0009416409680009737 + r * top
        top = 0.013638067273103049 + r * top
        top = 0.0893922225902268 + r * top
        top = 0.2961168125292933 + r * top
        top = 0.47681788072216275 + r * top
        top = 0.2935351269467604 + r * top
        bottom = 0.0012471226299447904 + r * 2.485229007743123e-05
        bottom = 0.020852971717226738 + r * bottom
        bottom = 0.1655056441948609 + r * bottom
        bottom = 0.7089690118838051 + r * bottom
        bottom = 1.6753674305525934 + r * bottom
        bottom = 2.043654379617162 + r * bottom
        bottom = 1.0 + r * bottom
        tail = TAIL_AT_CENTRE + r * (ROOT_TWO + top / bottom)
        return where(absolute(q) <= MIDDLE, middle, where(q < 0.0, -tail, tail))

    return ops.function(value)
