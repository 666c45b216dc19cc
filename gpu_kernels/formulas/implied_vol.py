"""The volatility that a European price implies, to the last digits, in a fixed number of operations.

The price is reduced to the option out of the money on the forward, in units of what that option is worth at
infinite volatility: 0 < c < 1. With A = |log(F/K)| and total volatility s, c(s) = phi(z1) [Y(z1) - Y(z2)], z
= -A/s +- s/2 (see black_scholes). Following Jaeckel, "Let's Be Rational" (2015), the equation is solved in
log c below z1 = 1/2 and in log(1 - c) above, where it is nearly straight, by Householder's method of fourth
order. What differs:

- both logarithms and all derivatives come from the same pair of Mills ratios, without exp;
- the first guess is in closed form and within 10 % for A < 18, so two steps are enough (after the first the
  error is below 5e-6, after the second below 1e-20 in exact arithmetic for A < 18);
- log(F/K) and the discounting are carried beyond float64, so that the answer is limited by the price alone.

No branch and no loop: every lane of a vector does the same.
"""

from __future__ import annotations

from typing import Any

from gpu_kernels.formulas.black_scholes import black_scholes
from gpu_kernels.formulas.mills import mills

SQRT_2PI = 2.5066282746310002
LEAST_PRICE = 1e-300
# In units of its maximum: below this a float64 price has no more than a few digits.
LEAST_TIME_VALUE = 1e-307
# A price of which only this part is left after intrinsic value has been taken away is rounding noise.
NOISE = 1e-15
# A second step larger than this means that its fourth-order remainder may show in the result.
LARGEST_LAST_STEP = 3e-4


def implied_vol(ops: Any) -> Any:
    """The function implied_vol of one option: its volatility and status number."""
    exp, expm1_parts, fma, where = ops.exp, ops.expm1_parts, ops.fma, ops.where
    sqrt, log_ratio, log_ratio_parts = ops.sqrt, ops.log_ratio, ops.log_ratio_parts
    absolute, maximum, minimum = ops.absolute, ops.maximum, ops.minimum
    mills_pair = mills(ops)
    row_status = black_scholes(ops)[2]

    def bachelier(ratio: Any) -> Any:
        """z > 0 with [phi(z) - z Phi(-z)]/z = 1/ratio, to 2e-4 of z (rational fit in log(1 + ratio))."""
        v = where(ratio < 1e-8, ratio, log_ratio(1.0 + ratio, 1.0))
        above = v * (0.0922963538 + v * (0.0253750804 + v * 0.000402048319))
        above = 0.398946906 + v * (0.38549127 + above)
        below = v * (0.118208288 + v * (0.0193154032 + v * 0.000284679138))
        below = 1.0 + v * (0.467750263 + below)
        return v * above / (below * sqrt(1.0 + v))

    bachelier = ops.function(bachelier)

    def first_guess(a: Any, c: Any, rest: Any) -> Any:
        """Total volatility at which the option is worth c = 1 - rest, to 10 %."""
        # Small volatility: the normal model, its price corrected once for terms of order s^2.
        ratio = minimum(a * exp(0.5 * a) / c, 1e300)
        z = bachelier(ratio)
        half = minimum(0.5 * a / z, maximum(z, 2.0))
        z = bachelier(ratio * exp(half * half * (1.0 / (3.0 + z * z) - 0.5)))
        small = a / z
        # Near and above the inflection at d1 = 0, where c = centre: Phi(d1) nearly in proportion to c below
        # and 1 - Phi(d1) to 1 - c above. Mills ratio after Komatsu, inverse error function after Winitzki.
        width = sqrt(2.0 * a)
        centre = 0.5 - 0.7978845608028654 / (width + sqrt(width * width + 2.5464790894703255))
        above = c > centre
        tail = minimum(0.5 * where(above, rest / (1.0 - centre), c / centre), 0.5)
        log_term = log_ratio(maximum(4.0 * tail * (1.0 - tail), 1e-300), 1.0)
        b = 4.330746750799873 + 0.5 * log_term
        r = log_term * -6.802721088435375
        d1 = sqrt(2.0 * r / (sqrt(b * b + r) + b))
        root = sqrt(d1 * d1 + 2.0 * a)
        large = where(above, root + d1, 2.0 * a / (root + d1))
        take_small = where(above, small < 1.6, (d1 > 3.0) | (a < 5.0))
        return where(take_small, small, large)

    first_guess = ops.function(first_guess)

    def step(s: Any, a: Any, a_low: Any, c: Any, rest: Any) -> Any:
        """What to add to s: one step of Householder's method of fourth order."""
        inv_s = 1.0 / s
        h = -a / s
        half = 0.5 * s
        z1 = h + half
        z2 = h - half
        upper = z1 > 0.5
        y1, y2, slope = mills_pair(where(upper, -z1, z1), z2)
        # c / phi(z1), or -(1 - c) / phi(z1): the derivative of either logarithm is the inverse.
        d = where(upper, -(y1 + y2), s * slope)
        u = 1.0 / d
        gap = log_ratio(absolute(d), SQRT_2PI * where(upper, rest, c)) - 0.5 * (z1 * z1) - a_low * (y2 * u)
        newton = -gap * d
        curve = z1 * z2 * inv_s
        gamma = curve - u
        h_s = h * inv_s
        delta = (curve * curve - 0.25) - 3.0 * (h_s * h_s + curve * u) + 2.0 * (u * u)
        above = newton * (1.0 + 0.5 * (gamma * newton))
        return above / (1.0 + newton * (gamma + newton * (delta * 0.16666666666666666)))

    step = ops.function(step)

    def implied(
        spot: Any, strike: Any, expiry: Any, rate: Any, dividend_yield: Any, is_call: Any, price: Any
    ) -> Any:
        """Volatility and status number of one option; the volatility means nothing unless the status is 0."""
        # Each product and difference with what its rounding loses.
        drift = rate - dividend_yield
        minus = drift - rate
        drift_low = (rate - (drift - minus)) - (dividend_yield + minus)
        carry = drift * expiry
        carry_low = fma(drift, expiry, -carry) + drift_low * expiry
        dividend = dividend_yield * expiry
        dividend_low = fma(dividend_yield, expiry, -dividend)
        # e^(-qT) and e^((q-r)T) - 1 as sums of two numbers.
        discount_less_one, discount_rest = expm1_parts(-dividend)
        nearly = 1.0 + discount_less_one
        discount_rest = ((1.0 - nearly) + discount_less_one) + (discount_rest - nearly * dividend_low)
        spot_discount = nearly + discount_rest
        discount_low = discount_rest - (spot_discount - nearly)
        growth = exp(-carry)
        growth_less_one, growth_low = expm1_parts(-carry)
        growth_low = growth_low - growth * carry_low
        forward = spot * spot_discount
        discounted_strike = strike * (spot_discount * (growth - growth * carry_low))
        # Deep in the money little time value is left of a price: intrinsic value is taken from it to twice
        # the precision, as e^(-qT) [(S - K) - K (e^((q-r)T) - 1)].
        gap = spot - strike
        back = gap - spot
        gap_low = (spot - (gap - back)) - (strike + back)
        inner = fma(-strike, growth_less_one, gap)
        rest_of_gap = gap - inner
        back = rest_of_gap - gap
        inner_low = (gap - (rest_of_gap - back)) - (inner + back)
        inner_low = fma(-strike, growth_less_one, rest_of_gap) + inner_low
        inner_low = inner_low + (gap_low - strike * growth_low)
        intrinsic = spot_discount * inner
        intrinsic_low = spot_discount * inner_low + discount_low * inner
        intrinsic_low = fma(spot_discount, inner, -intrinsic) + intrinsic_low

        log_high, log_low = log_ratio_parts(maximum(spot, LEAST_PRICE), maximum(strike, LEAST_PRICE))
        # What rounding takes from x: log_high - x is kept as two numbers, for one may be too short for it.
        x = fma(drift, expiry, log_high)
        less = log_high - x
        back = less - log_high
        less_low = (log_high - (less - back)) - (x + back)
        x_low = (fma(drift, expiry, less) + less_low) + (log_low + drift_low * expiry)
        call_side = x <= 0.0
        a = maximum(absolute(x), LEAST_PRICE)
        a_low = where(call_side, -x_low, x_low)

        worth = where(is_call == call_side, 0.0, absolute(intrinsic))
        worth_low = where(is_call == call_side, 0.0, where(intrinsic < 0.0, -intrinsic_low, intrinsic_low))
        time_value = (price - worth) - worth_low
        left = where(is_call, forward, discounted_strike) - price
        lead = where(call_side, forward, discounted_strike)
        inv_lead = 1.0 / maximum(lead, LEAST_PRICE)
        c = maximum(time_value * inv_lead, LEAST_TIME_VALUE)
        rest = maximum(left * inv_lead, LEAST_PRICE)

        s = first_guess(a, c, rest)
        s = s + step(s, a, a_low, c, rest)
        last = step(s, a, a_low, c, rest)
        s = s + last

        noise = NOISE * worth
        # Written so that NaN counts as not converged.
        solved = where(absolute(last) < LARGEST_LAST_STEP * s, 0, 5)
        solved = where(time_value * inv_lead > LEAST_TIME_VALUE, solved, 5)
        solved = where(left > 0.0, solved, 4)
        solved = where(time_value > noise, solved, 6)
        solved = where(time_value < -noise, 3, solved)
        # The row's own status, with a volatility that is always fine; a price that is not finite is bad, too.
        row = row_status(spot, strike, expiry, 0.0 * expiry, rate, dividend_yield)
        row = where(price - price == 0.0, row, 2)
        return s / sqrt(expiry), where(row == 0, solved, row)

    return ops.function(implied)
