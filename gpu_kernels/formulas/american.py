"""American options: spectral collocation of the exercise boundary (Andersen, Lake and Offengenden 2016).

A call is the put with spot and strike, and rate and yield, changed over (McDonald and Schroder 1998). In
units of the put's strike, with boundary B(t), X = min(1, r/q) and h(t) = log(X/B(t)), smooth pasting of the
early exercise representation (Kim 1990) reads, for each time to expiry tau, with t = tau - u the time until u
is left to expiry,

    e^(-q tau) Phi(d+(tau, B(tau))) + q int e^(-qt) Phi(d+(t, B(tau)/B(u))) dt
        = int e^(-rt) (r - q B(u))/B(tau) phi(d-(t, B(tau)/B(u)))/(vol sqrt t) dt.

Three things differ from the paper, all because they converge faster:

- What is interpolated, as a polynomial in xi = sqrt(tau/T), is h over a function that has the boundary's
  known behaviour near expiry: xi sqrt(log(e + 1/xi^2)) or, where the yield exceeds the rate, the solution of
  the leading balance (see `shape`). It is linear in the unknowns: no square root of a polynomial that may be
  negative.
- Integrals run over the angle theta, sqrt(u/tau) = sin theta, sqrt(t/tau) = cos theta: the integrand is
  smooth at both ends, so that Gauss-Legendre converges exponentially.
- Left and right of the equation are made equal by Newton's method on all nodes at once (the derivative of the
  right side with respect to h is a few more products), so that three steps replace a fixed-point iteration of
  dozens.
"""

from __future__ import annotations

from typing import Any

from gpu_kernels.formulas.mills import mills_one

INV_SQRT_2PI = 0.3989422804014327

# Early exercise of the row, seen as a put.
NEVER = 0  # worth its European value
SINGLE = 1  # exercised below one boundary
DOUBLE = 2  # exercised between two boundaries: rate and yield negative, the yield more so

# Below this total volatility the path is taken as certain; the value is wrong by 4e-9 of the spot at most.
LEAST_TOTAL_VOL = 1e-8
# Where the stock outgrows the put's strike by this many standard deviations, more time to expiry is worth
# nothing (1e-12 of the strike): the expiry is cut there, so that the boundary does not hide in the last per
# cent of it.
MOST_DRIFT_DEVIATIONS = 7.0
# log(X/B) of the perpetual option is cut here: at a zero rate it is infinite.
MOST_LOG_RATIO = 60.0
# log(X/B)/(vol sqrt tau) at expiry where the yield is above the rate (Evans, Kuske and Keller 2002: 0.451723
# sqrt 2).
EARLY_DEPTH = 0.6388332158


def american(ops: Any) -> Any:
    """The functions of one row that engines build boundaries, premiums and slopes from."""
    exp, log, sqrt, maximum, minimum, where = ops.exp, ops.log, ops.sqrt, ops.maximum, ops.minimum, ops.where
    log_ratio, absolute = ops.log_ratio, ops.absolute
    mills_ratio = mills_one(ops)

    def put_frame(
        spot: Any, strike: Any, expiry: Any, vol: Any, rate: Any, dividend_yield: Any, is_call: Any
    ) -> Any:
        """The row as a put on a strike of 1: kind, usable, scale, log spot, expiry, vol, r, q, log X.

        Rows that are not usable (expired, certain, invalid, or not SINGLE) come with harmless numbers
        instead.
        """
        r0 = where(is_call, dividend_yield, rate)
        q0 = where(is_call, rate, dividend_yield)
        top = where(is_call, strike, spot)
        bottom = where(is_call, spot, strike)
        kind = where(r0 > 0.0, SINGLE, where(q0 >= r0, NEVER, where(r0 < 0.0, DOUBLE, SINGLE)))
        total_vol = vol * sqrt(maximum(expiry, 0.0))
        drift = r0 - q0 - 0.5 * vol * vol
        usable = (
            (kind == SINGLE)
            & (total_vol > LEAST_TOTAL_VOL)
            & (total_vol < 1e3)
            & (top > 1e-290)
            & (bottom > 1e-290)
            & (top < 1e290)
            & (bottom < 1e290)
            & (absolute(r0) + absolute(q0) < 1e3)
        )
        v = where(usable, vol, 0.3)
        r = where(usable, r0, 0.05)
        q = where(usable, q0, 0.02)
        x = log_ratio(where(usable, top, 1.0), where(usable, bottom, 1.0))
        longest = MOST_DRIFT_DEVIATIONS * v / maximum(where(usable, drift, 0.0), 1e-100)
        t = minimum(where(usable, expiry, 1.0), longest * longest)
        log_x = where(q > r, log(maximum(r, 1e-300) / maximum(q, 1e-300)), 0.0)
        return kind, usable, bottom, x, t, v, r, q, minimum(log_x, 0.0)

    def perpetual(vol: Any, r: Any, q: Any, log_x: Any) -> Any:
        """log(X/B) of the perpetual put."""
        variance = vol * vol
        half = 0.5 - (r - q) / variance
        # The negative root of lambda^2/2 - half lambda - r/variance, without cancellation where half is
        # large.
        root = sqrt(half * half + 2.0 * r / variance)
        slope = where(half > 0.0, -2.0 * r / (variance * (half + root)), half - root)
        far = log_x + log(1.0 + 1.0 / maximum(-slope, 1e-30))
        return maximum(minimum(far, MOST_LOG_RATIO), 1e-12)

    def balance(w: Any, d: Any, log_rt: Any) -> Any:
        """One Newton step in w = log(x - 0.6388) on Phi(-(x + d)) = r tau C(x), see `shape`."""
        u = exp(w)
        y = EARLY_DEPTH + u + d
        # Phi(-y) is phi(y) 2/(y + sqrt(y^2 + 8/pi)) to 1 %: close enough, and as smooth.
        s = sqrt(y * y + 2.5464790894703255)
        part = 1.0 + 0.22 * u
        f = w + log_rt + 0.5 * (y * y) + log(1.0027 * (y + s) / part)
        return w - f * part / (1.0 + part * u * (y + 1.0 / s))

    balance = ops.function(balance)

    def shape(place: Any, inv_place: Any, log_square: Any, log_shape: Any, gap: Any, log_rt: Any) -> Any:
        """What h is a smooth multiple of, at xi = `place`, with its inverse and log(xi^2).

        With the yield not above the rate h has the known logarithm at expiry, and gap = 0. With the yield
        above, the boundary starts at X below the strike, x = h/(vol sqrt tau) is 0.6388 at first and leaves
        that value in a sharp bend once the strike is within reach. For a boundary at constant x smooth
        pasting reads Phi(-(x + d)) = r tau C(x), with d = log(1/X)/(vol sqrt tau) and C(x) near 0.8 u/(1 +
        0.22 u), u = x - 0.6388. Newton steps in log u from the first guess give a function with that bend, as
        smooth as the boundary itself. `gap` and `log_rt` are d and log(r tau) at xi = 1.
        """
        d = gap * inv_place
        here = log_rt + log_square
        w = balance(balance(0.382 - 0.615 * d - 0.058 * here, d, here), d, here)
        return place * where(gap > 0.0, EARLY_DEPTH + exp(w), log_shape)

    def bend(expiry: Any, vol: Any, r: Any, log_x: Any) -> Any:
        """gap and log_rt of `shape`."""
        return -log_x / (vol * sqrt(expiry)), log(maximum(r * expiry, 1e-300))

    def seed(root_tau: Any, vol: Any, r: Any, log_x: Any, far: Any) -> Any:
        """First guess of h at one node, 10 % off: from the limit at expiry to the perpetual limit `far`.

        r is what exercise at the strike earns: the rate, and a negative yield no longer paid.

        The constants were fitted to solved boundaries; they set how many Newton steps are needed, not the
        result.
        """
        a = vol * root_tau
        early = 0.64 + 1.465 * exp(0.615 * log_x / a - 0.058 * log(r * (root_tau * root_tau) + 1e-12))
        a = early * a
        return a * exp(log(1.0 + exp(1.276 * log(a / far))) * (-1.0 / 1.276))

    def edge_term(h: Any, log_x: Any, q_tau: Any, carry: Any, v: Any, inv_v: Any) -> Any:
        """Left side outside the integral, and its derivative with respect to h; v is vol sqrt(tau)."""
        d = (log_x - h + carry) * inv_v + 0.5 * v
        discount = exp(-q_tau)
        density = discount * (INV_SQRT_2PI * exp(-0.5 * (d * d)))
        lower = density * mills_ratio(-absolute(d))
        return where(d > 0.0, discount - lower, lower), -density * inv_v

    def integral_term(
        h: Any, h_u: Any, carry: Any, q_tau: Any, v: Any, inv_v: Any, cosine: Any, inv_cosine: Any
    ) -> Any:
        """Integrands at one angle: e^(-qt) Phi(d+), e^(-qt) phi(d+), e^(-rt) phi(d-), and d-/(vol sqrt t)."""
        square = cosine * cosine
        step = h_u - h
        inv = inv_v * inv_cosine
        d = (step + carry * square) * inv + 0.5 * (v * cosine)
        discount = exp(-q_tau * square)
        density = discount * (INV_SQRT_2PI * exp(-0.5 * (d * d)))
        lower = density * mills_ratio(-absolute(d))
        slope = d * inv - 1.0
        return where(d > 0.0, discount - lower, lower), density, density * exp(step), slope

    def premium_term(
        x: Any,
        h_u: Any,
        spot: Any,
        carry: Any,
        r_tau: Any,
        q_tau: Any,
        v: Any,
        inv_v: Any,
        cosine: Any,
        inv_cosine: Any,
    ) -> Any:
        """Integrand of the premium at one angle, times tau: r e^(-rt) Phi(-d-) - q S e^(-qt) Phi(-d+).

        X = log(S/X).
        """
        square = cosine * cosine
        d = (x + h_u + carry * square) * (inv_v * inv_cosine) + 0.5 * (v * cosine)
        e = d - v * cosine
        strike_leg = exp(-r_tau * square)
        spot_leg = spot * exp(-q_tau * square)
        density = INV_SQRT_2PI * exp(-0.5 * (d * d))
        spot_lower = spot_leg * (density * mills_ratio(-absolute(d)))
        # strike_leg phi(e) = spot_leg phi(d) B/S holds up to the boundary, but not where phi(d) is flushed to
        # 0.
        strike_lower = strike_leg * (INV_SQRT_2PI * exp(-0.5 * (e * e))) * mills_ratio(-absolute(e))
        strike_part = where(e > 0.0, strike_lower, strike_leg - strike_lower)
        spot_part = where(d > 0.0, spot_lower, spot_leg - spot_lower)
        return r_tau * strike_part - q_tau * spot_part

    def premium_slopes(
        x: Any,
        h_u: Any,
        spot: Any,
        carry: Any,
        r_tau: Any,
        q_tau: Any,
        log_x: Any,
        v: Any,
        inv_v: Any,
        cosine: Any,
        inv_cosine: Any,
    ) -> Any:
        """The premium's integrand and its first three derivatives with respect to spot, each times tau."""
        square = cosine * cosine
        inv = inv_v * inv_cosine
        d = (x + h_u + carry * square) * inv + 0.5 * (v * cosine)
        e = d - v * cosine
        strike_leg = exp(-r_tau * square)
        spot_leg = spot * exp(-q_tau * square)
        e_density = strike_leg * (INV_SQRT_2PI * exp(-0.5 * (e * e)))
        strike_lower = e_density * mills_ratio(-absolute(e))
        spot_lower = spot_leg * (INV_SQRT_2PI * exp(-0.5 * (d * d))) * mills_ratio(-absolute(d))
        strike_part = where(e > 0.0, strike_lower, strike_leg - strike_lower)
        spot_part = where(d > 0.0, spot_lower, spot_leg - spot_lower)
        value = r_tau * strike_part - q_tau * spot_part
        inv_spot = 1.0 / spot
        gain = r_tau - q_tau * exp(log_x - h_u)
        mass = e_density * inv * inv_spot
        m = e * inv
        first = -gain * mass - q_tau * (spot_part * inv_spot)
        bend = r_tau + gain * m
        mass = mass * inv_spot
        second = mass * bend
        third = mass * inv_spot * (gain * (inv * inv) - (2.0 + m) * bend)
        return value, first, second, third

    def unscaled(f0: Any, f1: Any, f2: Any, f3: Any, x: Any, scale: Any, is_call: Any) -> Any:
        """Value and three spot derivatives of the row, from those of its put on a strike of 1.

        The row is scale f(x): a put with x = S/K, scale = K, or a call with x = K/S, scale = S.
        """
        inv = 1.0 / scale
        ratio = x * inv
        return (
            scale * f0,
            where(is_call, f0 - x * f1, f1),
            where(is_call, ratio * x * f2, f2 * inv),
            where(is_call, -(ratio * ratio) * (3.0 * f2 + x * f3), f3 * inv * inv),
        )

    def certain_value(
        spot: Any, strike: Any, expiry: Any, rate: Any, dividend_yield: Any, is_call: Any
    ) -> Any:
        """Value at zero volatility: the best of exercise now, at expiry.

        And where the discounted payoff is stationary.
        """
        sign = where(is_call, 1.0, -1.0)
        now = sign * (spot - strike)
        last = sign * (spot * exp(-dividend_yield * expiry) - strike * exp(-rate * expiry))
        a = rate * strike
        b = dividend_yield * spot
        inside = (a * b > 0.0) & (absolute(rate - dividend_yield) > 1e-14)
        ratio = log(where(inside, absolute(a), 1.0)) - log(where(inside, absolute(b), 1.0))
        time = where(inside, ratio / where(inside, rate - dividend_yield, 1.0), 0.0)
        time = minimum(maximum(time, 0.0), expiry)
        between = sign * (spot * exp(-dividend_yield * time) - strike * exp(-rate * time))
        return maximum(maximum(now, last), maximum(between, 0.0))

    made = (
        put_frame, perpetual, bend, shape, seed, edge_term, integral_term,
        premium_term, premium_slopes, unscaled, certain_value,
    )  # fmt: skip
    return tuple([ops.function(one) for one in made])
