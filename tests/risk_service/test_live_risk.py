"""Live risk against a plain recomputation: vols, values, Greeks, scenarios, limits."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from worlds import (
    DAY_NS,
    NOW_NS,
    RATE,
    SPOT,
    YIELD,
    black_scholes,
    option,
    portfolio,
    priced_market,
    quotes,
    record,
    smile,
    spot_position,
)

import gpu_kernels as gk
from protos.market.v1.market_pb2 import EVENT_KIND_QUOTE, EVENT_KIND_REFERENCE, EVENT_KIND_TRADE
from protos.risk.v1 import risk_pb2 as risk
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import STRESSES, RiskCalculator, ScenarioSource
from risk_service.portfolios import check
from risk_service.price_history import PriceHistory
from risk_service.slow_risk import MonteCarloSource
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0),
    option(110.0, True, 5.0),
    option(80.0, True, 3.0),
    spot_position(150.0),
)


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")


def history(days=300, seed=3):
    random = np.random.default_rng(seed)
    closes = SPOT * np.exp(np.cumsum(0.01 * random.standard_t(4, (days, 1)), axis=0))
    vols = 0.2 * np.exp(0.05 * random.standard_normal((days, 1)))
    return PriceHistory(("IDX",), closes, vols)


def measure(engine, market, message, past=None, marks=None):
    calculator = RiskCalculator(engine, ScenarioSource(past, 500), 0.975)
    return calculator.measure(market, Book.of(check(message), market), marks or VolMarks())


def plain_value(spot, vol_change=0.0, years=0.5, rate=RATE):
    """The book's value from the formula, position by position."""
    total = 150.0 * spot
    for _, kind, quantity, strike, is_call, *_ in ROWS:
        if kind == risk.INSTRUMENT_KIND_OPTION:
            vol = max(smile(strike) + vol_change, 1e-4)
            total += quantity * float(black_scholes(spot, strike, years, vol, is_call, rate))
    return total


def test_value_and_greeks_are_those_of_the_formula(engine):
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS))
    assert metrics.value == pytest.approx(plain_value(SPOT), rel=1e-10)
    step = 1e-4
    delta = (plain_value(SPOT + step) - plain_value(SPOT - step)) / (2 * step)
    vega = approx_fprime([0.0], lambda change: plain_value(SPOT, change[0]), 1e-6)[0]
    assert metrics.greeks.delta[0] == pytest.approx(delta, rel=1e-7)
    assert metrics.greeks.vega[0] == pytest.approx(vega, rel=1e-4)
    assert list(metrics.hedge_quantity) == [-metrics.greeks.delta[0]]
    assert not metrics.faults


def test_historical_es_is_that_of_a_plain_recomputation(engine):
    past = history()
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS), past)
    returns, changes = np.diff(np.log(past.closes[:, 0])), np.diff(past.vols[:, 0])
    elapsed = 1 / 252
    worth = [
        plain_value(SPOT * math.exp(move), change, 0.5 - elapsed)
        for move, change in zip(returns, changes, strict=True)
    ]
    losses = np.sort(plain_value(SPOT) - np.array(worth))[::-1]
    k = len(losses) * 0.025
    whole = int(k)
    expected = (losses[:whole].sum() + (k - whole) * losses[whole]) / k
    assert metrics.historical[0].expected_shortfall == pytest.approx(expected, rel=1e-9)
    assert metrics.historical[0].value_at_risk == pytest.approx(losses[whole], rel=1e-9)


def test_stresses_are_full_revaluations(engine):
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS), history())
    assert list(metrics.stress_name) == [stress.name for stress in STRESSES]
    for stress, pnl in zip(STRESSES, metrics.stress_pnl, strict=True):
        expected = plain_value(SPOT * (1 + stress.spot), stress.vol) - plain_value(SPOT)
        assert pnl == pytest.approx(expected, rel=1e-9)


def test_without_history_the_answer_says_so(engine):
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS))
    assert math.isnan(metrics.historical[0].expected_shortfall)
    assert list(metrics.historical[0].warnings) == ["no price history is loaded"]
    other = PriceHistory(("ABC",), np.ones((3, 1)), np.ones((3, 1)))
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS), other)
    assert list(metrics.historical[0].warnings) == ["no price history of IDX"]


def test_a_position_without_market_data_is_left_out_and_named(engine):
    rows = (*ROWS, option(95.0, True), spot_position(1.0, "ABC", 1))
    metrics = measure(engine, priced_market(), portfolio(rows=rows, underlyings=("IDX", "ABC")))
    assert [(fault.row, fault.symbol.split()[0]) for fault in metrics.faults] == [(5, "IDX"), (6, "ABC")]
    assert {fault.status for fault in metrics.faults} == {risk.ROW_STATUS_NO_MARKET_DATA}
    assert metrics.value == pytest.approx(plain_value(SPOT), rel=1e-10)
    assert metrics.positions == 7


def test_a_deep_option_is_marked_by_its_strikes_other_side(engine):
    # The call at 80 is deep in the money; its own quote rounded to a cent would tell nothing of the vol.
    market = priced_market()
    call = round(float(black_scholes(SPOT, 80.0, 0.5, smile(80.0), True)), 2) - 0.3
    market.apply(quotes([ROWS[3][0]], [call]), "IDX", 0, 9)
    metrics = measure(engine, market, portfolio(rows=ROWS))
    assert metrics.value == pytest.approx(plain_value(SPOT), rel=1e-10)


def test_out_of_the_money_is_by_the_forward(engine):
    # At 3 % less 1 % the forward of half a year is above 100.9: the put at 100.9 is out of the money.
    market, strike = priced_market(), 100.9
    for vol, is_call in ((0.2, False), (0.4, True)):
        price = float(black_scholes(SPOT, strike, 0.5, vol, is_call))
        market.apply(quotes([option(strike, is_call)[0]], [price]), "IDX", 0, 9)
    metrics = measure(engine, market, portfolio(rows=(option(strike, True, 1.0),)))
    assert metrics.value == pytest.approx(float(black_scholes(SPOT, strike, 0.5, 0.2, True)), rel=1e-8)


def test_where_only_one_side_is_quoted_it_marks(engine):
    market = priced_market()
    only_call = portfolio(rows=(option(130.0, False, 1.0),))
    value = float(black_scholes(SPOT, 130.0, 0.5, 0.25, True))
    market.apply(quotes([option(130.0, True)[0]], [value]), "IDX", 0, 9)
    metrics = measure(engine, market, only_call)
    assert metrics.value == pytest.approx(float(black_scholes(SPOT, 130.0, 0.5, 0.25, False)), rel=1e-8)


def test_vols_stay_with_the_strike_between_quotes(engine):
    market, marks = priced_market(), VolMarks()
    measure(engine, market, portfolio(rows=ROWS), marks=marks)
    market.apply(quotes(["IDX"], [SPOT * 1.05]), "IDX", 0, 9)
    moved = measure(engine, market, portfolio(rows=ROWS), marks=marks)
    assert moved.value == pytest.approx(plain_value(SPOT * 1.05), rel=1e-9)


def test_marks_do_not_depend_on_when_they_were_asked_for(engine):
    market, early = priced_market(), VolMarks()
    measure(engine, market, portfolio(rows=ROWS), marks=early)
    value = float(black_scholes(SPOT, 90.0, 0.5, 0.3, False))
    market.apply(quotes([ROWS[0][0]], [value]), "IDX", 0, 9)
    market.apply(quotes(["IDX"], [97.0]), "IDX", 0, 10)
    first = measure(engine, market, portfolio(rows=ROWS), history(), early)
    late = measure(engine, market, portfolio(rows=ROWS), history(), VolMarks())
    assert first == late


@pytest.mark.parametrize("batches", [True, False])
def test_a_trade_in_an_option_moves_neither_its_vol_nor_what_a_replay_says(engine, batches):
    rows = (option(90.0, False, 10.0), option(100.0, True, -20.0))
    later = NOW_NS + 40 * DAY_NS
    early = VolMarks()
    market = priced_market()
    measure(engine, market, portfolio(rows=rows), marks=early)
    symbols = [rows[0][0], "OTHER"] if batches else [rows[0][0]]
    market.apply(record(EVENT_KIND_TRADE, symbols, price=2.0, time_ns=later), "IDX", 0, 9)
    between = measure(engine, market, portfolio(rows=rows), history(), early)
    replayed = measure(engine, market, portfolio(rows=rows), history(), VolMarks())
    assert between == replayed
    assert between.faults == []
    # The vols are of quotes that are 40 days old, though the option has just traded.
    assert between.provenance.data_age_ns == 40 * DAY_NS


@pytest.mark.parametrize("rate", [math.inf, -math.inf, math.nan, 1e308, 10.5])
@pytest.mark.parametrize("names", [["IDX"], ["IDX", "ABC"]])
def test_a_rate_that_can_be_none_marks_nothing(engine, rate, names):
    market = priced_market()
    before = measure(engine, market, portfolio(rows=ROWS), history())
    for columns in ({"rate": rate, "dividend_yield": 0.0}, {"rate": 0.0, "dividend_yield": rate}):
        assert not market.apply(record(EVENT_KIND_REFERENCE, names, **columns), "IDX", 0, 9)
    after = measure(engine, market, portfolio(rows=ROWS), history())
    assert (after.value, after.historical[0]) == (before.value, before.historical[0])


@pytest.mark.parametrize("names", [["IDX"], ["IDX", "ABC"]])
def test_a_price_that_is_no_number_marks_nothing(engine, names):
    market = priced_market()
    for bid, ask in ((1.0, math.inf), (math.inf, math.inf), (math.nan, 5.0)):
        assert not market.apply(record(EVENT_KIND_QUOTE, names, bid=bid, ask=ask), "IDX", 0, 9)
    assert not market.apply(record(EVENT_KIND_TRADE, names, price=math.inf), "IDX", 0, 9)
    assert measure(engine, market, portfolio(rows=ROWS)).value == pytest.approx(plain_value(SPOT), rel=1e-10)


def test_portfolios_that_disagree_on_a_symbols_terms_do_not_mark_each_other(engine):
    market, shared = priced_market(), VolMarks()
    symbol, *terms = option(100.0, True, 1.0)
    right = portfolio("right", rows=((symbol, *terms),))
    terms[4] = 0.5 + 12 / 8_760  # another hour of the same day under the same symbol
    wrong = portfolio("wrong", rows=((symbol, *terms),))
    alone = measure(engine, market, right)
    measure(engine, market, wrong, marks=shared)
    assert measure(engine, market, right, marks=shared) == alone
    both = portfolio("both", rows=((symbol, *terms), option(100.0, True, 1.0)))
    assert measure(engine, market, both, marks=shared).value == pytest.approx(
        measure(engine, market, wrong).value + alone.value, rel=1e-12
    )


def test_a_book_that_the_engine_refuses_is_reported_whole(engine):
    writer = MetricsWriter(engine, 0.975)
    market = priced_market()
    metrics = writer.unmeasured(market, Book.of(check(portfolio(rows=ROWS)), market), "not measured: x")
    assert math.isnan(metrics.value)
    assert math.isnan(metrics.gross_value)
    assert len(metrics.faults) == metrics.positions == len(ROWS)
    assert math.isnan(metrics.historical[0].expected_shortfall)
    assert list(metrics.historical[0].warnings) == ["not measured: x"]


def test_groups_and_versions_travel(engine):
    message = portfolio(rows=ROWS, groups=("vol", "tail"), version=7)
    metrics = measure(engine, priced_market(), message)
    assert metrics.portfolio_version == 7
    assert metrics.provenance.market_snapshot_id == "0:4"
    assert metrics.provenance.engine == engine.name
    assert YIELD == 0.01


def test_limits_are_used_and_breached(engine):
    limits = risk.Limits(expected_shortfall=1.0, stress_loss=1e9)
    metrics = measure(engine, priced_market(), portfolio(rows=ROWS, limits=limits), history())
    usage = {one.name: one for one in metrics.limits}
    assert usage["expected shortfall"].breached
    assert usage["expected shortfall"].limit == 1.0
    assert not usage["worst stress"].breached
    assert usage["value at risk"].limit == pytest.approx(0.02 * metrics.gross_value)


def test_an_empty_portfolio_is_worth_nothing(engine):
    metrics = measure(engine, priced_market(), portfolio(rows=()), history())
    assert (metrics.value, metrics.gross_value) == (0.0, 0.0)
    assert metrics.historical[0].expected_shortfall == 0.0


def test_limits_are_judged_to_the_percent_and_the_worst_stress_is_the_worst(engine):
    past = history()
    first = measure(engine, priced_market(), portfolio(rows=ROWS), past)
    used = {one.name: one.used for one in first.limits}
    assert used["worst stress"] == -min(first.stress_pnl) != max(first.stress_pnl)
    for share, breached in ((1.01, False), (0.99, True)):
        limits = risk.Limits(
            var_fraction=share * used["value at risk"] / first.gross_value,
            stress_loss=share * used["worst stress"],
            expected_shortfall=share * first.historical[0].expected_shortfall,
        )
        metrics = measure(engine, priced_market(), portfolio(rows=ROWS, limits=limits), past)
        assert [one.breached for one in metrics.limits] == [breached] * 3


@pytest.mark.parametrize("make", [ScenarioSource, MonteCarloSource])
def test_scenarios_of_sets_of_underlyings_are_not_kept(make):
    """Portfolios come and go with sets of their own; single ones are as many as the history has."""
    names = ("A", "B", "C")
    closes = SPOT * np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, (50, 3)), axis=0))
    source = make(PriceHistory(names, closes, np.full(closes.shape, 0.2)), 30)
    single = source.historical(("B",))
    assert source.historical(("B",)) is single
    both = source.historical(("C", "B"))
    np.testing.assert_array_equal(both.spot_return[:, 1:], single.spot_return)
    held = [weakref.ref(both), *(weakref.ref(source.of(one)[0]) for one in (("A", "B"), ("B",), ("A", "C")))]
    del both
    gc.collect()
    assert [one() for one in held] == [None] * 4
    for unknown in (("X",), ("A", "Y"), ("Y", "X")):
        assert source.historical(unknown) is None
        assert source.why_none(unknown) == f"no price history of {next(n for n in unknown if n in 'XY')}"
    assert source.why_none(names) == source.why_none(()) == ""
