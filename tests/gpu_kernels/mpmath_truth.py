"""European values at 60 digits, written from the textbook formula and independent of the package under test.

Each function takes float64 inputs as exact numbers. The two legs are subtracted as they stand: sixty digits
leave room for the cancellation that the float64 formula has to avoid.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mpmath as mp

DIGITS = 60
NAMES = ("price", "delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


class Option(NamedTuple):
    """One European option; any numbers that mpmath takes."""

    spot: Any
    strike: Any
    expiry: Any
    vol: Any
    rate: Any
    dividend_yield: Any
    is_call: bool


class Terms(NamedTuple):
    """What the value is put together from."""

    sign: int
    d1: Any
    d2: Any
    spot_discount: Any
    strike_discount: Any


def _cdf(z: Any) -> Any:
    return mp.erfc(-z / mp.sqrt(2)) / 2


def _pdf(z: Any) -> Any:
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def _exact(option: Option) -> Option:
    return Option(*(mp.mpf(float(number)) for number in option[:6]), bool(option.is_call))


def _terms(o: Option) -> Terms:
    total = o.vol * mp.sqrt(o.expiry)
    d1 = (mp.log(o.spot / o.strike) + (o.rate - o.dividend_yield) * o.expiry) / total + total / 2
    spot_discount = mp.exp(-o.dividend_yield * o.expiry)
    return Terms(1 if o.is_call else -1, d1, d1 - total, spot_discount, mp.exp(-o.rate * o.expiry))


def price(option: Option) -> Any:
    """Value of one option as an mpf."""
    with mp.workdps(DIGITS):
        o = _exact(option)
        t = _terms(o)
        call = o.spot * t.spot_discount * _cdf(t.sign * t.d1)
        return t.sign * (call - o.strike * t.strike_discount * _cdf(t.sign * t.d2))


def price_at_vol(option: Option, vol: Any) -> tuple[Any, Any]:
    """Value and vega of one option at a volatility of any precision."""
    with mp.workdps(DIGITS):
        o = _exact(option)._replace(vol=mp.mpf(vol))
        t = _terms(o)
        call = o.spot * t.spot_discount * _cdf(t.sign * t.d1)
        value = t.sign * (call - o.strike * t.strike_discount * _cdf(t.sign * t.d2))
        return value, o.spot * t.spot_discount * _pdf(t.d1) * mp.sqrt(o.expiry)


def values(option: Option) -> tuple[dict[str, Any], dict[str, Any]]:
    """Price and Greeks of one option, and the scale of each: the sum of the sizes of its terms."""
    with mp.workdps(DIGITS):
        o = _exact(option)
        t = _terms(o)
        root = mp.sqrt(o.expiry)
        total = o.vol * root
        carry = o.rate - o.dividend_yield
        density = t.spot_discount * _pdf(t.d1)
        spot_leg = o.spot * t.spot_discount * _cdf(t.sign * t.d1)
        strike_leg = o.strike * t.strike_discount * _cdf(t.sign * t.d2)
        vega = o.spot * density * root
        decay = o.spot * density * o.vol / (2 * root)
        slopes = (carry / total, t.d2 / (2 * o.expiry))
        value = {
            "price": t.sign * (spot_leg - strike_leg),
            "delta": t.sign * t.spot_discount * _cdf(t.sign * t.d1),
            "gamma": density / (o.spot * total),
            "vega": vega,
            "theta": -decay + t.sign * (o.dividend_yield * spot_leg - o.rate * strike_leg),
            "rho": t.sign * o.expiry * strike_leg,
            "vanna": -density * t.d2 / o.vol,
            "volga": vega * t.d1 * t.d2 / o.vol,
            "charm": t.sign * o.dividend_yield * t.spot_discount * _cdf(t.sign * t.d1)
            - density * (slopes[0] - slopes[1]),
        }
        scale = {name: abs(number) for name, number in value.items()}
        scale["theta"] = decay + abs(o.dividend_yield * spot_leg) + abs(o.rate * strike_leg)
        scale["vanna"] = density * (abs(t.d1) + total) / o.vol
        scale["volga"] = vega * (abs(t.d1) + total) ** 2 / o.vol
        scale["charm"] = abs(o.dividend_yield) * t.spot_discount * _cdf(t.sign * t.d1)
        scale["charm"] += density * (abs(slopes[0]) + abs(slopes[1]))
        return value, scale
