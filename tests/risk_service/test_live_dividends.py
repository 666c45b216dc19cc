"""American options with cash dividends in live numbers: a mixed desk against trees, calls, the calendar."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
from dividend_tree import american as tree
from worlds import (
    DAY_NS,
    NOW_NS,
    RATE,
    SPOT,
    YEAR_NS,
    YIELD,
    option,
    osi,
    portfolio,
    priced_market,
    quotes,
    reference,
    spot_position,
)

import gpu_kernels as gk
from gpu_kernels.premium_tables import build_premium_table
from protos import packing
from protos.risk.v1.risk_pb2 import INSTRUMENT_KIND_FUTURE
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import GREEKS, RiskCalculator, ScenarioSource
from risk_service.live_snapshot import LiveSnapshot
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.slow_risk import SlowRisk
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks
from service_kit.lifecycle import Stop

NOBODY = Positions(AccountRule({}))
HOUR_NS = DAY_NS // 24
# The first is before a day's horizon.
PAID = ((20 * HOUR_NS, 1.2), (YEAR_NS // 4, 0.9))
AMERICAN = ((90.0, True, -6.0), (110.0, True, 7.0), (100.0, False, 9.0), (110.0, False, 4.0))
EUROPEAN = ((100.0, True, -3.0),)
PLAIN = ((50.0, False, 8.0),)  # on a stock that pays nothing
CONTRACTS = 37.0  # options held, without sign


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(8)
    closes = SPOT * np.exp(np.cumsum(0.01 * random.standard_normal((120, 2)), axis=0))
    vols = 0.2 + 0.002 * random.standard_normal((120, 2)).cumsum(axis=0)
    return ScenarioSource(PriceHistory(("IDX", "ABC"), closes, vols), 60)


def mixed(paid=PAID, *, futures=True, version=1):
    """American and European options on a stock that pays, plain American ones, shares and a future."""
    rows = [option(strike, call, quantity) for strike, call, quantity in (*AMERICAN, *EUROPEAN)]
    rows += [option(strike, call, size, underlying="ABC", place=1) for strike, call, size in PLAIN]
    rows += [spot_position(20.0)]
    if futures:
        rows += [("IDXF", INSTRUMENT_KIND_FUTURE, 3.0, 0.0, False, 0.5, 0, 0)]
    made = portfolio("desk", rows=rows, underlyings=("IDX", "ABC"), version=version)
    flags = [True] * len(AMERICAN) + [False] * len(EUROPEAN) + [True] * len(PLAIN)
    packing.write(made.positions, "american", flags + [False] * (len(rows) - len(flags)))
    for when, amount in paid:
        made.dividends.underlying_index.append(0)
        made.dividends.ex_time_ns.append(NOW_NS + when)
        made.dividends.amount.append(amount)
    return check(made)


def market():
    state = priced_market()
    state.apply(reference("ABC"), "ABC", 1, 0)
    state.apply(quotes(["ABC", osi("ABC", "P", 50.0)], [50.0, 2.5]), "ABC", 1, 1)
    return state


class Tables:
    """Tables that come when the test lets them."""

    def __init__(self, engine):
        self.engine, self.asked = engine, []

    def __call__(self, options, scenarios, *, urgent):
        self.asked.append((options, scenarios, Future()))
        return self.asked[-1][-1]

    def give(self):
        for options, scenarios, table in self.asked:
            if not table.done():
                table.set_result(build_premium_table(self.engine, options, scenarios))


def live(engine, source, held, state, tables=None):
    books = DeskBooks(DeskRisk(engine, source, DeskPremiums(engine, tables)))
    books.take([held], NOBODY, state)
    (book,) = books.measure(state, VolMarks())
    return books, book, books.numbers(book.held.name)


def agree(engine, source, numbers, book, state):
    """The live numbers against those that calls give, within what the live ones say of their error."""
    plain = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks())
    allowed = CONTRACTS * numbers.premium_error * SPOT
    assert 0.0 < numbers.premium_error < 5e-3
    assert numbers.faults == ()
    assert not plain.metrics.faults
    assert numbers.value == pytest.approx(plain.metrics.value, abs=allowed)
    np.testing.assert_allclose(numbers.historical_pnl, plain.historical_pnl, atol=2.0 * allowed)
    wanted = packing.read(plain.metrics, "stress_pnl")
    np.testing.assert_allclose(numbers.stress_pnl, wanted, atol=2.0 * allowed)
    # Per contract; the last four are differences of differences, or jump at the edge of exercise.
    per_contract = dict(zip(GREEKS, (2e-3, 1e-3, 0.3, 0.2, 0.5, 0.1, 60.0, 0.1), strict=True))
    for column, name in enumerate(GREEKS):
        wanted = packing.read(plain.metrics.greeks, name)
        np.testing.assert_allclose(
            numbers.greeks[:, column], wanted, atol=CONTRACTS * per_contract[name], err_msg=name
        )


def test_a_mixed_desk_is_what_calls_say_within_its_error(engine, source):
    state = market()
    books, book, numbers = live(engine, source, mixed(), state)
    agree(engine, source, numbers, book, state)
    state.apply(quotes(["IDX"], [SPOT * 1.006]), "IDX", 0, 9)
    books.touch("IDX")
    (book,) = books.measure(state, VolMarks())
    agree(engine, source, books.numbers("desk"), book, state)
    assert books.risk.premiums.built == 2  # one for each stock, none anew


def test_a_mixed_desk_is_that_of_trees(engine, source):
    state = market()
    _, book, numbers = live(engine, source, mixed(futures=False), state)
    vols = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks()).valuation.options.vol
    paid = [(when / YEAR_NS, amount) for when, amount in PAID]
    lines = [(0, *one, True, paid) for one in AMERICAN] + [(0, *one, False, paid) for one in EUROPEAN]
    lines += [(1, *one, True, []) for one in PLAIN]
    scenarios = source.of(("IDX", "ABC"))[0]
    days = len(numbers.historical_pnl)

    def worth(moves, changes, elapsed):
        spots = np.array([SPOT, 50.0]) * np.exp(moves)
        total = 20.0 * spots[0]
        for (place, strike, call, size, early, given), vol in zip(lines, vols, strict=True):
            later = [(when - elapsed, amount) for when, amount in given]
            total += size * tree(
                spots[place], strike, 0.5 - elapsed, vol + changes[place], RATE, YIELD, call, later,
                steps=500, early=early,
            )  # fmt: skip
        return total

    today = worth(np.zeros(2), np.zeros(2), 0.0)
    allowed = CONTRACTS * (numbers.premium_error * SPOT + 4e-3)
    assert numbers.value == pytest.approx(today, abs=allowed)
    found = np.concatenate((numbers.historical_pnl, numbers.stress_pnl))
    worst = int(np.argmin(numbers.historical_pnl))
    changes = np.broadcast_to(scenarios.vol_change, (len(scenarios), 2))
    for scenario in (worst, 7, days, days + 4):
        elapsed = float(scenarios.elapsed[scenario])
        then = worth(scenarios.spot_return[scenario], changes[scenario], elapsed)
        assert found[scenario] == pytest.approx(then - today, abs=2.0 * allowed), scenario


def test_what_is_implied_from_a_quote_is_worth_the_quote(engine, source):
    state = market()
    for strike, call in ((110.0, True), (90.0, False)):
        made = portfolio("desk", rows=[option(strike, call, 1.0)], underlyings=("IDX",))
        packing.write(made.positions, "american", [True])
        made.dividends.underlying_index.append(0)
        made.dividends.ex_time_ns.append(NOW_NS + DAY_NS)
        made.dividends.amount.append(1.5)
        _, _, numbers = live(engine, source, check(made), state)
        slots = state.find([osi("IDX", "C" if call else "P", strike)])
        quote = float(state.column("mid", slots)[0])
        assert numbers.value == pytest.approx(quote, abs=numbers.premium_error * SPOT + 1e-4)


def test_until_the_first_table_they_are_named_and_then_in_without_a_tick(engine, source):
    state, tables = market(), Tables(engine)
    books, book, numbers = live(engine, source, mixed(), state, tables)
    named = [(row, gk.Status.NOT_VALUED_LIVE) for row in range(len(AMERICAN))]
    assert [(one.row, one.status) for one in numbers.faults] == named
    metrics = MetricsWriter(engine, 0.975).write(state, book, numbers)
    assert all(np.isnan(one.used) and not one.breached for one in metrics.limits)
    assert books.measure(state, VolMarks()) == []
    tables.give()
    (book,) = books.measure(state, VolMarks())
    numbers = books.numbers("desk")
    agree(engine, source, numbers, book, state)
    metrics = MetricsWriter(engine, 0.975).write(state, book, numbers)
    assert not metrics.faults
    assert all(one.used > 0.0 for one in metrics.limits)
    # Another schedule is another contract: nothing is read from the table of the first.
    other = mixed(((DAY_NS // 2, 3.0), *PAID[1:]), version=2)
    books.take([other], NOBODY, state)
    books.measure(state, VolMarks())
    changed = books.numbers("desk")
    assert [(one.row, one.status) for one in changed.faults] == named
    tables.give()
    (book,) = books.measure(state, VolMarks())
    agree(engine, source, books.numbers("desk"), book, state)
    assert abs(books.numbers("desk").historical_pnl - numbers.historical_pnl).max() > 0.1


def test_no_table_is_read_past_an_ex_date(engine, source):
    # So little that nothing else moves: no vol, and no strike's side out of the money.
    paid = ((10 * 60 * 10**9, 0.02), *PAID[1:])
    state, tables = market(), Tables(engine)
    books, _, _ = live(engine, source, mixed(paid), state, tables)
    tables.give()
    (book,) = books.measure(state, VolMarks())
    agree(engine, source, books.numbers("desk"), book, state)
    for seconds, faults in ((599, 0), (601, len(AMERICAN))):
        state.apply(quotes(["IDX"], [SPOT], time_ns=NOW_NS + seconds * 10**9), "IDX", 0, 5 + seconds)
        books.touch("IDX")
        (book,) = books.measure(state, VolMarks())
        assert len(books.numbers("desk").faults) == faults
    # The first to come was asked for before the ex-date, because of the other's age, and is of no use.
    for _ in range(2):
        tables.give()
        (book,) = books.measure(state, VolMarks())
    agree(engine, source, books.numbers("desk"), book, state)


def test_monte_carlo_has_them(engine, source):
    state = market()
    # Worth exercising before the stock pays: what waits for tomorrow has lost that.
    rows = [option(80.0, True, 40.0), option(110.0, False, 5.0), spot_position(-30.0)]
    held = portfolio("desk", rows=rows)
    packing.write(held.positions, "american", [True, True, False])
    held.dividends.underlying_index.append(0)
    held.dividends.ex_time_ns.append(NOW_NS + 20 * HOUR_NS)
    held.dividends.amount.append(3.0)
    books = {"desk": Book.of(check(held), state)}
    made = SlowRisk.of(engine, source, 0.975)
    made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
    plain = RiskCalculator(engine, made.risk.scenarios, 0.975).measure(state, books["desk"], VolMarks())
    allowed = 2.0 * 45.0 * made.risk.numbers(0).premium_error * SPOT
    found, wanted = made.latest["desk"].tail.expected_shortfall, plain.historical[0].expected_shortfall
    assert found == pytest.approx(wanted, abs=allowed)
    assert allowed > 0.0
    held.positions.ClearField("american")
    never = RiskCalculator(engine, made.risk.scenarios, 0.975).measure(
        state, Book.of(check(held), state), VolMarks()
    )
    assert abs(never.historical[0].expected_shortfall - wanted) > 5.0 * allowed
