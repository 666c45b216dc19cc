"""What must hold for any European option, whatever its value: parity, symmetry, derivatives, bounds."""

from __future__ import annotations

from typing import Any

import accuracy
import grids
import numpy as np

import gpu_kernels as gk

ROWS = 4000


def _market(seed: int) -> grids.Grid:
    rng = np.random.default_rng(seed)
    return grids.Grid(
        rng.uniform(50, 150, ROWS),
        rng.uniform(50, 150, ROWS),
        rng.uniform(0.05, 3, ROWS),
        rng.uniform(0.1, 0.8, ROWS),
        rng.uniform(-0.05, 0.1, ROWS),
        rng.uniform(-0.02, 0.1, ROWS),
        rng.random(ROWS) < 0.5,
    )


def _price(engine: gk.Engine, grid: grids.Grid, **changes: Any) -> Any:
    return accuracy.host(engine.price(accuracy.options(grid._replace(**changes))).price)


def test_put_call_parity(engine: gk.Engine, seed: int) -> None:
    grid = _market(seed)
    call = _price(engine, grid, is_call=np.ones(ROWS, dtype=bool))
    put = _price(engine, grid, is_call=np.zeros(ROWS, dtype=bool))
    forward = grid.spot * np.exp(-grid.dividend_yield * grid.expiry) - grid.strike * np.exp(
        -grid.rate * grid.expiry
    )
    assert np.abs(call - put - forward).max() < 1e-12


def test_spot_and_strike_change_places(engine: gk.Engine, seed: int) -> None:
    """A call on spot struck at K is a put on K struck at spot, rate and yield exchanged."""
    grid = _market(seed)
    mirrored = grids.Grid(
        grid.strike, grid.spot, grid.expiry, grid.vol, grid.dividend_yield, grid.rate, ~grid.is_call
    )
    np.testing.assert_allclose(_price(engine, grid), _price(engine, mirrored), rtol=1e-12)


def test_value_scales_with_the_currency(engine: gk.Engine, seed: int) -> None:
    grid = _market(seed)
    scaled = _price(engine, grid, spot=grid.spot * 1024.0, strike=grid.strike * 1024.0)
    np.testing.assert_allclose(scaled, 1024.0 * _price(engine, grid), rtol=1e-14)


def test_bounds_and_monotony(engine: gk.Engine, seed: int) -> None:
    grid = _market(seed)
    price = _price(engine, grid)
    sign = np.where(grid.is_call, 1.0, -1.0)
    spot_leg = grid.spot * np.exp(-grid.dividend_yield * grid.expiry)
    strike_leg = grid.strike * np.exp(-grid.rate * grid.expiry)
    assert (price >= np.maximum(sign * (spot_leg - strike_leg), 0.0) - 1e-13).all()
    assert (price <= np.where(grid.is_call, spot_leg, strike_leg)).all()
    least = price * (1.0 - 1e-14)
    assert (_price(engine, grid, vol=grid.vol * 1.01) >= least).all()
    assert (sign * (_price(engine, grid, spot=grid.spot * 1.01) - price) >= -1e-13).all()


def test_greeks_are_the_derivatives_of_the_price(engine: gk.Engine, seed: int) -> None:
    """Central differences, extrapolated once: good to 1e-7 of each Greek's size over the batch."""
    grid = _market(seed)
    greeks = engine.greeks(accuracy.options(grid))

    def value(name: str, changed: grids.Grid) -> Any:
        return accuracy.host(getattr(engine.greeks(accuracy.options(changed)), name))

    def slope(name: str, field: str, step: float) -> Any:
        at = getattr(grid, field)

        def difference(h: float) -> Any:
            up, down = grid._replace(**{field: at + h}), grid._replace(**{field: at - h})
            return (value(name, up) - value(name, down)) / (2.0 * h)

        return (4.0 * difference(step) - difference(2.0 * step)) / 3.0

    for name, of, field, step, sign in (
        ("delta", "price", "spot", 0.02, 1.0),
        ("gamma", "delta", "spot", 0.02, 1.0),
        ("vega", "price", "vol", 1e-3, 1.0),
        ("theta", "price", "expiry", 5e-4, -1.0),
        ("rho", "price", "rate", 1e-4, 1.0),
        ("vanna", "delta", "vol", 1e-3, 1.0),
        ("volga", "vega", "vol", 1e-3, 1.0),
        ("charm", "delta", "expiry", 5e-4, -1.0),
    ):
        got = accuracy.host(getattr(greeks, name))
        error = np.abs(got - sign * slope(of, field, step)).max() / np.abs(got).max()
        assert error < 1e-7, (name, error)


def test_fused_price_is_the_price(engine: gk.Engine, seed: int) -> None:
    options = accuracy.options(_market(seed))
    fused = accuracy.host(engine.greeks(options).price)
    np.testing.assert_allclose(fused, accuracy.host(engine.price(options).price), rtol=1e-13)


def test_volatility_comes_back(engine: gk.Engine, seed: int) -> None:
    grid = _market(seed)
    # Out of the money the price keeps its digits, so the volatility does, too.
    put = grid.spot * np.exp((grid.rate - grid.dividend_yield) * grid.expiry) > grid.strike
    options = accuracy.options(grid._replace(is_call=~put))
    result = engine.implied_vol(options, engine.price(options).price)
    assert (accuracy.host(result.status) == gk.Status.OK).all()
    np.testing.assert_allclose(accuracy.host(result.vol), grid.vol, rtol=1e-13)
