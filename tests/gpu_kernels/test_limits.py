"""Zero volatility, time or prices, and rows that are no options: limits and statuses, no silent NaN."""

from __future__ import annotations

from math import exp, pi, sqrt
from typing import Any

import accuracy
import numpy as np
import pytest

import gpu_kernels as gk

NAMES = ("price", *accuracy.GREEKS)
BAD = [np.nan, np.inf, -np.inf]


def _values(engine: gk.Engine, **fields: Any) -> dict[str, float]:
    result = engine.greeks(gk.Options(**fields))
    return {name: float(accuracy.host(getattr(result, name))) for name in (*NAMES, "status")}


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("spot", [80.0, 100.0, 130.0])
def test_no_volatility_is_the_discounted_intrinsic_on_the_forward(
    engine: gk.Engine, spot: float, is_call: bool
) -> None:
    expiry, rate, dividend_yield, strike = 2.0, 0.05, 0.02, 101.0
    got = _values(
        engine,
        spot=spot,
        strike=strike,
        expiry=expiry,
        vol=0.0,
        rate=rate,
        dividend_yield=dividend_yield,
        is_call=is_call,
    )
    sign = 1.0 if is_call else -1.0
    spot_leg, strike_leg = spot * exp(-dividend_yield * expiry), strike * exp(-rate * expiry)
    inside = sign * (spot_leg - strike_leg) > 0.0
    held = sign if inside else 0.0
    assert got["status"] == gk.Status.OK
    assert got["price"] == pytest.approx(held * (spot_leg - strike_leg), rel=1e-13, abs=0.0)
    assert got["delta"] == pytest.approx(held * exp(-dividend_yield * expiry), rel=1e-14)
    assert got["rho"] == pytest.approx(held * expiry * strike_leg, rel=1e-14)
    assert got["theta"] == pytest.approx(held * (dividend_yield * spot_leg - rate * strike_leg), rel=1e-13)
    assert got["charm"] == pytest.approx(held * dividend_yield * exp(-dividend_yield * expiry), rel=1e-14)
    assert [got[name] for name in ("gamma", "vega", "vanna", "volga")] == [0.0] * 4


@pytest.mark.parametrize(
    ("spot", "price", "delta"), [(90.0, 0.0, 0.0), (100.0, 0.0, 0.5), (110.0, 10.0, 1.0)]
)
def test_expired(engine: gk.Engine, spot: float, price: float, delta: float) -> None:
    fields = {"spot": spot, "strike": 100.0, "expiry": 0.0, "vol": 0.3, "rate": 0.05, "dividend_yield": 0.02}
    call = _values(engine, is_call=True, **fields)
    put = _values(engine, is_call=False, **fields)
    assert call["status"] == put["status"] == gk.Status.EXPIRED
    assert call["price"] == price
    assert put["price"] == price - (spot - 100.0)
    assert call["delta"] == pytest.approx(delta, rel=1e-15)
    assert put["delta"] == pytest.approx(delta - 1.0, rel=1e-15)
    for name in ("gamma", "vega", "rho", "vanna", "volga"):
        assert call[name] == put[name] == 0.0
    at_kink = spot == 100.0
    held = call["delta"]
    assert call["theta"] == pytest.approx(0.0 if at_kink else held * (0.02 * spot - 0.05 * 100.0))
    assert call["charm"] == pytest.approx(0.0 if at_kink else held * 0.02)


def test_values_run_into_their_limits(engine: gk.Engine) -> None:
    """Just above zero time and zero volatility the values are those of the limit."""
    for tiny in (
        {"expiry": 1e-300, "vol": 0.2},
        {"expiry": 1.0, "vol": 1e-200},
        {"expiry": 1e-30, "vol": 1e-30},
    ):
        got = _values(engine, spot=110.0, strike=100.0, **tiny)
        assert got["price"] == pytest.approx(10.0, rel=1e-15)
        assert got["delta"] == 1.0
        assert got["status"] == gk.Status.OK


def test_without_spot_or_strike(engine: gk.Engine) -> None:
    market = {"expiry": 1.0, "vol": 0.3, "rate": 0.05, "dividend_yield": 0.02}
    no_spot = [_values(engine, spot=0.0, strike=100.0, is_call=call, **market) for call in (True, False)]
    assert no_spot[0]["price"] == 0.0
    assert no_spot[1]["price"] == pytest.approx(100.0 * exp(-0.05), rel=1e-15)
    no_strike = [_values(engine, spot=100.0, strike=0.0, is_call=call, **market) for call in (True, False)]
    assert no_strike[0]["price"] == pytest.approx(100.0 * exp(-0.02), rel=1e-15)
    assert no_strike[1]["price"] == 0.0
    for got in (*no_spot, *no_strike):
        assert all(np.isfinite(got[name]) for name in NAMES)


def test_at_the_money_price_of_an_hour(engine: gk.Engine) -> None:
    hour = 1.0 / 8766.0
    got = _values(engine, spot=100.0, strike=100.0, expiry=hour, vol=0.01)
    total = 0.01 * sqrt(hour)
    assert got["price"] == pytest.approx(100.0 * total / sqrt(2.0 * pi) * (1.0 - total**2 / 24.0), rel=1e-14)


@pytest.mark.parametrize("field", ["spot", "strike", "expiry", "vol", "rate", "dividend_yield"])
def test_a_bad_row_has_its_status_and_leaves_the_others_alone(engine: gk.Engine, field: str) -> None:
    good = {"spot": 100.0, "strike": 95.0, "expiry": 0.7, "vol": 0.25, "rate": 0.03, "dividend_yield": 0.01}
    bad = BAD if field in ("rate", "dividend_yield") else [*BAD, -1.0, -1e-300]
    column = np.array([good[field], *bad, good[field]])
    options = gk.Options(**(good | {field: column}))
    greeks, price = engine.greeks(options), engine.price(options)
    alone = engine.greeks(gk.Options(**good))
    for result in (greeks, price):
        status = accuracy.host(result.status)
        assert list(status) == [gk.Status.OK, *[gk.Status.INVALID_INPUT] * len(bad), gk.Status.OK]
        for name in type(result).COLUMNS[:-1]:
            values = accuracy.host(getattr(result, name))
            assert np.isnan(values[1:-1]).all()
            expected = float(accuracy.host(getattr(alone, name)))
            assert values[[0, -1]] == pytest.approx([expected, expected], rel=1e-13, abs=0.0)


def test_inputs_beyond_float64_are_refused_not_silent(engine: gk.Engine) -> None:
    options = gk.Options(spot=1e308, strike=1.0, expiry=1e5, vol=1e5, rate=0.0, dividend_yield=-1e4)
    result = engine.price(options)
    assert np.isnan(float(accuracy.host(result.price)))
    assert int(accuracy.host(result.status)) == gk.Status.INVALID_INPUT


def test_no_value_is_nan_without_a_status(engine: gk.Engine, seed: int) -> None:
    """Zeros, tiny, ordinary and huge numbers in every combination: NaN and INVALID_INPUT go together."""
    rng = np.random.default_rng(seed)
    sizes = np.array([0.0, 1e-308, 1e-200, 1e-30, 1e-5, 1.0, 100.0, 1e30, 1e200, 1.7e308])
    slopes = np.array([0.0, 0.05, -0.05, 1.0, 100.0, -100.0, 1e10, -1e10, 1e200])
    spot, strike, expiry, vol = rng.choice(sizes, (4, 40_000))
    rate, dividend_yield = rng.choice(slopes, (2, 40_000))
    options = gk.Options(
        spot=spot, strike=np.where(rng.random(40_000) < 0.3, spot, strike), expiry=expiry, vol=vol,
        rate=rate, dividend_yield=dividend_yield, is_call=rng.random(40_000) < 0.5,
    )  # fmt: skip
    for result in (engine.price(options), engine.greeks(options), engine.implied_vol(options, 1.0)):
        status = accuracy.host(result.status)
        for name in type(result).COLUMNS[:-1]:
            values = accuracy.host(getattr(result, name))
            # Of a volatility there is none but with status OK.
            without = status == gk.Status.INVALID_INPUT if name != "vol" else status != gk.Status.OK
            np.testing.assert_array_equal(np.isnan(values), without, err_msg=name)
            assert np.isfinite(values[~without]).all(), name
    ordinary = (rate == 0.0) & (dividend_yield == 0.0) & (spot <= 1e30) & (strike <= 1e30)
    ordinary &= (vol <= 100.0) & (expiry <= 100.0)
    assert (accuracy.host(engine.price(options).status)[ordinary] != gk.Status.INVALID_INPUT).all()


def test_an_expired_option_on_nothing_has_no_greeks(engine: gk.Engine) -> None:
    got = _values(engine, spot=0.0, strike=100.0, expiry=0.0, vol=0.2, rate=0.03)
    assert got == dict.fromkeys(NAMES, 0.0) | {"status": gk.Status.EXPIRED}


def test_prices_of_very_different_sizes(engine: gk.Engine) -> None:
    """A quotient of spot and strike that float64 cannot hold is no reason to refuse the row."""
    options = gk.Options(spot=[1e300, 1e-290], strike=[1e-290, 1e300], expiry=1.0, vol=0.2)
    result = engine.price(options)
    assert list(accuracy.host(result.status)) == [gk.Status.OK] * 2
    np.testing.assert_allclose(accuracy.host(result.price), [1e300, 0.0], rtol=1e-14)


def test_implied_vol_statuses(engine: gk.Engine) -> None:
    forward = 100.0 * exp(-0.02)
    discounted = 90.0 * exp(-0.05)
    intrinsic = forward - discounted
    cases = [
        (12.5, True, 1.0, gk.Status.OK),
        (intrinsic, True, 1.0, gk.Status.NO_TIME_VALUE),
        (intrinsic * (1.0 - 1e-12), True, 1.0, gk.Status.BELOW_INTRINSIC),
        (-1.0, True, 1.0, gk.Status.BELOW_INTRINSIC),
        (0.0, False, 1.0, gk.Status.NO_TIME_VALUE),
        (-1e-300, False, 1.0, gk.Status.BELOW_INTRINSIC),
        (1e-200, False, 1.0, gk.Status.OK),
        (forward * (1.0 + 1e-15), True, 1.0, gk.Status.ABOVE_MAXIMUM),
        (forward * (1.0 - 1e-12), True, 1.0, gk.Status.OK),
        (discounted, False, 1.0, gk.Status.ABOVE_MAXIMUM),
        (1e6, False, 1.0, gk.Status.ABOVE_MAXIMUM),
        (np.nan, True, 1.0, gk.Status.INVALID_INPUT),
        (np.inf, True, 1.0, gk.Status.INVALID_INPUT),
        (10.0, True, 0.0, gk.Status.EXPIRED),
        (10.0, True, -1.0, gk.Status.INVALID_INPUT),
        (10.0, True, np.nan, gk.Status.INVALID_INPUT),
    ]
    price, is_call, expiry, expected = (list(column) for column in zip(*cases, strict=True))
    options = gk.Options(
        spot=100.0, strike=90.0, expiry=expiry, rate=0.05, dividend_yield=0.02, is_call=np.array(is_call)
    )
    result = engine.implied_vol(options, price)
    status = accuracy.host(result.status)
    assert [gk.Status(int(one)) for one in status] == expected
    assert (np.isnan(accuracy.host(result.vol)) == (status != gk.Status.OK)).all()


def test_implied_vol_without_spot_or_strike_is_refused(engine: gk.Engine) -> None:
    options = gk.Options(spot=[0.0, 0.0, 100.0], strike=[100.0, 100.0, 0.0], expiry=1.0)
    status = accuracy.host(engine.implied_vol(options, [1.0, 0.0, 100.0]).status)
    assert list(status) == [gk.Status.ABOVE_MAXIMUM, gk.Status.NO_TIME_VALUE, gk.Status.NO_TIME_VALUE]
