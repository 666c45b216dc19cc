"""What a message says of fills: P&L by the terms that are known, and by name what cannot be told."""

from __future__ import annotations

import math

import pytest
from worlds import (
    NOW_NS,
    SPOT,
    black_scholes,
    option,
    osi,
    portfolio,
    priced_market,
    quotes,
    smile,
    spot_position,
)

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as risk
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.executions import Fill
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import ScenarioSource
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.vol_marks import VolMarks

LISTED, CLOSED = option(90.0, False, 10.0), osi("IDX", "C", 110.0)
STRANGER = "ABC   301220C00090000"


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


def measured(engine, message, fills):
    state, positions = priced_market(), Positions(AccountRule.of(["7=desk"]))
    positions.apply(fills, 0, 0)
    books = DeskBooks(DeskRisk(engine, ScenarioSource(None, 500), DeskPremiums(engine)))
    books.take([check(message)], positions, state)
    (book,) = books.measure(state, VolMarks())
    numbers = books.numbers(book.held.name)
    return MetricsWriter(engine, 0.975).write(state, book, numbers, positions)


def test_a_closed_option_keeps_what_it_has_earned_when_the_portfolio_drops_it(engine):
    fills = [Fill(7, CLOSED, 10.0, 5.0), Fill(7, CLOSED, -10.0, 7.0)]
    rows = [LISTED, option(110.0, True, 0.0)]
    message = portfolio(rows=rows)
    message.positions.multiplier.extend([100.0, 100.0])
    listed = measured(engine, message, fills)
    dropped = measured(engine, portfolio(rows=[LISTED]), fills)
    assert listed.pnl_realised == dropped.pnl_realised == 2_000.0
    assert not listed.faults
    assert not dropped.faults


def test_an_option_that_was_only_filled_is_in_the_risk(engine):
    sold = osi("IDX", "C", 110.0)
    plain = measured(engine, portfolio(rows=[LISTED]), [])
    metrics = measured(engine, portfolio(rows=[LISTED]), [Fill(7, sold, -5.0, 2.0)])
    put = measured(engine, portfolio(rows=[LISTED, option(110.0, True, -5.0)]), [])
    assert not metrics.faults
    assert packing.read(metrics.greeks, "delta")[0] == packing.read(put.greeks, "delta")[0]
    assert metrics.value == put.value != plain.value


@pytest.mark.parametrize("is_call", [True, False])
def test_a_desk_of_one_contract_values_it_as_what_it_is(engine, is_call):
    metrics = measured(engine, portfolio(rows=[option(90.0, is_call, 10.0)]), [])
    assert metrics.value == pytest.approx(
        10.0 * black_scholes(SPOT, 90.0, 0.5, smile(90.0), is_call), rel=1e-9
    )


def test_what_cannot_be_told_is_named_and_the_rest_is_summed(engine):
    unquoted = osi("IDX", "C", 135.0)
    fills = [
        Fill(7, "IDX", 3.0, SPOT - 1.0),
        Fill(7, unquoted, 10.0, 5.0),
        Fill(7, "XYZ", 2.0, 5.0),
        Fill(7, "XYZ", -2.0, 6.0),
        Fill(7, STRANGER, 1.0, 6.0),
    ]
    metrics = measured(engine, portfolio(rows=[LISTED, spot_position(1.0)]), fills)
    assert metrics.pnl_unrealised == pytest.approx(3.0)
    assert metrics.pnl_realised == 0.0
    symbols = list(metrics.filled.symbol)
    # The option is a position by what its symbol says; of the others nothing says what they are.
    assert [(fault.row, fault.symbol, fault.status) for fault in metrics.faults] == [
        (2, unquoted, risk.ROW_STATUS_NO_MARKET_DATA),
        (metrics.positions + symbols.index(STRANGER), STRANGER, risk.ROW_STATUS_INVALID_INPUT),
        (metrics.positions + symbols.index("XYZ"), "XYZ", risk.ROW_STATUS_INVALID_INPUT),
    ]
    assert math.isnan(metrics.filled.unrealised[symbols.index(unquoted)])
    assert math.isnan(metrics.filled.realised[symbols.index("XYZ")])


def test_the_method_says_how_many_days(engine):
    metrics = measured(engine, portfolio(rows=[LISTED]), [])
    assert metrics.provenance.method == "full revaluation, historical, exact_tail"
    assert metrics.provenance.engine == engine.name


def test_the_data_are_as_old_as_the_oldest_quote_that_tells_a_vol(engine):
    state = priced_market()
    books = DeskBooks(DeskRisk(engine, ScenarioSource(None, 500), DeskPremiums(engine)))
    books.take(
        [check(portfolio(rows=[LISTED, option(100.0, True, 1.0)]))], Positions(AccountRule.of([])), state
    )
    writer = MetricsWriter(engine, 0.975)
    later = NOW_NS + 3_600_000_000_000
    state.apply(quotes(["IDX", LISTED[0]], [SPOT, 0.8], time_ns=later), "IDX", 0, 9)
    books.touch("IDX")
    (book,) = books.measure(state, VolMarks())
    numbers = books.numbers(book.held.name)
    metrics = writer.write(state, book, numbers)
    assert list(metrics.greeks.age_ns) == [0]
    assert metrics.provenance.data_age_ns == later - NOW_NS  # the quotes at 100 are an hour old
    state.apply(
        quotes([option(100.0, True)[0], option(100.0, False)[0]], [5.0, 4.0], time_ns=later), "IDX", 0, 10
    )
    books.touch("IDX")
    (book,) = books.measure(state, VolMarks())
    numbers = books.numbers(book.held.name)
    assert writer.write(state, book, numbers).provenance.data_age_ns == 0


def test_what_is_kept_of_fills_follows_each_fill_and_each_price(engine):
    state, positions = priced_market(), Positions(AccountRule.of(["7=desk"]))
    books = DeskBooks(DeskRisk(engine, ScenarioSource(None, 500), DeskPremiums(engine)))
    held, writer = [check(portfolio(rows=[LISTED, spot_position(1.0)]))], MetricsWriter(engine, 0.975)
    later = osi("XYZ", "C", 50.0)
    steps = [
        (Fill(7, "IDX", 3.0, SPOT - 1.0), SPOT, 3.0),
        (Fill(7, "IDX", -1.0, SPOT + 1.0), SPOT, 2.0),
        (Fill(7, later, 2.0, 5.0), SPOT + 4.0, 10.0),
    ]
    for offset, (fill, spot, unrealised) in enumerate(steps):
        books.filled(positions.apply([fill], 0, offset))
        state.apply(quotes(["IDX"], [spot]), "IDX", 0, 10 + offset)
        books.touch("IDX")
        books.take(held, positions, state)
        (book,) = books.measure(state, VolMarks())
        numbers = books.numbers(book.held.name)
        metrics = writer.write(state, book, numbers, positions)
        assert metrics.pnl_unrealised == pytest.approx(unrealised)
        assert metrics.pnl_realised == pytest.approx(0.0 if offset == 0 else 2.0)
        assert metrics.filled.executions_snapshot_id == f"0:{offset + 1}"
        assert len(metrics.filled.symbol) == (2 if offset == 2 else 1)
    assert math.isnan(metrics.filled.unrealised[list(metrics.filled.symbol).index(later)])
    # Its first price comes after the rows were made.
    state.apply(quotes([later], [6.0]), "XYZ", 0, 20)
    priced = writer.write(state, book, numbers, positions)
    assert priced.pnl_unrealised == pytest.approx(10.0 + 2.0 * 100.0)
