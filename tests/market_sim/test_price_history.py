"""Daily history: crises, stylised facts, and a CSV form that keeps every bit."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from market_sim.history import Crisis, History, simulate_history, usual_crises, write_csv
from market_sim.model import Dynamics
from market_sim.universe import UNIVERSE
from risk_service import price_history

START = date(2020, 1, 2)


def autocorrelation(columns: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    centred = columns - columns.mean(axis=0)
    return np.asarray((centred[:-lag] * centred[lag:]).mean(axis=0) / columns.var(axis=0))


def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first = simulate_history(UNIVERSE[:4], 2, seed, START)
    second = simulate_history(UNIVERSE[:4], 2, seed, START)
    more = simulate_history(UNIVERSE[:5], 2, seed, START)
    np.testing.assert_array_equal(first.close, second.close)
    np.testing.assert_array_equal(first.implied_vol, more.implied_vol[:, :4])
    assert first.symbols == ("SPX", "AAPL", "NVDA", "JPM")
    assert len(first.dates) == 504
    assert np.is_busday(first.dates).all()
    assert not np.array_equal(first.close, simulate_history(UNIVERSE[:4], 2, seed + 1, START).close)


def test_returns_show_the_stylised_facts(seed: int) -> None:
    history = simulate_history(UNIVERSE, 8, seed, START)
    returns = history.log_returns
    assert autocorrelation(np.abs(returns), 1).mean() > 0.04
    assert autocorrelation(np.abs(returns), 10).mean() > 0.01
    assert abs(autocorrelation(returns, 1).mean()) < 0.12
    excess = ((returns - returns.mean(axis=0)) ** 4).mean(axis=0) / returns.var(axis=0) ** 2 - 3
    assert np.median(excess) > 0.6
    rises = np.diff(np.log(history.implied_vol), axis=0)
    together = [np.corrcoef(returns[:, at], rises[:, at])[0, 1] for at in range(len(UNIVERSE))]
    assert np.mean(together) < -0.25  # leverage: vol rises when prices fall
    assert (np.corrcoef(returns.T) > 0.0).all()
    assert (history.close > 0).all()
    assert (history.implied_vol > 0.01).all()


def test_crises_are_in_the_history(seed: int) -> None:
    history = simulate_history(UNIVERSE[:1], 6, seed, START)
    names = {crisis.name for crisis in history.crises}
    assert names == {"two-week crash", "slow bear", "one-day gap"}
    for crisis in history.crises:
        before = crisis.first_day - 1
        days = {"two-week crash": 10, "slow bear": 130, "one-day gap": 1}[crisis.name]
        fall = np.log(history.close[before + days, 0] / history.close[before, 0])
        prescribed = sum(crisis.market_returns[:days]) * UNIVERSE[0].beta
        assert prescribed < -0.04
        # What the market does by itself in that time comes on top.
        assert fall == pytest.approx(prescribed, abs=0.1 + 0.1 * days**0.5)
        rise = history.implied_vol[before + days, 0] / history.implied_vol[before, 0]
        if crisis.name != "slow bear":
            assert rise > 1.0
    ends = [crisis.first_day + len(crisis.market_returns) for crisis in history.crises]
    assert all(end < after.first_day for end, after in zip(ends, history.crises[1:]))
    assert ends[-1] <= len(history.dates)


def test_a_crisis_does_exactly_what_it_says() -> None:
    crisis = Crisis("test", 3, (-0.1, 0.05), (1.0, 1.0))
    calm = simulate_history(UNIVERSE[:3], 0.1, 5, START, crises=())
    hit = simulate_history(UNIVERSE[:3], 0.1, 5, START, crises=(crisis,))
    difference = np.log(hit.close / calm.close) / np.array([u.beta for u in UNIVERSE[:3]])
    np.testing.assert_allclose(difference[:3], 0.0, atol=1e-12)
    np.testing.assert_allclose(difference[3], -0.1, rtol=1e-9)
    np.testing.assert_allclose(difference[4:], -0.05, rtol=1e-9)


def test_a_short_history_has_no_room_for_long_crises(seed: int) -> None:
    assert all(c.first_day + len(c.market_returns) <= 100 for c in usual_crises(100, seed))
    assert usual_crises(3, seed) == ()
    with pytest.raises(ValueError, match="years"):
        simulate_history(UNIVERSE[:1], 0.001, 1, START)


def test_long_run_volatility_is_near_its_parameter(seed: int) -> None:
    dynamics = Dynamics(crash_rate=0.0, news_rate=0.0)
    history = simulate_history(UNIVERSE[:6], 12, seed, START, crises=(), dynamics=dynamics)
    realised = history.log_returns.std(axis=0) * 252**0.5
    np.testing.assert_allclose(realised, [u.vol for u in UNIVERSE[:6]], rtol=0.3)


def test_the_risk_service_reads_every_bit(tmp_path: Path, seed: int) -> None:
    history = simulate_history(UNIVERSE[:3], 0.5, seed, START)
    path = tmp_path / "history.csv"
    write_csv(history, path)
    again = price_history.read(path)
    assert again.underlyings == history.symbols
    np.testing.assert_array_equal(again.closes, history.close)
    np.testing.assert_array_equal(again.vols, history.implied_vol)


def test_columns_of_different_lengths_are_refused() -> None:
    dates = np.array(["2020-01-02"], dtype="datetime64[D]")
    with pytest.raises(ValueError, match="implied_vol"):
        History(dates, ("A",), np.ones((1, 1)), np.ones((2, 1)))
