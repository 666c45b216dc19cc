"""The ratio Y(z) = Phi(z)/phi(z) and its differences, free of cancellation.

Black's formula out of the money is phi(d1) [Y(d1) - Y(d2)] times the forward. Subtracting two values of Y
loses all digits when the total volatility is small. Here Y is one polynomial P in w = (z + 4)/(z - 5), which
maps -inf < z <= 1/2 to 1 > w >= -1, and the divided difference of a polynomial comes out of the same Horner
scheme as its values, with nothing subtracted:

    Y(z1) - Y(z2) = (w1 - w2) P[w1, w2],   w1 - w2 = 9 (z2 - z1) / ((z1 - 5)(z2 - 5)).

The map is that of Schonfelder (1978) for erfc, shifted. Even and odd powers are two schemes in w^2 that run
side by side: the chain of dependent operations, which limits the speed, is half as long. Degree 24 leaves
1.3e-17 in the values and 1e-14 of the slope where it is least; coefficients by Chebyshev interpolation at 60
digits.
"""

from __future__ import annotations

from typing import Any

# Above this the polynomial is not valid; take Phi(z) = 1 - phi(z) Y(-z) there.
MILLS_HIGHEST = 0.5


def mills(ops: Any) -> Any:
    """mills_pair(z1, z2): Y(z1), Y(z2) and (Y(z1) - Y(z2))/(z1 - z2), for z1 and z2 up to 1/2."""

    def mills_pair(z1: Any, z2: Any) -> Any:
        a = z1 - 5.0
        b = z2 - 5.0
        nine_over_ab = 9.0 / (a * b)
        u = 1.0 + b * nine_over_ab
        v = 1.0 + a * nine_over_ab
        uu = u * u
        vv = v * v
        even = 7.231891508489617e-10
        even_slope = even
        even = even * vv - 8.265395772228804e-09
        even_slope = even_slope * uu + even
        even = even * vv + 5.451303458824406e-08
        even_slope = even_slope * uu + even
        even = even * vv - 3.015399794769437e-07
        even_slope = even_slope * uu + even
        even = even * vv + 1.6813831439765554e-06
        even_slope = even_slope * uu + even
        even = even * vv - 1.025541808466422e-05
        even_slope = even_slope * uu + even
        even = even * vv + 6.739586164019103e-05
        even_slope = even_slope * uu + even
        even = even * vv - 0.0004011731543474697
        even_slope = even_slope * uu + even
        even = even * vv + 0.0003028583937870352
        even_slope = even_slope * uu + even
        even = even * vv + 0.05141198398821105
        even_slope = even_slope * uu + even
        even = even * vv + 0.23933270740553042
        even_slope = even_slope * uu + even
        even = even * vv + 0.45465142087470717
        even_slope = even_slope * uu + even
        even = even * vv + 0.23665238291356067
        odd = -2.104417069277904e-10
        odd_slope = odd
        odd = odd * vv + 4.3943060649722406e-10
        odd_slope = odd_slope * uu + odd
        odd = odd * vv + 1.1720025561514565e-08
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 1.2731682069959258e-07
        odd_slope = odd_slope * uu + odd
        odd = odd * vv + 6.782357862337394e-07
        odd_slope = odd_slope * uu + odd
        odd = odd * vv + 2.352096125984935e-07
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 6.98106700884055e-05
        odd_slope = odd_slope * uu + odd
        odd = odd * vv + 0.0012937025367348658
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 0.01312500353418291
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 0.12751509965772004
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 0.3620791193195169
        odd_slope = odd_slope * uu + odd
        odd = odd * vv - 0.4805142151118161
        # P = E(w^2) + w O(w^2): its divided difference from those of E and O.
        slope = odd + (u + v) * (even_slope + u * odd_slope)
        dydz = -nine_over_ab * slope
        y2 = even + v * odd
        return y2 + dydz * (z1 - z2), y2, dydz

    return ops.function(mills_pair)


def mills_one(ops: Any) -> Any:
    """mills_ratio(z): Y(z) for z up to 1/2."""

    def mills_ratio(z: Any) -> Any:
        v = 1.0 + 9.0 / (z - 5.0)
        vv = v * v
        even = 7.231891508489617e-10
        even = even * vv - 8.265395772228804e-09
        even = even * vv + 5.451303458824406e-08
        even = even * vv - 3.015399794769437e-07
        even = even * vv + 1.6813831439765554e-06
        even = even * vv - 1.025541808466422e-05
        even = even * vv + 6.739586164019103e-05
        even = even * vv - 0.0004011731543474697
        even = even * vv + 0.0003028583937870352
        even = even * vv + 0.05141198398821105
        even = even * vv + 0.23933270740553042
        even = even * vv + 0.45465142087470717
        even = even * vv + 0.23665238291356067
        odd = -2.104417069277904e-10
        odd = odd * vv + 4.3943060649722406e-10
        odd = odd * vv + 1.1720025561514565e-08
        odd = odd * vv - 1.2731682069959258e-07
        odd = odd * vv + 6.782357862337394e-07
        odd = odd * vv + 2.352096125984935e-07
        odd = odd * vv - 6.98106700884055e-05
        odd = odd * vv + 0.0012937025367348658
        odd = odd * vv - 0.01312500353418291
        odd = odd * vv - 0.12751509965772004
        odd = odd * vv - 0.3620791193195169
        odd = odd * vv - 0.4805142151118161
        return even + v * odd

    return ops.function(mills_ratio)
