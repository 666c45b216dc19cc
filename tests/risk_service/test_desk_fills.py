"""Fills change what they touch: the desk is the one laid out anew, array by array and number by number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import SPOT, option, osi, portfolio, priced_market, quotes, reference, spot_position

import gpu_kernels as gk
from protos import packing
from risk_service.desk import Desk, with_quantities
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
        if name == "blocks":
            for a, b in zip(one, other, strict=True):
                same(a, b)
        elif name in ("shared", "points", "contracts", "strikes") and one is not None:
            same(one, other)
        elif isinstance(one, np.ndarray):
            assert np.array_equal(one, other), name


def test_a_desk_with_other_quantities_is_the_one_laid_out_anew(seed):
    random, state = np.random.default_rng(seed), market()
    books = [Book.of(check(message(number, american=False)), state) for number in range(3)]
    desk = Desk.of(books)
    for _ in range(20):
        number = int(random.integers(3))
        held = books[number].held
        quantity = held.quantity.copy()
        rows = random.integers(0, len(quantity), 2)
        quantity[rows] += random.integers(-5, 6, 2)
        books[number] = replace(books[number], held=replace(held, quantity=quantity))
        desk, names = with_quantities(desk, number, books[number])
        touched = {
            held.underlyings[held.underlying_index[row]]
            for row in rows
            if quantity[row] != held.quantity[row]
        }
        assert names == touched
        same(desk, Desk.of(books))


def test_other_contracts_are_no_other_quantities():
    state = market()
    books = [Book.of(check(message(number, american=False)), state) for number in range(2)]
    desk = Desk.of(books)
    for other in (message(0, american=True), message(1, american=False)):
        assert with_quantities(desk, 0, Book.of(check(other), state)) is None


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
    laid_out = live.risk.desk.contracts
    fills = [
        Fill(1, osi("IDX", "C", 100.0), 25.0, 5.0),
        Fill(1, "ABC", -40.0, 50.0),  # it had no position in the underlying itself
        Fill(2, osi("IDX", "P", 120.0), -9.0, 20.0),
        Fill(0, osi("ABC", "C", 50.0), 4.0, 3.0),
        Fill(1, "ABC", 15.0, 50.0),
    ]
    for offset, fill in enumerate(fills):
        live.filled(positions.apply([fill], 0, offset))
        live.take(held, positions, state)
        (book,) = live.measure(state, marks)
        numbers = live.numbers(book.held.name)
        assert book.held.name == f"book-{fill.account}"
        assert live.risk.desk.contracts is laid_out  # nothing was laid out anew
        _, wanted = started(positions, state)
        exact = wanted[book.held.name]
        tolerance = {"rtol": 1e-9, "atol": 1e-6}
        np.testing.assert_allclose(numbers.value, exact.value, **tolerance)
        np.testing.assert_allclose(numbers.gross_value, exact.gross_value, **tolerance)
        np.testing.assert_allclose(numbers.greeks, exact.greeks, **tolerance)
        np.testing.assert_allclose(numbers.historical_pnl, exact.historical_pnl, **tolerance)
        np.testing.assert_allclose(numbers.stress_pnl, exact.stress_pnl, **tolerance)
        assert numbers.faults == exact.faults


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
