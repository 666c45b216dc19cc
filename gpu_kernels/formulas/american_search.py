"""The search for an American option's implied volatility: European value exactly, premium by interpolation.

The value is the European one, known in closed form with its vega, and the premium of early exercise, a smooth
function of volatility that costs a boundary to compute. After each evaluation the premium is replaced by the
parabola through its last three values (a constant, a line at first), and the volatility at which European
value and parabola add up to the price is found by Newton's method, which costs next to nothing. The error
falls with the order 1.84 and a small factor, in the wings at once, where there is hardly a premium. A bracket
guards the search where the option is exercised now below some volatility, and the value flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_kernels.formulas.black_scholes import black_scholes

LOWEST_VOL = 1e-4
HIGHEST_TOTAL_VOL = 40.0
# The price is met this closely, relative to spot and strike, or the bracket is this narrow, relative to the
# volatility.
PRICE_TOLERANCE = 1e-15
VOL_TOLERANCE = 1e-13
# What interpolation leaves is less than the product of the last two steps: below this, relative to the
# volatility, the next evaluation would only confirm it.
LAST_STEPS = 1e-14
LARGEST_LAST_STEP = 1e-6


def american_search(ops: Any, function: Callable[..., Any]) -> Any:
    """advance(...): what one evaluation tells of the volatility, and where to evaluate next.

    `function` makes functions that are called, as opposed to those of `ops`, which may be pasted in.
    """
    maximum, minimum, where, absolute = ops.maximum, ops.minimum, ops.where, ops.absolute
    _, price_and_greeks, _ = black_scholes(ops)

    def newton(
        y: Any, target: Any, spot: Any, strike: Any, expiry: Any, rate: Any, dividend_yield: Any,
        is_call: Any, x0: Any, p0: Any, d1: Any, x1: Any, d2: Any,
    ) -> Any:  # fmt: skip
        """One step on European value + interpolated premium = target."""
        nine = price_and_greeks(spot, strike, expiry, y, rate, dividend_yield, is_call)
        gap = (nine[0] - target) + p0 + (y - x0) * (d1 + (y - x1) * d2)
        slope = nine[3] + d1 + d2 * ((y - x0) + (y - x1))
        next_y = y - gap / where(slope > 0.0, slope, 1e-300)
        return minimum(maximum(next_y, 0.5 * y), 2.0 * y)

    newton = function(newton)

    def advance(
        target: Any, scale: Any, spot: Any, strike: Any, expiry: Any, rate: Any, dividend_yield: Any,
        is_call: Any, x: Any, value: Any, count: Any, x1: Any, p1: Any, x2: Any, p2: Any,
        low: Any, high: Any, low_seen: Any, high_seen: Any, halve: Any,
    ) -> Any:  # fmt: skip
        """After an evaluation at x, with `count` before it, at x1 and x2 last, where the premium was p1, p2.

        The bracket is (low, high); the flags say whether each end is an evaluated one, the last one whether
        to halve it next, come what may. Gives whether the
        search is over, the volatility found or to evaluate next, the premium at x, and the bracket with its
        flags.
        """
        miss = value - target
        below = miss < 0.0
        low = where(below, maximum(low, x), low)
        high = where(below, high, minimum(high, x))
        low_seen = where(below, 1.0, low_seen)
        high_seen = where(below, high_seen, 1.0)
        europe = price_and_greeks(spot, strike, expiry, x, rate, dividend_yield, is_call)[0]
        p0 = value - europe
        one = (count > 0.5) & (x != x1)
        two = (count > 1.5) & one & (x1 != x2) & (x != x2)
        d1 = where(one, (p0 - p1) / where(one, x - x1, 1.0), 0.0)
        d12 = where(two, (p1 - p2) / where(two, x1 - x2, 1.0), 0.0)
        d2 = where(two, (d1 - d12) / where(two, x - x2, 1.0), 0.0)
        y = newton(x, target, spot, strike, expiry, rate, dividend_yield, is_call, x, p0, d1, x1, d2)
        y = newton(y, target, spot, strike, expiry, rate, dividend_yield, is_call, x, p0, d1, x1, d2)
        y = newton(y, target, spot, strike, expiry, rate, dividend_yield, is_call, x, p0, d1, x1, d2)
        y = newton(y, target, spot, strike, expiry, rate, dividend_yield, is_call, x, p0, d1, x1, d2)
        step = absolute(y - x)
        # Written so that NaN is outside.
        inside = (y > low) & (y < high)
        last = (
            inside & one & (step <= LARGEST_LAST_STEP * x) & (step * absolute(x - x1) <= LAST_STEPS * x * x)
        )
        met = absolute(miss) <= PRICE_TOLERANCE * scale
        narrow = high - low <= VOL_TOLERANCE * high
        down = maximum(0.5 * x, low)
        up = minimum(2.0 * x, high)
        halves = 0.5 * (low + high)
        other = where(low_seen < 0.5, down, where(high_seen < 0.5, up, halves))
        following = where(inside & (halve < 0.5), y, other)
        over = met | narrow | last
        return over, where(met | narrow, x, following), p0, low, high, low_seen, high_seen

    return function(advance)
