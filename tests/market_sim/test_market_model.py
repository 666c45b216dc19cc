"""The market model: reproducible, without arbitrage in the mean, tied together as its parameters say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market_sim.model import Dynamics, Market
from market_sim.streams import stream
from market_sim.universe import UNIVERSE, Underlying

QUIET = Dynamics(premium=0.0, crash_rate=0.0, news_rate=0.0)


def lone(symbol: str) -> Underlying:
    """An underlying with no ties to others."""
    return Underlying(symbol, 100.0, 0.3, 0.05, 0.02, 0.0, "none", 0.0, american=False)


def test_the_same_seed_gives_the_same_market(seed: int) -> None:
    first, second, other = Market(UNIVERSE, seed), Market(UNIVERSE, seed), Market(UNIVERSE, seed + 1)
    for market in (first, second, other):
        for dt in (1e-6, 0.01, 1e-8, 1 / 252):
            market.advance(dt)
    np.testing.assert_array_equal(first.spot, second.spot)
    np.testing.assert_array_equal(first.variance, second.variance)
    assert not np.any(first.spot == other.spot)


def test_a_further_underlying_changes_no_other(seed: int) -> None:
    few, many = Market(UNIVERSE[:3], seed), Market((UNIVERSE[9], *UNIVERSE[:3]), seed)
    for market in (few, many):
        market.advance(0.5)
    np.testing.assert_array_equal(few.spot, many.spot[1:])


def test_streams_of_different_purposes_differ(seed: int) -> None:
    drawn = [stream(seed, *name).random() for name in (("a",), ("b",), ("a", 1), ("a", "1", ""), ("a1",))]
    assert len(set(drawn)) == len(drawn)
    assert stream(7, "golden").integers(0, 2**32) == stream(7, "golden").integers(0, 2**32)


def test_price_and_variance_have_the_expected_means(seed: int) -> None:
    paths, years = 4000, 0.25
    dynamics = replace(QUIET, news_rate=40.0, news_sd=0.5, common_variance=0.0)
    market = Market([lone(f"X{row}") for row in range(paths)], seed, dynamics)
    market.variance = market.variance * 2.0
    market.advance(years)
    relative = market.spot / (100.0 * np.exp(0.03 * years))
    assert abs(relative.mean() - 1) < 5.5 * relative.std() / paths**0.5
    # The expectation of a square-root process is an exponential; its noise only adds spread.
    decay = np.exp(-dynamics.mean_reversion * years)
    assert abs(market.variance.mean() - 0.09 * (1 + decay)) < 5.5 * market.variance.std() / paths**0.5


def test_crashes_add_neither_drift_nor_variance_in_the_mean(seed: int) -> None:
    years, runs = 0.05, 300
    dynamics = Dynamics(premium=0.0, crash_rate=40.0, news_rate=0.0, crash_variance=5.0)
    relative, variance = np.empty(runs), np.empty(runs)
    for run in range(runs):
        market = Market(UNIVERSE[:1], seed + run, dynamics)
        market.advance(years)
        relative[run] = market.spot[0] / (UNIVERSE[0].spot * np.exp(market._carry[0] * years))
        variance[run] = market.variance[0] / market.long_run_variance[0]
    assert abs(relative.mean() - 1) < 5.5 * relative.std() / runs**0.5
    assert abs(variance.mean() - 1) < 5.5 * variance.std() / runs**0.5
    assert relative.min() < 0.9  # two crashes in the mean did happen


def test_average_variance_is_the_mean_of_what_is_expected() -> None:
    market = Market(UNIVERSE[:2], 1)
    market.variance = market.variance * np.array([0.25, 4.0])
    times = np.linspace(0.0, 0.5, 20_001)
    decay = np.exp(-market.dynamics.mean_reversion * times)
    for place in range(2):
        long_run = market.long_run_variance[place]
        path = long_run + (market.variance[place] - long_run) * decay
        assert float(market.average_variance(place, 0.5)) == pytest.approx(
            np.trapezoid(path, times) / 0.5, rel=1e-8
        )
    np.testing.assert_allclose(market.average_variance([0, 1], 0.0), market.variance)


def test_returns_are_correlated_as_the_parameters_say(seed: int) -> None:
    market = Market(UNIVERSE[:4], seed, QUIET)
    steps = 6000
    log_spot, variance = np.empty((steps, 4)), np.empty((steps, 4))
    for step in range(steps):
        market.advance(1e-4)
        log_spot[step], variance[step] = market.log_spot, market.variance
    returns, changes = np.diff(log_spot, axis=0), np.diff(variance, axis=0)
    found = np.corrcoef(returns.T)
    spx, aapl, nvda, jpm = UNIVERSE[:4]
    assert found[0, 1] == pytest.approx(spx.market_correlation * aapl.market_correlation, abs=0.06)
    same_sector = aapl.market_correlation * nvda.market_correlation + 0.35**2
    assert found[1, 2] == pytest.approx(same_sector, abs=0.06)
    assert found[1, 3] == pytest.approx(aapl.market_correlation * jpm.market_correlation, abs=0.06)
    for place in range(4):
        assert np.corrcoef(returns[:, place], changes[:, place])[0, 1] == pytest.approx(-0.7, abs=0.06)


def test_a_shock_moves_by_beta() -> None:
    market = Market(UNIVERSE[:3], 1)
    before = market.log_spot.copy()
    market.shock(-0.1, variance_factor=2.0)
    np.testing.assert_allclose(market.log_spot - before, [-0.1 * u.beta for u in UNIVERSE[:3]])
    expected = [u.vol**2 * (1 + u.market_correlation) for u in UNIVERSE[:3]]
    np.testing.assert_allclose(market.variance, expected)


def test_bad_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="underlyings"):
        Market([], 1)
    with pytest.raises(ValueError, match="underlyings"):
        Market([UNIVERSE[0], UNIVERSE[0]], 1)
    market = Market(UNIVERSE[:1], 1)
    for dt in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="dt_years"):
            market.advance(dt)
    with pytest.raises(ValueError, match="vol"):
        replace(UNIVERSE[0], vol=0.0)
    with pytest.raises(ValueError, match="symbol"):
        replace(UNIVERSE[0], symbol="TOOLONG")
    with pytest.raises(ValueError, match="market_correlation"):
        replace(UNIVERSE[0], market_correlation=0.9, sector_correlation=0.9)
