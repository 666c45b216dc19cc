"""Bars and figures from the records of a market, against prices kept by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from worlds import NOW_NS, quotes, record

from protos.market.v1 import market_pb2 as market
from protos.risk.v1.risk_pb2 import AnalyticsResult
from risk_service.analytics import BARS_PER_YEAR, PEERS_MAX, Analytics
from risk_service.analytics_bars import BARS, UNDERLYINGS_MAX, BarBook

SECOND_NS = 1_000_000_000


def trade(symbol, price, quantity, time_ns, flags=0):
    return record(
        market.EVENT_KIND_TRADE, [symbol], price=price, quantity=quantity, time_ns=time_ns, flags=flags
    )


class Both:
    """The loop's part and the slow process's, one after the other."""

    def __init__(self):
        self.bars, self.analytics = BarBook(), Analytics()
        self.take = self.bars.take

    def results(self):
        # Over the pipe goes only what is new.
        told = self.analytics.results(self.bars.history().since(self.analytics.told))
        return [AnalyticsResult.FromString(one.value) for one in told]


def test_figures_are_those_of_the_last_price_of_each_second(seed):
    random = np.random.default_rng(seed)
    moves = 0.001 * random.standard_normal((2, 30))
    moves[1] += moves[0]
    prices = 100.0 * np.exp(np.cumsum(moves, axis=1))
    analytics, found = Both(), []
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
    analytics = Both()
    analytics.take("AAA", trade("AAA", 10.0, 3.0, NOW_NS))
    analytics.take("AAA", trade("AAA", 12.0, 1.0, NOW_NS + 1))
    analytics.take("AAA", trade("AAA", 99.0, 5.0, NOW_NS + 2, flags=market.EVENT_FLAG_OUT_OF_BAND))
    analytics.take("AAA", trade("AAA option", 1.0, 5.0, NOW_NS + 2))
    analytics.take("AAA", quotes(["AAA"], [10.0], time_ns=NOW_NS + SECOND_NS))
    (result,) = analytics.results()
    assert result.vwap == pytest.approx((10.0 * 3.0 + 12.0) / 4.0)


def test_a_silent_second_is_a_bar_of_nothing():
    analytics = Both()
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
    often, seldom = Both(), Both()
    for second in range(20):
        one = quotes(["AAA"], [10.0 + second % 3], time_ns=NOW_NS + second * SECOND_NS)
        often.take("AAA", one)
        seldom.take("AAA", one)
        told = often.results()
    assert seldom.results() == told


def test_a_message_does_not_grow_with_the_number_of_underlyings(seed):
    random = np.random.default_rng(seed)
    names = [f"U{number}" for number in range(PEERS_MAX + 5)]
    both = Both()
    for second in range(15):
        for name in names:
            price = 100.0 + random.random()
            both.take(name, quotes([name], [price], time_ns=NOW_NS + second * SECOND_NS))
    found = both.results()
    assert [one.key for one in found] == names
    for one in found:
        assert len(one.correlated_symbol) == len(one.correlation) == PEERS_MAX
        sizes = np.abs(one.correlation)
        assert (np.diff(sizes) <= 0.0).all()
        assert one.key not in one.correlated_symbol


def test_only_so_many_underlyings_and_seconds_are_kept():
    bars = BarBook()
    for number in range(UNDERLYINGS_MAX + 3):
        bars.take(f"U{number}", quotes([f"U{number}"], [10.0], time_ns=NOW_NS))
    for second in range(BARS + 7):
        bars.take("U0", quotes(["U0"], [10.0], time_ns=NOW_NS + second * SECOND_NS))
    kept = bars.history()
    assert len(kept.names) == len(kept.bars[-1].price) == UNDERLYINGS_MAX
    assert len(kept.bars) == BARS
    assert kept.bars[-1].number == NOW_NS // SECOND_NS + BARS + 5
    assert kept.ends == kept.bars[-1].number + 1
    assert kept.since(kept.bars[-2].number).bars == kept.bars[-2:]


def test_an_underlying_that_comes_later_has_no_bars_before(seed):
    random = np.random.default_rng(seed)
    both = Both()
    prices = 100.0 + random.random((2, 25))
    for second in range(25):
        for place, name in enumerate(("AAA", "BBB")[: 1 + (second >= 10)]):
            at = NOW_NS + second * SECOND_NS
            both.take(name, quotes([name], [prices[place, second]], time_ns=at))
        if second == 12:
            both.results()
    both.take("AAA", quotes(["AAA"], [1.0], time_ns=NOW_NS + 25 * SECOND_NS))
    first, later = both.results()
    assert first.moving_average_slow == pytest.approx(prices[0].mean())
    assert later.moving_average_slow == pytest.approx(prices[1, 10:].mean())
    returns = np.diff(np.log(prices[:, 10:]), axis=1)
    assert later.correlation[0] == pytest.approx(np.corrcoef(returns)[0, 1])


@pytest.mark.parametrize("absurd", [math.inf, math.nan, 1e308])
def test_what_is_no_price_or_quantity_counts_for_nothing(absurd):
    both = Both()
    both.take("AAA", quotes(["AAA"], [10.0], time_ns=NOW_NS))
    for event in (quotes(["AAA"], [absurd], time_ns=NOW_NS), trade("AAA", absurd, 1.0, NOW_NS)):
        both.take("AAA", event)
    both.take("AAA", trade("AAA", 9.0, absurd, NOW_NS))
    both.take("AAA", quotes(["AAA"], [11.0], time_ns=NOW_NS + SECOND_NS))
    (result,) = both.results()
    assert result.moving_average_fast == 10.0
    assert math.isnan(result.vwap)


def test_a_bars_price_is_its_last_quote_and_a_trades_only_where_there_is_none():
    bars = BarBook()
    bars.take("AAA", trade("AAA", 90.0, 2.0, NOW_NS))
    bars.take("AAA", trade("AAA", 95.0, 1.0, NOW_NS + 1))
    bars.take("BBB", quotes(["BBB"], [50.0], time_ns=NOW_NS + 2))
    bars.take("BBB", trade("BBB", 60.0, 3.0, NOW_NS + 3))
    bars.take("CCC", trade("CCC", 70.0, 1.0, NOW_NS + 4))
    bars.take("CCC", quotes(["CCC"], [71.0], time_ns=NOW_NS + 5))
    bars.take("AAA", quotes(["AAA"], [1.0], time_ns=NOW_NS + SECOND_NS))
    history = bars.history()
    (bar,) = history.bars
    assert dict(zip(history.names, bar.price.tolist(), strict=True)) == {
        "AAA": 90.0,
        "BBB": 50.0,
        "CCC": 71.0,
    }
    assert bar.volume.tolist() == [3.0, 3.0, 1.0]
    assert bar.turnover.tolist() == [275.0, 180.0, 70.0]
