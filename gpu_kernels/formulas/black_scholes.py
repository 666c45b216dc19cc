"""European options: Black and Scholes (1973), a continuous dividend yield (Merton 1973), eight Greeks.

Both orientations are reduced to the option that is out of the money on the forward. With x = log(F/K), total
volatility s, z1 = -|x|/s + s/2 and z2 = -|x|/s - s/2 its value is p [Y(z1) - Y(z2)], where Y = Phi/phi and
p = S e^(-qT) phi(d1) = K e^(-rT) phi(d2). An option in the money adds the intrinsic value on the forward.
"""

from __future__ import annotations

from typing import Any

from gpu_kernels.formulas.mills import mills

INV_SQRT_2PI = 0.3989422804014327
# Below these the limits of zero volatility or zero spot are taken; both keep every product finite.
LEAST_TOTAL_VOL = 1e-80
LEAST_PRICE = 1e-300


def black_scholes(ops: Any) -> Any:
    """The functions price, price_and_greeks and row_status of one option."""
    exp, expm1, log_ratio, sqrt, absolute = ops.exp, ops.expm1, ops.log_ratio, ops.sqrt, ops.absolute
    maximum, minimum, rounded, where = ops.maximum, ops.minimum, ops.rounded, ops.where
    mills_pair = mills(ops)

    def pieces(
        spot: Any, strike: Any, expiry: Any, total_vol: Any, inv_vol: Any, rate: Any, dividend_yield: Any
    ) -> Any:
        """What price and Greeks have in common, for the option that is out of the money on the forward."""
        carry = rounded((rate - dividend_yield) * expiry)
        spot_discount = exp(-dividend_yield * expiry)
        forward = spot * spot_discount
        discounted_strike = strike * (spot_discount * exp(-carry))
        # S e^(-qT) - K e^(-rT) without losing the digits of S - K; for a large carry that way is the worse.
        close = spot_discount * ((spot - strike) - strike * expm1(-carry))
        intrinsic = where(carry < 0.5, close, forward - discounted_strike)
        x = log_ratio(maximum(spot, LEAST_PRICE), maximum(strike, LEAST_PRICE)) + carry
        call_side = x <= 0.0
        lead = where(call_side, forward, discounted_strike)
        half = 0.5 * total_vol
        h = rounded(-absolute(x) * inv_vol)
        z1 = h + half
        z2 = h - half
        upper = z1 > 0.5
        density = INV_SQRT_2PI * exp(-0.5 * (z1 * z1))
        y1, y2, slope = mills_pair(where(upper, -z1, z1), z2)
        p = lead * density
        # Phi(z1) and 1 - Phi(z1): the smaller of the two is the one without cancellation.
        small = density * y1
        n1 = where(upper, 1.0 - small, small)
        other_leg = p * y2
        value = where(upper, lead * n1 - other_leg, p * (total_vol * slope))
        return (
            value,
            intrinsic,
            call_side,
            lead,
            discounted_strike,
            spot_discount,
            z1,
            z2,
            small,
            n1,
            p,
            other_leg,
        )

    pieces = ops.function(pieces)

    def price(
        spot: Any, strike: Any, expiry: Any, vol: Any, rate: Any, dividend_yield: Any, is_call: Any
    ) -> Any:
        """Value of one option."""
        total_vol = vol * sqrt(expiry)
        inv_vol = 1.0 / maximum(total_vol, LEAST_TOTAL_VOL)
        parts = pieces(spot, strike, expiry, total_vol, inv_vol, rate, dividend_yield)
        return parts[0] + where(is_call == parts[2], 0.0, absolute(parts[1]))

    def price_and_greeks(
        spot: Any, strike: Any, expiry: Any, vol: Any, rate: Any, dividend_yield: Any, is_call: Any
    ) -> Any:
        """Value, delta, gamma, vega, theta, rho, vanna, volga, charm of one option."""
        root = sqrt(expiry)
        total_vol = vol * root
        inv_vol = 1.0 / maximum(total_vol, LEAST_TOTAL_VOL)
        parts = pieces(spot, strike, expiry, total_vol, inv_vol, rate, dividend_yield)
        (
            value,
            intrinsic,
            call_side,
            lead,
            discounted_strike,
            spot_discount,
            z1,
            z2,
            small,
            n1,
            whole,
            other_leg,
        ) = parts
        in_money = is_call != call_side
        inv_spot = 1.0 / maximum(spot, LEAST_PRICE)
        d1 = where(call_side, z1, -z2)
        d2 = where(call_side, z2, -z1)
        # Without volatility there is no curvature, at the kink too, where `whole` is not 0.
        p = where(total_vol < LEAST_TOTAL_VOL, 0.0, whole)
        # -(1 - Phi(z1)) for the option in the money: it holds one unit less of the leg that leads.
        lead_n = where(in_money, where(z1 > 0.5, -small, n1 - 1.0), n1)
        other_spot_n = where(in_money, spot_discount, 0.0) - other_leg * inv_spot
        other_strike_leg = other_leg - where(in_money, discounted_strike, 0.0)
        delta = where(call_side, spot_discount * lead_n, other_spot_n)
        strike_leg = where(call_side, other_strike_leg, -lead * lead_n)
        inv_root = vol * inv_vol
        p_spot = p * inv_spot
        # At the kink of an expired option the slopes in time from either side differ: both are given as 0.
        moving = where((expiry > 0.0) | (spot != strike), 1.0, 0.0)
        earned = moving * dividend_yield
        # In this order: both inverses may be so large that their product is infinite.
        gamma = (p_spot * inv_spot) * inv_vol
        vega = p * root
        theta = earned * (spot * delta) - (moving * rate) * strike_leg - 0.5 * (p * (vol * inv_root))
        rho = expiry * strike_leg
        vanna = -p_spot * (d2 * (root * inv_vol))
        volga = p * ((d1 * d2) * (expiry * inv_vol))
        drift_part = (rate - dividend_yield) * inv_vol - 0.5 * (d2 * (inv_root * inv_root))
        charm = earned * delta - p_spot * drift_part
        total = value + where(in_money, absolute(intrinsic), 0.0)
        return total, delta, gamma, vega, theta, rho, vanna, volga, charm

    def row_status(spot: Any, strike: Any, expiry: Any, vol: Any, rate: Any, dividend_yield: Any) -> Any:
        """Status number of one row: 0 fine, 1 expired, 2 invalid (comparisons are false for NaN)."""
        least = minimum(minimum(spot, strike), minimum(expiry, vol))
        size = spot + strike + expiry + vol + absolute(rate) + absolute(dividend_yield)
        valid = (size < 1.7e308) & (least >= 0.0)
        return where(valid, where(expiry > 0.0, 0, 1), 2)

    return ops.function(price), ops.function(price_and_greeks), ops.function(row_status)
