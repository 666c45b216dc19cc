"""Premiums of American books while tables are made elsewhere: no waiting, no further off than they say."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from worlds import SPOT, option, portfolio, priced_market, quotes, spot_position

import gpu_kernels as gk
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.premium_tables import build_premium_table
from protos import packing
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums, TableLost
from risk_service.desk_risk import DeskRisk
from risk_service.live_risk import RiskCalculator, ScenarioSource
from risk_service.live_snapshot import LiveSnapshot
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.slow_risk import SlowRisk
from risk_service.table_process import TableProcess
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks
from service_kit.lifecycle import Stop

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0),
    option(110.0, False, 5.0),
    spot_position(150.0),
)
CONTRACTS = 35.0  # options held, without sign
PATIENCE_S = 120.0  # a cold cache of compiled kernels on a busy machine


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def history():
    random = np.random.default_rng(8)
    return PriceHistory(
        ("IDX",),
        SPOT * np.exp(np.cumsum(0.01 * random.standard_normal((400, 1)), axis=0)),
        np.full((400, 1), 0.2),
    )


def american():
    message = portfolio(rows=ROWS)
    packing.write(message.positions, "american", [True])
    return message


class Tables:
    """Tables that come when the test lets them."""

    def __init__(self) -> None:
        self.asked: list[tuple[gk.Options, gk.Scenarios, bool, Future]] = []

    def __call__(self, options, scenarios, *, urgent):
        self.asked.append((options, scenarios, urgent, Future()))
        return self.asked[-1][-1]

    def give(self, engine):
        options, scenarios, _, table = self.asked[-1]
        table.set_result(build_premium_table(engine, options, scenarios))


@pytest.fixture
def desk(engine, history):
    """A live desk with one American book, what it asks tables of, and how to measure it at a spot."""
    tables, state = Tables(), priced_market()
    held = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine, tables)))
    held.take([check(american())], Positions(AccountRule.of([])), state)
    plain = RiskCalculator(engine, held.risk.scenarios, 0.975)

    def measured(spot):
        state.apply(quotes(["IDX"], [spot]), "IDX", 0, 9)
        held.touch("IDX")
        (book,) = held.measure(state, VolMarks())
        numbers = held.numbers(book.held.name)
        wanted = plain.measurement(state, book, VolMarks())
        allowed = CONTRACTS * numbers.premium_error * spot
        assert 0.0 < numbers.premium_error < 2e-3
        assert numbers.value == pytest.approx(wanted.metrics.value, abs=allowed)
        assert numbers.historical_pnl == pytest.approx(wanted.historical_pnl, abs=2.0 * allowed)
        assert numbers.stress_pnl == pytest.approx(np.array(wanted.metrics.stress_pnl), abs=2.0 * allowed)
        assert abs(numbers.greeks[0, 0] - wanted.metrics.greeks.delta[0]) < 0.05
        return numbers

    return tables, held, measured


def test_numbers_are_right_before_the_table_with_it_and_after_a_jump_out_of_it(desk, engine):
    tables, held, measured = desk
    wide = measured(SPOT)
    assert wide.premium_error <= 2e-4
    assert [urgent for _, _, urgent, _ in tables.asked] == [True]
    measured(SPOT * 1.03)  # still none; it is not asked for twice
    assert len(tables.asked) == 1
    tables.give(engine)
    measured(SPOT * 1.004)
    assert (held.risk.premiums.built, len(tables.asked)) == (1, 1)
    measured(SPOT * 1.007)  # within the range, but worn: the next is made and this one still read
    assert [urgent for _, _, urgent, _ in tables.asked] == [True, False]
    assert held.risk.premiums.built == 1
    jumped = measured(SPOT * 1.04)
    assert jumped.premium_error <= 2e-4
    tables.give(engine)
    measured(SPOT * 1.04)  # that table was made for before the jump: it fits no more than the first
    assert [urgent for _, _, urgent, _ in tables.asked] == [True, False, True]


def test_a_table_that_is_lost_is_asked_for_again_and_one_that_is_refused_is_a_refusal(desk):
    tables, held, measured = desk
    measured(SPOT)
    tables.asked[-1][-1].set_exception(TableLost("died"))
    measured(SPOT)
    assert len(tables.asked) == 2
    tables.asked[-1][-1].set_exception(gk.InvalidInput("vol", "is what it is"))
    held.touch("IDX")
    with pytest.raises(gk.InvalidInput, match="is what it is"):
        held.risk.measure(priced_market(), VolMarks(), {"IDX"})


def test_monte_carlo_of_american_books_is_that_of_the_engine_within_its_error(engine, history):
    state = priced_market()
    books = {"desk": Book.of(check(american()), state)}
    made = SlowRisk.of(engine, ScenarioSource(history, 300), 0.975)
    for spot in (SPOT, SPOT * 1.03, SPOT * 0.9):
        state.apply(quotes(["IDX"], [spot]), "IDX", 0, 9)
        made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
        plain = RiskCalculator(engine, made.risk.scenarios, 0.975).measure(state, books["desk"], VolMarks())
        allowed = 2.0 * CONTRACTS * made.risk.numbers(0).premium_error * spot
        found, wanted = made.latest["desk"].tail.expected_shortfall, plain.historical[0].expected_shortfall
        assert found == pytest.approx(wanted, abs=allowed)
        assert allowed < 0.05 * wanted
    # Two sets: the third spot is out of reach of the first.
    assert made.risk.premiums.built == 2


def test_tables_of_another_process_are_the_same_to_the_bit_and_one_that_dies_is_replaced(engine):
    paid = CashDividends.shared([[(0.1, 1.0)], []], [0, 1])
    options = gk.Options(
        spot=100.0, strike=[95.0, 105.0], expiry=0.5, vol=0.2, rate=0.05, is_call=False, american=True,
        dividends=paid,
    )  # fmt: skip
    scenarios = gk.Scenarios([[-0.02], [0.0], [0.01]], [[0.01], [0.0], [-0.01]], elapsed=1 / 252)
    wanted = build_premium_table(engine, options, scenarios)
    process, stop = TableProcess(), Stop()
    running = threading.Thread(target=process.run, args=(stop,))
    running.start()
    try:
        found = process.make(options, scenarios, urgent=True).result(PATIENCE_S)
        assert np.array_equal(found.in_scenarios, wanted.in_scenarios)
        assert np.array_equal(found.today, wanted.today)
        assert found.lasts == wanted.lasts < 0.5
        assert found.error == wanted.error
        bad = gk.Options(spot=[100.0, 101.0], strike=95.0, expiry=0.5, vol=[0.2, np.nan], is_call=False)
        with pytest.raises(gk.GpuKernelsError, match="vol"):
            process.make(bad, scenarios, urgent=False).result(PATIENCE_S)
        dead = process.pid
        os.kill(dead, signal.SIGKILL)
        with pytest.raises(TableLost):
            process.make(options, scenarios, urgent=True).result(PATIENCE_S)
        again = process.make(options, scenarios, urgent=True).result(PATIENCE_S)
        assert process.pid != dead
        assert np.array_equal(again.in_scenarios, wanted.in_scenarios)
    finally:
        stop.set()
        running.join(PATIENCE_S)
    assert not running.is_alive()
