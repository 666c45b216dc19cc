"""Scenarios from history against slow recomputation; gaps, splits and dividends by the stated rules."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.historical_scenarios import (
    CorporateAction,
    ewma_variance,
    fit_garch,
    historical_scenarios,
)


def random_prices(rng: np.random.Generator, days: int, underlyings: int) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.015, (days, underlyings)), axis=0))


@pytest.mark.parametrize("horizon", [1, 5, 10])
def test_plain_and_overlapping_returns(rng: np.random.Generator, horizon: int) -> None:
    prices = random_prices(rng, 60, 3)
    vols, rates = rng.uniform(0.1, 0.4, (60, 1)), rng.uniform(0.0, 0.05, 60)
    sc = historical_scenarios(prices, vols, rates, horizon_days=horizon)
    assert len(sc) == 60 - horizon
    for s in range(len(sc)):
        for u in range(3):
            assert sc.spot_return[s, u] == pytest.approx(
                math.log(prices[s + horizon, u] / prices[s, u]), abs=1e-14
            )
        assert sc.vol_change[s, 0] == vols[s + horizon, 0] - vols[s, 0]
        assert sc.rate_change[s] == rates[s + horizon] - rates[s]
    assert sc.elapsed[0] == horizon / 252


def test_a_window_is_the_last_days(rng: np.random.Generator) -> None:
    prices = random_prices(rng, 100, 2)
    whole, last = historical_scenarios(prices), historical_scenarios(prices, window_days=30)
    assert len(last) == 30
    assert np.array_equal(last.spot_return, whole.spot_return[-30:])


def test_age_weights_halve_by_decay(rng: np.random.Generator) -> None:
    sc = historical_scenarios(random_prices(rng, 40, 1), weighting="age", decay=0.9)
    assert sc.weights.sum() == pytest.approx(1.0)
    assert sc.weights[:-1] / sc.weights[1:] == pytest.approx(np.full(38, 0.9))


def test_ewma_filter_by_a_loop(rng: np.random.Generator) -> None:
    prices = random_prices(rng, 90, 2)
    daily = np.diff(np.log(prices), axis=0)
    sc = historical_scenarios(prices, weighting="filtered_ewma", decay=0.9, horizon_days=3)
    for u in range(2):
        variance = [np.mean(daily[:20, u] ** 2)]
        for r in daily[:, u]:
            variance.append(0.9 * variance[-1] + 0.1 * r * r)
        scaled = [r * math.sqrt(variance[-1] / v) for r, v in zip(daily[:, u], variance[:-1], strict=True)]
        expected = [sum(scaled[s : s + 3]) for s in range(len(scaled) - 2)]
        assert sc.spot_return[:, u] == pytest.approx(expected, abs=1e-13)
        assert ewma_variance(daily, 0.9)[:, u] == pytest.approx(variance, rel=1e-12)


def test_garch_finds_the_parameters_it_was_made_with(rng: np.random.Generator) -> None:
    alpha, beta, level = 0.1, 0.85, 1e-4
    variance, returns = level, np.empty(8000)
    for t in range(len(returns)):
        returns[t] = math.sqrt(variance) * rng.normal()
        variance = level * (1 - alpha - beta) + alpha * returns[t] ** 2 + beta * variance
    fit = fit_garch(returns)
    assert fit.alpha == pytest.approx(alpha, abs=0.05)
    assert fit.beta == pytest.approx(beta, abs=0.1)
    by_loop = [np.mean(returns**2)]
    for r in returns:
        by_loop.append(fit.omega + fit.alpha * r * r + fit.beta * by_loop[-1])
    assert fit.variance == pytest.approx(by_loop, rel=1e-9)


def test_garch_filter_takes_volatility_clusters_out(rng: np.random.Generator) -> None:
    calm, wild = rng.normal(0, 0.005, 400), rng.normal(0, 0.03, 200)
    prices = 100.0 * np.exp(np.cumsum(np.concatenate([calm, wild])))[:, None]
    plain = historical_scenarios(prices).spot_return[:, 0]
    filtered = historical_scenarios(prices, weighting="filtered_garch").spot_return[:, 0]
    assert plain[:380].std() < 0.4 * plain[420:].std()
    assert filtered[:380].std() > 0.6 * filtered[420:].std()


def test_gaps(rng: np.random.Generator) -> None:
    prices = random_prices(rng, 30, 2)
    prices[10, 1] = prices[11, 1] = np.nan
    with pytest.raises(gk.InvalidInput, match=r"prices\[10\].*column 1"):
        historical_scenarios(prices)
    carried = historical_scenarios(prices, missing="carry")
    assert carried.notes == ("2 missing prices were filled with the last one",)
    assert carried.spot_return[9:11, 1].tolist() == [0.0, 0.0]
    assert carried.spot_return[11, 1] == pytest.approx(math.log(prices[12, 1] / prices[9, 1]))
    dropped = historical_scenarios(prices, missing="drop")
    assert dropped.notes == ("2 days with missing prices were left out",)
    assert len(dropped) == 27
    assert dropped.spot_return[9] == pytest.approx(np.log(prices[12] / prices[9]))


def test_gaps_that_cannot_be_carried(rng: np.random.Generator) -> None:
    start = random_prices(rng, 30, 1)
    start[0] = np.nan
    long = random_prices(rng, 30, 1)
    long[10:17] = np.nan
    for prices, row in ((start, 0), (long, 15)):
        with pytest.raises(gk.InvalidInput, match="no price to carry") as caught:
            historical_scenarios(prices, missing="carry")
        assert caught.value.row == row


def test_a_split_is_refused_until_it_is_explained(rng: np.random.Generator) -> None:
    smooth = random_prices(rng, 30, 2)
    split = smooth.copy()
    split[:20, 1] *= 4.0
    with pytest.raises(gk.InvalidInput, match="corporate action") as caught:
        historical_scenarios(split)
    assert caught.value.row == 20
    explained = historical_scenarios(split, actions=[CorporateAction(20, 1, ratio=4.0)])
    assert explained.spot_return == pytest.approx(historical_scenarios(smooth).spot_return, abs=1e-14)
    assert historical_scenarios(split, jump_limit=None).spot_return[19, 1] < -1.0


def test_a_dividend_is_no_loss() -> None:
    prices = np.array([[100.0], [110.0], [104.5], [104.5]])
    plain = historical_scenarios(prices).spot_return[:, 0]
    adjusted = historical_scenarios(prices, actions=[CorporateAction(2, 0, dividend=5.5)]).spot_return[:, 0]
    assert plain[1] == pytest.approx(math.log(0.95))
    assert adjusted == pytest.approx([math.log(1.1), 0.0, 0.0], abs=1e-14)


@pytest.mark.parametrize(
    ("changes", "field", "row"),
    [
        ({"prices": [[1.0], [0.0], [1.0]]}, "prices", 1),
        ({"prices": [[1.0], [math.inf], [1.0]]}, "prices", 1),
        ({"prices": [1.0, 2.0]}, "prices", None),
        ({"vols": [[0.1], [-0.1], [0.1]]}, "vols", 1),
        ({"rates": [0.0, math.nan, 0.0]}, "rates", 1),
        ({"horizon_days": 0}, "horizon_days", None),
        ({"horizon_days": 5}, "prices", None),
        ({"weighting": "new"}, "weighting", None),
        ({"missing": "guess"}, "missing", None),
        ({"decay": 1.0}, "decay", None),
        ({"actions": [CorporateAction(9, 0)]}, "actions", 0),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], field: str, row: int | None) -> None:
    given = {"prices": [[1.0], [1.1], [1.0]]} | changes
    prices = given.pop("prices")
    with pytest.raises(gk.InvalidInput) as caught:
        historical_scenarios(prices, **given)
    assert (caught.value.field, caught.value.row) == (field, row)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_price_that_jumps_beyond_all_numbers_is_named() -> None:
    with pytest.raises(gk.InvalidInput, match=r"prices\[1\]: moves by e\^1382 in column 1"):
        historical_scenarios([[1.0, 1e-300], [1.0, 1e300]])


def test_a_dividend_before_a_split_is_taken_off_the_price_of_its_day() -> None:
    """100 goes ex 2, then each share becomes two: nothing is earned or lost, whichever is told first."""
    prices = np.array([[100.0], [98.0], [49.0], [49.0]])
    actions = [CorporateAction(1, 0, dividend=2.0), CorporateAction(2, 0, ratio=2.0)]
    for told in (actions, actions[::-1]):
        found = historical_scenarios(prices, actions=told).spot_return
        np.testing.assert_allclose(found, 0.0, atol=1e-15)
