"""The batched figures against plain loops over one series at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gpu_kernels as gk
from gpu_kernels.analytics import SHARED_RETURNS_MIN, series_figures
from gpu_kernels.engines.cpu.analytics import TILE

ENGINES = [gk.engine("reference"), gk.engine("cpu")]
every_engine = pytest.mark.parametrize("engine", ENGINES, ids=lambda one: one.name)


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


@every_engine
def test_every_figure_is_that_of_a_plain_loop(engine, seed):
    prices, volumes = history(seed)
    got = series_figures(engine, prices, volumes, bars_per_year=252.0, fast=5, slow=20, rsi_bars=14)
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


def plain_correlation(one, other):
    left, right = plain_returns(one), plain_returns(other)
    both = sorted(left.keys() & right.keys())
    if len(both) < SHARED_RETURNS_MIN:
        return math.nan
    return np.corrcoef([left[bar] for bar in both], [right[bar] for bar in both])[0, 1]


@every_engine
@pytest.mark.parametrize("peers", [0, 1, 4, 9])
def test_peers_are_the_strongest_of_the_pairs_taken_one_by_one(engine, peers, seed):
    prices, volumes = history(seed)
    # One that goes against another.
    prices[3] = 1e4 / prices[2] * np.exp(0.002 * np.random.default_rng(seed).standard_normal(prices.shape[1]))
    got = series_figures(engine, prices, volumes, bars_per_year=252.0, peers=peers)
    assert got.peer.shape == got.correlation.shape == (len(prices), peers)
    for i, row in enumerate(prices):
        pairs = {j: plain_correlation(row, other) for j, other in enumerate(prices) if j != i}
        pairs = {j: found for j, found in pairs.items() if not math.isnan(found)}
        wanted = sorted(pairs, key=lambda j: -abs(pairs[j]))[:peers]
        assert got.peer[i].tolist() == wanted + [-1] * (peers - len(wanted))
        same(got.correlation[i].tolist(), [pairs[j] for j in wanted] + [math.nan] * (peers - len(wanted)))


def test_more_series_than_a_tile_holds_are_those_of_the_reference(seed):
    prices, volumes = history(seed, series=TILE + 9, bars=40)
    prices[TILE - 3] = 7.0
    wanted, got = (
        series_figures(engine, prices, volumes, bars_per_year=252.0, peers=3) for engine in ENGINES
    )
    same(got.correlation, wanted.correlation)
    assert (got.peer == wanted.peer).all()
    same(got.realised_vol, wanted.realised_vol)


def test_of_peers_as_strong_the_first_is_told(seed):
    prices, volumes = history(seed)
    prices[:4] = prices[0]
    got = series_figures(gk.engine("cpu"), prices, volumes, bars_per_year=252.0, peers=2)
    assert got.peer[:4].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


@every_engine
def test_too_little_tells_nothing(engine):
    prices = np.full((2, SHARED_RETURNS_MIN), 10.0)
    flat = series_figures(engine, prices, np.zeros(prices.shape), bars_per_year=252.0)
    assert np.isnan(flat.correlation).all()
    assert (flat.peer == -1).all()
    assert np.isnan(flat.vwap).all()
    assert np.isnan(flat.rsi).all()
    assert (flat.realised_vol == 0.0).all()
    alone = series_figures(engine, [[10.0]], [[1.0]], bars_per_year=252.0)
    assert math.isnan(alone.realised_vol[0])
    assert alone.vwap[0] == 10.0
    none = series_figures(engine, np.zeros((0, 0)), np.zeros((0, 0)), bars_per_year=252.0)
    assert none.peer.shape == (0, 20)


@every_engine
def test_what_was_paid_may_differ_from_the_bars_price(engine):
    got = series_figures(engine, [[10.0, math.nan]], [[3.0, 1.0]], bars_per_year=1.0, turnover=[[33.0, 13.0]])
    assert got.vwap[0] == 11.5


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
        series_figures(gk.engine("cpu"), prices, volumes, bars_per_year=252.0)
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["fast", "slow", "rsi_bars", "peers", "bars_per_year"])
def test_counts_of_bars_must_be_some(field):
    with pytest.raises(gk.InvalidInput) as refused:
        series_figures(gk.engine("cpu"), [[1.0]], [[1.0]], **({"bars_per_year": 1.0} | {field: -1}))
    assert refused.value.field == field
