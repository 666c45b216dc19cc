"""Implied vols against 60-digit arithmetic, on new random and adversarial options in each run."""

from __future__ import annotations

from typing import Any

import accuracy
import grids
import numpy as np
import pytest
from numpy.typing import NDArray

import gpu_kernels as gk

mp = pytest.importorskip("mpmath", reason="the exact formula needs mpmath")
mpmath_truth = pytest.importorskip("mpmath_truth")

ROWS = 1200


def _quoted(grid: grids.Grid) -> tuple[grids.Grid, NDArray[np.float64]]:
    exact = [float(mpmath_truth.price(mpmath_truth.Option(*row))) for row in zip(*grid, strict=True)]
    return grid, np.array(exact)


def _time_value(option: Any, price: float) -> Any:
    with mp.workdps(60):
        spot, strike, expiry, _, rate, dividend_yield = (mp.mpf(float(number)) for number in option[:6])
        forward = spot * mp.exp(-dividend_yield * expiry) - strike * mp.exp(-rate * expiry)
        return mp.mpf(price) - max(mp.mpf(0), forward if option.is_call else -forward)


def _error(option: Any, price: float, vol: float) -> float:
    """Error in units of what is allowed."""
    value, vega = mpmath_truth.price_at_vol(option, option.vol)
    strong = vega * option.vol > accuracy.STRONG_VEGA * price
    if strong and _time_value(option, price) > accuracy.STRONG_TIME_VALUE * option.spot:
        # The price was rounded to float64; the vol that belongs to the rounded one is a Newton step away.
        exact = mp.mpf(float(option.vol)) + (mp.mpf(price) - value) / vega
        return float(abs(mp.mpf(vol) / exact - 1)) / accuracy.VOL_RELATIVE
    again, vega = mpmath_truth.price_at_vol(option, vol)
    allowed = max(accuracy.REPRICE_RELATIVE, 4 * accuracy.EPSILON * float(vega * vol / again))
    return float(abs(again / mp.mpf(price) - 1)) / allowed


def test_implied_vol(engine: gk.Engine, seed: int) -> None:
    grid = grids.everything(np.random.default_rng(seed), ROWS)
    _check(engine, grid, least_solved=ROWS // 2)


def test_implied_vol_where_a_large_carry_cancels(engine: gk.Engine, seed: int) -> None:
    _check(engine, grids.carried_to_the_money(np.random.default_rng(seed), 1500), least_solved=750)


def test_implied_vol_of_little_time_value_over_much_intrinsic(engine: gk.Engine, seed: int) -> None:
    """Where intrinsic value is a difference of larger numbers, the price alone is to limit the vol."""
    rng = np.random.default_rng(seed)
    grid = grids.joined(grids.deep_with_a_carry(rng, 1000), grids.at_the_switch(rng, 300))
    _check(engine, grid, least_solved=500, most=0.6)


def _check(engine: gk.Engine, grid: grids.Grid, least_solved: int, most: float = 1.0) -> None:
    """Errors in units of what is allowed are to be below `most`."""
    grid, prices = _quoted(grid)
    result = engine.implied_vol(accuracy.options(grid), prices)
    vols, status = accuracy.host(result.vol), accuracy.host(result.status)
    assert (np.isnan(vols) == (status != gk.Status.OK)).all()
    errors = [0.0] * prices.size
    solved = 0
    for i, row in enumerate(zip(*grid, strict=True)):
        option = mpmath_truth.Option(*row)
        if status[i] == gk.Status.OK:
            errors[i] = _error(option, float(prices[i]), float(vols[i]))
            solved += 1
        else:
            _check_refused(option, float(prices[i]), gk.Status(int(status[i])))
    assert solved >= least_solved
    assert max(errors) <= most, accuracy.worst(errors, grid)


def _check_refused(option: Any, price: float, status: gk.Status) -> None:
    """A price without a vol is one that float64 cannot tell from a bound."""
    value = _time_value(option, price)
    if price < 1e-300:
        # Among the smallest float64 numbers few digits are left, and some engines take them for 0.
        assert status in (gk.Status.NOT_CONVERGED, gk.Status.NO_TIME_VALUE)
    elif status in (gk.Status.NO_TIME_VALUE, gk.Status.BELOW_INTRINSIC):
        assert value <= 3e-15 * price, (option, status)
    else:
        assert status == gk.Status.ABOVE_MAXIMUM
        with mp.workdps(60):
            asset = (option.spot, option.dividend_yield) if option.is_call else (option.strike, option.rate)
            most = mp.mpf(float(asset[0])) * mp.exp(-mp.mpf(float(asset[1])) * mp.mpf(float(option.expiry)))
            assert most - price <= 3e-15 * most, option


def test_volatility_comes_back_from_the_deepest_wings(engine: gk.Engine) -> None:
    """Deep wings, where a price of 1e-150 still says the volatility to the last digits."""
    vol = 0.2
    strike = 100.0 * np.exp(vol * np.linspace(-26.0, 26.0, 105))
    options = gk.Options(spot=100.0, strike=strike, expiry=1.0, vol=vol, is_call=strike > 100.0)
    prices = np.array(
        [
            float(mpmath_truth.price(mpmath_truth.Option(100.0, k, 1.0, vol, 0.0, 0.0, k > 100.0)))
            for k in strike
        ]
    )
    result = engine.implied_vol(options, prices)
    assert (accuracy.host(result.status) == gk.Status.OK).all()
    assert np.abs(accuracy.host(result.vol) / vol - 1).max() < 2e-15
