"""The batched figures against plain loops over one series at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.analytics import SHARED_RETURNS_MIN, series_figures


def history(seed, series=7, bars=90):
    random = np.random.default_rng(seed)
    common = random.standard_normal(bars)
    moves = 0.01 * (0.6 * common + 0.8 * random.standard_normal((series, bars)))
    prices = 50.0 * np.exp(np.cumsum(moves, axis=1))
    prices[random.random(prices.shape) < 0.1] = np.nan
    prices[-1] = np.nan
    return prices, np.where(random.random(prices.shape) < 0.3, 0.0, random.integers(1, 50, prices.shape))


def plain_returns(row):
    return {
        bar: math.log(row[bar] / row[bar - 1])
        for bar in range(1, len(row))
        if not (math.isnan(row[bar]) or math.isnan(row[bar - 1]))
    }


def same(got, wanted):
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-9, nan_ok=True)


def test_every_figure_is_that_of_a_plain_loop(seed):
    prices, volumes = history(seed)
    got = series_figures(prices, volumes, bars_per_year=252.0, fast=5, slow=20, rsi_bars=14)
    for place, row in enumerate(prices):
        there = [price for price in row.tolist() if not math.isnan(price)]
        returns = list(plain_returns(row).values())
        if not there:
            assert math.isnan(got.realised_vol[place])
            assert math.isnan(got.vwap[place])
            assert math.isnan(got.moving_average_fast[place])
            assert math.isnan(got.rsi[place])
            continue
        same(got.realised_vol[place], math.sqrt(252.0 * sum(r * r for r in returns) / len(returns)))
        same(got.moving_average_fast[place], sum(there[-5:]) / len(there[-5:]))
        same(got.moving_average_slow[place], sum(there[-20:]) / len(there[-20:]))
        traded = [(p, v) for p, v in zip(row, volumes[place], strict=True) if not math.isnan(p)]
        same(got.vwap[place], sum(p * v for p, v in traded) / sum(v for _, v in traded))
        steps = [b - a for a, b in zip(row[-15:-1], row[-14:], strict=True) if not math.isnan(b - a)]
        gains, losses = sum(s for s in steps if s > 0), -sum(s for s in steps if s < 0)
        same(got.rsi[place], 100.0 * gains / (gains + losses))


def test_correlations_are_those_of_each_pair_alone(seed):
    prices, volumes = history(seed)
    got = series_figures(prices, volumes, bars_per_year=252.0).correlation
    for i in range(len(prices) - 1):
        for j in range(len(prices) - 1):
            left, right = plain_returns(prices[i]), plain_returns(prices[j])
            both = sorted(left.keys() & right.keys())
            wanted = np.corrcoef([left[bar] for bar in both], [right[bar] for bar in both])[0, 1]
            same(got[i, j], wanted)
    assert np.isnan(got[-1]).all()


def test_too_little_tells_nothing():
    prices = np.full((2, SHARED_RETURNS_MIN), 10.0)
    flat = series_figures(prices, np.zeros(prices.shape), bars_per_year=252.0)
    assert np.isnan(flat.correlation).all()
    assert np.isnan(flat.vwap).all()
    assert np.isnan(flat.rsi).all()
    assert (flat.realised_vol == 0.0).all()
    alone = series_figures([[10.0]], [[1.0]], bars_per_year=252.0)
    assert math.isnan(alone.realised_vol[0])
    assert alone.vwap[0] == 10.0


@pytest.mark.parametrize(
    ("prices", "volumes", "field"),
    [
        ([1.0, 2.0], [1.0, 1.0], "prices"),
        ([[1.0, 0.0]], [[1.0, 1.0]], "prices"),
        ([[1.0, 2.0]], [[1.0]], "volumes"),
        ([[1.0, 2.0]], [[1.0, -1.0]], "volumes"),
    ],
)
def test_what_is_wrong_is_named(prices, volumes, field):
    with pytest.raises(gk.InvalidInput) as refused:
        series_figures(prices, volumes, bars_per_year=252.0)
    assert refused.value.field == field
