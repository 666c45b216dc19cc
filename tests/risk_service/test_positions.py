"""Positions from fills against a plain recomputation over the whole history."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest
from worlds import ROWS_OF_DESK, SPOT, osi, portfolio, priced_market, spot_position

from protos import packing
from protos.orders.v1 import orders_pb2 as orders
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_FUTURE, INSTRUMENT_KIND_OPTION, RiskMetrics
from risk_service.executions import Fill, decode_fills
from risk_service.filled_rows import FilledRows
from risk_service.portfolios import check
from risk_service.positions import (
    FILLED,
    AccountRule,
    Position,
    Positions,
    with_fills,
)
from risk_service.valuation import Book
from service_kit.errors import SettingError


def executions(rows, symbols=("IDX", "ABC"), tick_size=(0.01, 0.5)) -> bytes:
    """A record; each row is (kind, symbol index, taker, maker, side, ticks, quantity)."""
    batch = orders.ExecutionBatch(symbols=symbols, tick_size=tick_size)
    names = ("kind", "symbol_index", "account", "maker_account", "side", "price_ticks", "quantity")
    for name, values in zip(names, zip(*rows, strict=True), strict=True):
        packing.write(batch, name, np.array(values, np.int64).astype(packing.read(batch, name).dtype))
    return batch.SerializeToString()


def test_a_trade_fills_both_sides_and_nothing_else_does():
    rows = [
        (orders.REPORT_KIND_ACCEPTED, 0, 7, 0, 0, 10_000, 5),
        (orders.REPORT_KIND_TRADE, 0, 7, 8, 0, 10_050, 3),
        (orders.REPORT_KIND_TRADE, 1, 8, 9, 1, 41, 2),
        (orders.REPORT_KIND_CANCELLED, 0, 7, 0, 0, 10_000, 2),
    ]
    assert decode_fills(executions(rows)).fills == (
        Fill(7, "IDX", 3.0, 100.5),
        Fill(8, "IDX", -3.0, 100.5),
        Fill(8, "ABC", -2.0, 20.5),
        Fill(9, "ABC", 2.0, 20.5),
    )


def test_what_is_no_batch_is_refused():
    with pytest.raises(ValueError, match="tick_size"):
        decode_fills(executions([(1, 0, 7, 8, 0, 1, 1)], tick_size=(0.01,)))
    with pytest.raises(ValueError, match="symbol_index"):
        decode_fills(executions([(1, 5, 7, 8, 0, 1, 1)]))


@pytest.mark.parametrize(
    ("row", "tick", "why"),
    [
        ((0, 7, 8, 0, 1, 1), math.nan, r"tick_size\[1\] must be positive"),
        ((0, 7, 8, 0, 1, 1), math.inf, r"tick_size\[1\] must be positive and at most"),
        ((0, 7, 8, 0, 1, 1), 0.0, r"tick_size\[1\] must be positive"),
        ((0, 7, 8, 0, 1, 1), -0.01, r"tick_size\[1\] must be positive"),
        ((0, 7, 8, 7, 1, 1), 0.5, r"side\[1\] is neither buy nor sell"),
        ((0, 7, 8, 1, 1, 0), 0.5, r"quantity\[1\] must be positive"),
        ((0, 7, 8, 1, 1, 10**13), 0.5, r"quantity\[1\] must be positive and at most 1e\+12"),
    ],
)
def test_a_fill_that_would_spoil_the_account_for_good_is_refused(row, tick, why):
    sound = (orders.REPORT_KIND_TRADE, 0, 7, 8, 0, 10_050, 3)
    with pytest.raises(ValueError, match=why):
        decode_fills(executions([sound, (orders.REPORT_KIND_TRADE, *row)], tick_size=(0.01, tick)))


def test_reports_that_overlap_count_once(seed):
    """Records as a venue may write them that has lost its place: each begins anywhere before the last end."""
    random = np.random.default_rng(seed)
    trades = [
        (orders.REPORT_KIND_TRADE if kind else orders.REPORT_KIND_CANCELLED, 0, 7, 8, side, 10_000, quantity)
        for kind, side, quantity in zip(
            random.integers(0, 2, 60), random.integers(0, 2, 60), random.integers(1, 9, 60), strict=True
        )
    ]
    positions, at, offset = Positions(AccountRule.of(["7=desk"])), 0, 0
    while at < len(trades):
        first = int(random.integers(0, at + 1))
        end = int(random.integers(first + 1, min(first + 15, len(trades)) + 1))
        batch = orders.ExecutionBatch.FromString(executions(trades[first:end]))
        batch.first_report, batch.origin.offset = first, 1
        positions.apply(decode_fills(batch.SerializeToString()), 0, offset)
        at, offset = max(at, end), offset + 1
    held = sum((1 - 2 * row[4]) * row[6] for row in trades if row[0] == orders.REPORT_KIND_TRADE)
    assert positions.quantities("desk").get("IDX", 0.0) == held


def test_position_and_earnings_are_those_of_the_whole_history(seed):
    random = np.random.default_rng(seed)
    position, cash, held = Position(), Fraction(0), Fraction(0)
    for _ in range(400):
        quantity, price = float(random.integers(-9, 10)), float(random.integers(9_000, 11_000)) / 100.0
        position = position.after(quantity, price)
        cash -= Fraction(quantity) * Fraction(price)
        held += Fraction(quantity)
        # What was paid and received, and what is left at any price: realised plus unrealised.
        mark = Fraction(10_123, 100)
        unrealised = position.quantity * (float(mark) - position.average_price)
        assert position.quantity == float(held)
        assert position.realised + unrealised == pytest.approx(float(cash + held * mark), abs=1e-7)


def test_average_price_moves_with_more_and_stays_with_less():
    position = Position().after(10.0, 100.0).after(10.0, 110.0)
    assert (position.quantity, position.average_price, position.realised) == (20.0, 105.0, 0.0)
    position = position.after(-5.0, 120.0)
    assert (position.quantity, position.average_price, position.realised) == (15.0, 105.0, 75.0)
    position = position.after(-20.0, 100.0)
    assert (position.quantity, position.average_price, position.realised) == (-5.0, 100.0, 0.0)
    position = position.after(5.0, 90.0)
    assert (position.quantity, position.average_price, position.realised) == (0.0, 0.0, 50.0)


def test_the_same_log_gives_the_same_positions_and_a_record_counts_once():
    rule = AccountRule.of(["7=desk", "8 = desk"], "account-")
    once, again = Positions(rule), Positions(rule)
    records = [[Fill(7, "IDX", 3.0, 100.1)], [Fill(8, "IDX", -1.0, 99.7), Fill(12, "ABC", 1.0, 20.0)]]
    for offset, fills in enumerate(records):
        once.apply(fills, 2, offset)
        assert again.apply(fills, 2, offset)
        assert not again.apply(fills, 2, offset)
    assert once.of("desk") == again.of("desk")
    assert once.quantities("desk") == {"IDX": 2.0}
    assert once.quantities("account-12") == {"ABC": 1.0}
    assert once.snapshot_id() == "2:2"


def test_reports_that_come_again_in_another_record_count_once():
    positions = Positions(AccountRule.of(["7=desk"]))
    rows = [
        (orders.REPORT_KIND_TRADE, 0, 7, 8, 0, 10_050, 3),
        (orders.REPORT_KIND_CANCELLED, 0, 7, 0, 0, 1, 2),
    ]

    def record(first: int, *, numbered: bool = True) -> object:
        batch = orders.ExecutionBatch.FromString(executions(rows))
        batch.first_report = first
        if numbered:
            batch.origin.offset = 5
        return decode_fills(batch.SerializeToString())

    assert positions.apply(record(0), 1, 0) == {"desk"}
    assert positions.apply(record(0), 1, 1) == set()
    assert positions.apply(record(2), 1, 2) == {"desk"}
    assert positions.apply(record(0), 1, 3) == set()
    assert positions.apply(record(0), 0, 0) == {"desk"}  # another partition counts by itself
    assert positions.quantities("desk") == {"IDX": 9.0}
    # Whoever numbers nothing is taken at its word.
    assert positions.apply(record(0, numbered=False), 1, 4) == {"desk"}
    assert positions.snapshot_id() == "0:1,1:5"


def test_positions_of_fills_alone_are_a_group_of_their_own():
    rows = [(*row[:-1], 1) for row in ROWS_OF_DESK]
    held = check(portfolio(rows=rows, underlyings=("IDX", "ABC"), groups=("index vol", "tail")))
    joined = with_fills(held, {"ABC": 3.0})
    assert joined.groups == ("index vol", "tail", FILLED)
    assert joined.groups[joined.group_index[-1]] == FILLED
    assert (joined.group_index[:-1] == held.group_index).all()


FUTURE = ("IDX", INSTRUMENT_KIND_FUTURE, 3.0, 0.0, False, 0.5, 0, 0)


@pytest.mark.parametrize("rows", [[FUTURE, spot_position(10.0)], [spot_position(10.0), FUTURE], [FUTURE]])
def test_shares_are_not_filled_into_the_future_of_the_same_name(rows):
    message = portfolio(rows=rows)
    packing.write(message.positions, "multiplier", [50.0 if row == FUTURE else 1.0 for row in rows])
    held, executed = check(message), Positions(AccountRule.of(["7=desk"]))
    executed.apply([Fill(7, "IDX", 100.0, 99.0)], 0, 0)
    joined = with_fills(held, executed.quantities("desk"))
    # Units of each: 3 futures of 50, and the shares, at a spot of 100.
    is_future = joined.kind == INSTRUMENT_KIND_FUTURE
    assert joined.quantity[is_future].tolist() == [3.0]
    assert (joined.quantity * joined.multiplier)[~is_future].sum() == 100.0 + 10.0 * (len(rows) - 1)
    market = priced_market()
    metrics = RiskMetrics()
    FilledRows().add_to(metrics, market, Book.of(joined, market), executed)
    assert metrics.pnl_unrealised == pytest.approx(100.0 * (SPOT - 99.0))


def test_an_account_without_a_portfolio_changes_none():
    positions = Positions(AccountRule.of(["7=desk"]))
    assert positions.apply([Fill(9, "IDX", 1.0, 1.0)], 0, 0) == set()
    for wrong in ("7", "x=desk", "7=", "²=desk"):
        with pytest.raises(SettingError, match="ACCOUNT=PORTFOLIO"):
            AccountRule.of([wrong])


def test_an_option_that_was_only_filled_joins_by_what_its_symbol_says():
    rows = [(*row[:-1], 1) for row in ROWS_OF_DESK]
    held = check(portfolio(rows=rows, underlyings=("IDX", "SPX"), groups=("index vol", "tail")))
    stock, index, stranger = "IDX   301220C00110500", "SPXW  301220P04000000", "XYZ   301220C00110000"
    joined = with_fills(held, {stock: 7.0, index: -2.0, stranger: 1.0, "IDX   301220C00111000": 0.0})
    assert joined.symbols[len(held) :] == (stock, index)
    fields = ("underlying_index", "kind", "quantity", "multiplier", "strike", "is_call", "american")
    found = [[getattr(joined, name)[-place] for name in fields] for place in (2, 1)]
    # Options on stocks may be exercised early, options that settle in cash on an index not.
    assert found == [
        [0, INSTRUMENT_KIND_OPTION, 7.0, 100.0, 110.5, True, True],
        [1, INSTRUMENT_KIND_OPTION, -2.0, 100.0, 4000.0, False, False],
    ]
    close = datetime(2030, 12, 20, 20, tzinfo=UTC)
    assert joined.expiry_time_ns[-2:].tolist() == [round(close.timestamp()) * 10**9] * 2
    assert [joined.groups[one] for one in joined.group_index[-2:]] == [FILLED, FILLED]
    # What the desk says of an option of the same root and day counts for this one too.
    like = with_fills(held, {osi("IDX", "C", 123.0): 1.0})
    for name in ("american", "expiry_time_ns", "multiplier"):
        assert getattr(like, name)[-1] == getattr(held, name)[0]
    assert len(held) == len(ROWS_OF_DESK)


def test_fills_join_the_portfolio():
    held = check(portfolio(rows=ROWS_OF_DESK, underlyings=("IDX", "ABC")))
    option, spot = held.symbols[0], held.symbols.index("IDX")
    joined = with_fills(held, {option: 4.0, "IDX": -2.0, "ABC": 3.0, "ZZZ": 9.0})
    assert joined.quantity[0] == held.quantity[0] + 4.0
    assert joined.quantity[spot] == held.quantity[spot] - 2.0
    assert joined.symbols[-1] == "ABC"
    assert joined.quantity[-1] == 3.0
    assert len(joined) == len(held) + 1
    assert (joined.underlying_index[-1], joined.multiplier[-1]) == (1, 1.0)
    assert held.quantity[0] == ROWS_OF_DESK[0][2]
