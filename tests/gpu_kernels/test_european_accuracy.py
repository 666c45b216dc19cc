"""European prices and Greeks against the 60-digit formula, on new random options in each run."""

from __future__ import annotations

from typing import Any

import accuracy
import grids
import numpy as np
import pytest

import gpu_kernels as gk

mp = pytest.importorskip("mpmath", reason="the exact formula needs mpmath")
mpmath_truth = pytest.importorskip("mpmath_truth")

ROWS = 2000


@pytest.fixture(scope="module")
def truths() -> dict[int, Any]:
    """Exact values by seed, shared by the engines when the seed is fixed."""
    return {}


def _exact(seed: int, truths: dict[int, Any]) -> tuple[grids.Grid, list[Any], list[Any]]:
    if seed not in truths:
        rng = np.random.default_rng(seed)
        grid = grids.joined(grids.everything(rng, ROWS), grids.at_the_switch(rng, ROWS // 4))
        pairs = [mpmath_truth.values(mpmath_truth.Option(*row)) for row in zip(*grid, strict=True)]
        truths[seed] = (grid, [value for value, _ in pairs], [scale for _, scale in pairs])
    return truths[seed]


def _check_prices(prices: Any, grid: grids.Grid, exact: list[Any], relative: float) -> None:
    errors = [abs(mp.mpf(float(price)) - value["price"]) for price, value in zip(prices, exact, strict=True)]
    size = np.maximum(grid.spot, grid.strike)
    absolute = [float(error / one) for error, one in zip(errors, size, strict=True)]
    assert max(absolute) <= accuracy.PRICE_ABSOLUTE, accuracy.worst(absolute, grid)
    close = [
        float(error / value["price"]) if value["price"] > accuracy.LEAST_PRICE * spot else 0.0
        for error, value, spot in zip(errors, exact, grid.spot, strict=True)
    ]
    assert max(close) <= relative, accuracy.worst(close, grid)


def test_price(engine: gk.Engine, seed: int, truths: dict[int, Any]) -> None:
    grid, exact, _ = _exact(seed, truths)
    result = engine.price(accuracy.options(grid))
    assert (accuracy.host(result.status) == gk.Status.OK).all()
    _check_prices(accuracy.host(result.price), grid, exact, accuracy.PRICE_RELATIVE)


def test_price_and_greeks(engine: gk.Engine, seed: int, truths: dict[int, Any]) -> None:
    grid, exact, scales = _exact(seed, truths)
    result = engine.greeks(accuracy.options(grid))
    assert (accuracy.host(result.status) == gk.Status.OK).all()
    _check_prices(accuracy.host(result.price), grid, exact, accuracy.PRICE_RELATIVE_FUSED)
    for name in accuracy.GREEKS:
        errors = [
            float(abs(mp.mpf(float(number)) - value[name]) / scale[name])
            if scale[name] > accuracy.LEAST_GREEK
            else abs(float(number) - float(value[name]))
            for number, value, scale in zip(accuracy.host(getattr(result, name)), exact, scales, strict=True)
        ]
        assert max(errors) <= accuracy.GREEK_RELATIVE, f"{name}: {accuracy.worst(errors, grid)}"


def test_price_is_nearly_exact_in_the_deepest_tails(engine: gk.Engine) -> None:
    """Prices down to 1e-300 keep their leading digits: there is no subtraction of distribution functions."""
    strike = 100.0 * np.exp(0.2 * np.linspace(5.0, 36.0, 32))
    grid = grids.Grid(*(np.full(32, x) for x in (100.0, 0.0, 1.0, 0.2, 0.0, 0.0)), np.ones(32, dtype=bool))
    grid = grid._replace(strike=strike)
    prices = accuracy.host(engine.price(accuracy.options(grid)).price)
    for row, price in zip(zip(*grid, strict=True), prices, strict=True):
        exact = mpmath_truth.price(mpmath_truth.Option(*row))
        assert exact > 1e-301
        assert abs(mp.mpf(float(price)) / exact - 1) < 1e-12


def test_price_where_a_large_carry_cancels(engine: gk.Engine, seed: int) -> None:
    grid = grids.carried_to_the_money(np.random.default_rng(seed), 400)
    exact = [{"price": mpmath_truth.price(mpmath_truth.Option(*row))} for row in zip(*grid, strict=True)]
    _check_prices(accuracy.host(engine.price(accuracy.options(grid)).price), grid, exact, 1e-12)
