"""Bars and figures from the records of a market, against prices kept by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from worlds import NOW_NS, quotes, record

from protos.market.v1 import market_pb2 as market
from risk_service.analytics import BARS_PER_YEAR, Analytics

SECOND_NS = 1_000_000_000


def trade(symbol, price, quantity, time_ns, flags=0):
    return record(
        market.EVENT_KIND_TRADE, [symbol], price=price, quantity=quantity, time_ns=time_ns, flags=flags
    )


def test_figures_are_those_of_the_last_price_of_each_second(seed):
    random = np.random.default_rng(seed)
    moves = 0.001 * random.standard_normal((2, 30))
    moves[1] += moves[0]
    prices = 100.0 * np.exp(np.cumsum(moves, axis=1))
    analytics, found = Analytics(), []
    for second in range(30):
        for place, name in enumerate(("AAA", "BBB")):
            at = NOW_NS + second * SECOND_NS
            analytics.take(name, quotes([name], [55.0], time_ns=at))
            analytics.take(name, quotes([name], [prices[place, second]], time_ns=at + 5))
            found += analytics.results()
    analytics.take("AAA", quotes(["AAA"], [1.0], time_ns=NOW_NS + 30 * SECOND_NS))
    found += analytics.results()
    assert analytics.results() == []
    assert [one.key for one in found] == ["AAA", "BBB"] * 30
    last = found[-2]
    assert last.time_ns == NOW_NS + 30 * SECOND_NS
    returns = np.diff(np.log(prices), axis=1)
    assert last.realised_vol == pytest.approx(math.sqrt((returns[0] ** 2).mean() * BARS_PER_YEAR))
    assert last.moving_average_fast == pytest.approx(prices[0, -12:].mean())
    assert last.moving_average_slow == pytest.approx(prices[0].mean())
    assert list(last.correlated_symbol) == ["BBB"]
    assert last.correlation[0] == pytest.approx(np.corrcoef(returns)[0, 1])
    assert math.isnan(last.vwap)


def test_vwap_is_of_trades_that_can_be_trusted():
    analytics = Analytics()
    analytics.take("AAA", trade("AAA", 10.0, 3.0, NOW_NS))
    analytics.take("AAA", trade("AAA", 12.0, 1.0, NOW_NS + 1))
    analytics.take("AAA", trade("AAA", 99.0, 5.0, NOW_NS + 2, flags=market.EVENT_FLAG_OUT_OF_BAND))
    analytics.take("AAA", trade("AAA option", 1.0, 5.0, NOW_NS + 2))
    analytics.take("AAA", quotes(["AAA"], [10.0], time_ns=NOW_NS + SECOND_NS))
    (result,) = analytics.results()
    assert result.vwap == pytest.approx((10.0 * 3.0 + 12.0) / 4.0)


def test_a_silent_second_is_a_bar_of_nothing():
    analytics = Analytics()
    analytics.take("AAA", quotes(["AAA"], [10.0], time_ns=NOW_NS))
    analytics.take("AAA", quotes(["AAA"], [11.0], time_ns=NOW_NS + 5 * SECOND_NS))
    analytics.take("AAA", quotes(["AAA"], [12.0], time_ns=NOW_NS + 6 * SECOND_NS))
    (result,) = analytics.results()
    assert math.isnan(result.realised_vol)
    assert result.moving_average_fast == pytest.approx(10.5)
    analytics.take("AAA", quotes(["AAA"], [13.0], time_ns=NOW_NS + 10_000 * SECOND_NS))
    (result,) = analytics.results()
    assert math.isnan(result.moving_average_fast)


def test_when_records_are_polled_changes_nothing():
    often, seldom = Analytics(), Analytics()
    for second in range(20):
        one = quotes(["AAA"], [10.0 + second % 3], time_ns=NOW_NS + second * SECOND_NS)
        often.take("AAA", one)
        seldom.take("AAA", one)
        told = often.results()
    assert seldom.results() == told
