"""Fills change what they touch: the desk is the one laid out anew, array by array and number by number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import (
    NOW_NS,
    SPOT,
    option,
    osi,
    portfolio,
    priced_market,
    quotes,
    record,
    reference,
    spot_position,
)

import gpu_kernels as gk
from protos import packing
from protos.market.v1.market_pb2 import EVENT_KIND_TRADE
from risk_service.desk import Desk
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.executions import Fill
from risk_service.live_risk import ScenarioSource
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks

STRIKES = (80.0, 90.0, 100.0, 110.0, 120.0)
RULE = AccountRule.of([f"{number}=book-{number}" for number in range(3)])


def message(number, *, american):
    rows = [
        option(strike, is_call, float(number + 1) * (strike - 97.0))
        for strike in STRIKES[number:]
        for is_call in (True, False)
        if strike != 110.0 or is_call
    ]
    rows += [option(50.0, True, 3.0, underlying="ABC", place=1), spot_position(10.0)]
    # Two positions in one contract.
    rows.append(option(100.0, True, 7.0))
    made = portfolio(f"book-{number}", rows=rows, underlyings=("IDX", "ABC"))
    packing.write(made.positions, "american", [american])
    return made


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def history():
    random = np.random.default_rng(8)
    closes = SPOT * np.exp(np.cumsum(0.01 * random.standard_normal((200, 2)), axis=0))
    return PriceHistory(("IDX", "ABC"), closes, np.full((200, 2), 0.2))


def market():
    state = priced_market()
    state.apply(reference("ABC"), "ABC", 1, 0)
    state.apply(quotes(["ABC", osi("ABC", "C", 50.0)], [50.0, 3.0]), "ABC", 1, 1)
    return state


def same(found, wanted):
    """Every array of two desks, whatever they are in."""
    for name in found.__dataclass_fields__ if hasattr(found, "__dataclass_fields__") else found._fields:
        one, other = getattr(found, name), getattr(wanted, name)
        if isinstance(one, np.ndarray):
            assert np.array_equal(one, other), name
        elif name == "blocks":
            for a, b in zip(one, other, strict=True):
                same(a, b)
        elif name not in ("holders", "dividends", "name", "slot", "contents") and one is not None:
            same(one, other)


def test_what_is_held_as_before_is_not_laid_out_anew_and_the_desk_is_the_same(seed):
    random, state = np.random.default_rng(seed), market()
    books = [Book.of(check(message(number, american=False)), state) for number in range(3)]
    desk = Desk.of(books)
    for turn in range(20):
        number, before = int(random.integers(len(books))), desk
        held = books[number].held
        quantity = held.quantity.copy()
        rows = random.integers(0, len(quantity), 1)
        quantity[rows] += random.integers(1, 6)
        books[number] = replace(books[number], held=replace(held, quantity=quantity))
        desk = Desk.of(books, desk)
        same(desk, Desk.of(books))
        touched = {held.underlyings[held.underlying_index[row]] for row in rows}
        for now, then in zip(desk.blocks, before.blocks, strict=True):
            assert (now is then) == (now.name not in touched)
        if turn == 10:
            # One book less: those of the others that follow it have other cells.
            del books[0]
            desk = Desk.of(books, desk)
            same(desk, Desk.of(books))
        if turn == 15:
            books.insert(1, Book.of(check(message(2, american=True)), state))
            desk = Desk.of(books, desk)
            same(desk, Desk.of(books))


def test_a_portfolio_of_as_many_other_american_contracts_gets_premiums_of_its_own(engine, history):
    """The places of its contracts are those of the old ones, but the old table is not theirs."""

    def put(shift):
        rows = [option(strike + shift, False, 10.0) for strike in STRIKES[:4]]
        made = portfolio("book", rows=rows)
        packing.write(made.positions, "american", [True])
        return check(made)

    def started(held):
        made = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
        made.take([held], Positions(RULE), state)
        made.measure(state, VolMarks())
        return made, made.numbers("book")

    state = market()
    live, _ = started(put(0.0))
    live.take([put(10.0)], Positions(RULE), state)
    live.measure(state, VolMarks())
    numbers = live.numbers("book")
    _, wanted = started(put(10.0))
    assert numbers.value == wanted.value
    np.testing.assert_array_equal(numbers.historical_pnl, wanted.historical_pnl)


@pytest.mark.parametrize("american", [False, True])
def test_numbers_after_fills_are_those_of_a_start(engine, history, american):
    def started(positions, state):
        made = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
        made.take([check(message(number, american=american)) for number in range(3)], positions, state)
        return made, {
            book.held.name: made.numbers(book.held.name) for book in made.measure(state, VolMarks())
        }

    state, positions = market(), Positions(RULE)
    held = [check(message(number, american=american)) for number in range(3)]
    live = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
    live.take(held, positions, state)
    marks = VolMarks()
    assert len(live.measure(state, marks)) == 3
    laid_out = {block.name: block for block in live.risk.desk.blocks}
    fills = [
        Fill(1, osi("IDX", "C", 100.0), 25.0, 5.0),
        Fill(1, "ABC", -40.0, 50.0),  # it had no position in the underlying itself
        Fill(2, osi("IDX", "P", 120.0), -9.0, 20.0),
        Fill(0, osi("ABC", "C", 50.0), 4.0, 3.0),
        Fill(1, "ABC", 15.0, 50.0),
        Fill(2, osi("IDX", "P", 80.0), 6.0, 1.0),  # it had no position in this one
        Fill(0, osi("IDX", "C", 130.0), 2.0, 1.0),  # nobody quotes it
        Fill(1, osi("IDX", "C", 100.0), 3.0, 5.0),
        Fill(0, osi("ABC", "C", 50.0), 4.0, 3.0),
    ]
    for offset, fill in enumerate(fills):
        live.filled(positions.apply([fill], 0, offset))
        live.take(held, positions, state)
        (book,) = live.measure(state, marks)
        numbers = live.numbers(book.held.name)
        assert book.held.name == f"book-{fill.account}"
        touched = "ABC" if fill.symbol.startswith("ABC") else "IDX"
        assert [b.name for b in live.risk.desk.blocks if b is not laid_out[b.name]] == [touched]
        laid_out = {block.name: block for block in live.risk.desk.blocks}
        _, wanted = started(positions, state)
        exact = wanted[book.held.name]
        tolerance = {"rtol": 1e-9, "atol": 1e-6}
        np.testing.assert_allclose(numbers.value, exact.value, **tolerance)
        np.testing.assert_allclose(numbers.gross_value, exact.gross_value, **tolerance)
        np.testing.assert_allclose(numbers.greeks, exact.greeks, **tolerance)
        np.testing.assert_allclose(numbers.historical_pnl, exact.historical_pnl, **tolerance)
        np.testing.assert_allclose(numbers.stress_pnl, exact.stress_pnl, **tolerance)
        for name, other in wanted.items():
            assert live.numbers(name).faults == other.faults
            assert live.numbers(name).oldest_quote_ns == other.oldest_quote_ns
    assert [fault.symbol for fault in live.numbers("book-0").faults] == [osi("IDX", "C", 130.0)]
    state.apply(quotes([osi("IDX", "C", 130.0)], [1.5]), "IDX", 0, 99)
    live.touch("IDX")
    live.measure(state, marks)
    assert not live.numbers("book-0").faults


def test_a_trade_makes_no_quote_younger(engine, history):
    state, positions = market(), Positions(RULE)
    live = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
    live.take([check(portfolio("book", rows=[option(90.0, False, 1.0)]))], positions, state)
    for later in (NOW_NS + 5_000_000_000, NOW_NS + 9_000_000_000):
        trade = record(EVENT_KIND_TRADE, [osi("IDX", "P", 90.0)], price=2.0, time_ns=later)
        state.apply(trade, "IDX", 0, 50 + later // 1_000_000_000)
        live.touch("IDX")
        live.measure(state, VolMarks())
        assert live.numbers("book").oldest_quote_ns == NOW_NS


def test_a_fill_that_changes_no_risk_is_told_and_costs_the_others_nothing(engine, history):
    state, positions = market(), Positions(RULE)
    held = [check(message(number, american=False)) for number in range(3)]
    live = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
    live.take(held, positions, state)
    assert len(live.measure(state, VolMarks())) == 3
    live.filled(positions.apply([Fill(1, "UNKNOWN", 5.0, 1.0)], 0, 0))
    live.take(held, positions, state)
    (book,) = live.measure(state, VolMarks())
    assert book.held.name == "book-1"
    assert live.measure(state, VolMarks()) == []
