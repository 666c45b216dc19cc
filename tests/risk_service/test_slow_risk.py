"""Monte-Carlo ES of the live books against closed forms and the plain engine."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from worlds import SPOT, option, portfolio, priced_market, quotes, spot_position

import gpu_kernels as gk
from protos import packing
from protos.risk.v1.risk_pb2 import AnalyticsResult
from risk_service import slow_risk
from risk_service.analytics import Analytics
from risk_service.analytics_bars import Bar, History
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import RiskCalculator, ScenarioSource
from risk_service.live_snapshot import LiveSnapshot, SnapshotDesk
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.slow_process import SlowProcess
from risk_service.slow_risk import SCENARIOS, MonteCarloSource, SlowRisk
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks
from service_kit.lifecycle import Stop

ROWS = (option(90.0, False, 10.0), option(100.0, True, -20.0), option(110.0, True, 5.0), spot_position(150.0))
PATIENCE_S = 120.0  # a cold cache of compiled kernels on a busy machine
OTHER = (*ROWS, spot_position(-40.0, "ABC", 1))


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def history():
    random = np.random.default_rng(8)
    moves = 0.01 * random.standard_normal((400, 2))
    moves[:, 1] = 0.5 * moves[:, 0] + moves[:, 1]
    return PriceHistory(("IDX", "ABC"), SPOT * np.exp(np.cumsum(moves, axis=0)), np.full((400, 2), 0.2))


# Two underlyings; what was said of the second came later.
BARS = History(
    ("IDX", "ABC"),
    tuple(
        Bar(
            1_000 + second, *np.array([[100.0 + second, 50.0], [1.0, 0.0], [99.0, 0.0]])[:, : 1 + second // 3]
        )
        for second in range(6)
    ),
    1_006,
)


def slow(engine, history, messages):
    state = priced_market()
    state.apply(quotes(["ABC"], [50.0]), "ABC", 1, 0)
    books = {message.portfolio: Book.of(check(message), state) for message in messages}
    made = SlowRisk.of(engine, ScenarioSource(history, 500), 0.975)
    made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
    return made, state, books


def test_es_of_shares_is_that_of_the_normal_distribution(engine, history):
    message = portfolio(rows=[spot_position(150.0)], underlyings=("IDX",))
    made, _, _ = slow(engine, history, [message])
    deviation = made.risk.scenarios.historical(("IDX",)).spot_return.std()
    wanted = 150.0 * SPOT * deviation * norm.pdf(norm.ppf(0.975)) / 0.025
    assert made.latest["desk"].tail.expected_shortfall == pytest.approx(wanted, rel=0.02)


def test_components_add_up_and_are_jointly_drawn(engine, history):
    message = portfolio(rows=OTHER, underlyings=("IDX", "ABC"))
    made, state, books = slow(engine, history, [message])
    found = made.latest["desk"]
    assert sum(found.component_es) == pytest.approx(found.tail.expected_shortfall, rel=1e-10)
    joint = made.risk.scenarios.historical(("IDX", "ABC"))
    assert len(joint) == SCENARIOS
    correlation = np.corrcoef(joint.spot_return.T)[0, 1]
    assert correlation == pytest.approx(0.45, abs=0.1)
    # The book's ES is that of the engine under the same scenarios.
    alone = RiskCalculator(engine, made.risk.scenarios, 0.975).measure(state, books["desk"], VolMarks())
    assert found.tail.expected_shortfall == pytest.approx(alone.historical[0].expected_shortfall, rel=1e-10)


def test_a_number_tells_the_newest_result_and_its_age_of_its_own_version_only(engine, history):
    made, state, books = slow(engine, history, [portfolio(rows=ROWS)])
    risk = DeskRisk(engine, ScenarioSource(history, 500), DeskPremiums(engine))
    risk.hold(list(books.values()))
    risk.measure(state, VolMarks(), {"IDX"})
    state.apply(quotes(["IDX"], [SPOT], time_ns=state.clocks.source_time_ns + 700_000_000), "IDX", 0, 99)
    writer = MetricsWriter(engine, 0.975)
    metrics = writer.write(state, books["desk"], risk.numbers(0), None, made.latest["desk"])
    assert metrics.monte_carlo_age_ns == 700_000_000
    assert metrics.monte_carlo[0] == made.latest["desk"].tail
    assert list(metrics.component_es_by_underlying) == list(made.latest["desk"].component_es)
    newer = Book.of(check(portfolio(rows=ROWS[:2])), state)
    risk.hold([newer])
    risk.measure(state, VolMarks(), {"IDX"})
    assert not writer.write(state, newer, risk.numbers(0), None, made.latest["desk"]).monte_carlo


def test_vols_move_with_their_underlyings_as_they_did(engine):
    random = np.random.default_rng(4)
    moves = 0.01 * random.standard_normal(400)
    vols = 0.2 + np.cumsum(-0.5 * moves)
    history = PriceHistory(("IDX",), SPOT * np.exp(np.cumsum(moves))[:, None], vols[:, None])
    joint = MonteCarloSource(history, 300).historical(("IDX",))
    np.testing.assert_allclose(joint.vol_change, -0.5 * joint.spot_return, rtol=1e-9)


def test_too_many_american_contracts_are_named_in_every_books_number(engine, history, monkeypatch, caplog):
    monkeypatch.setattr(slow_risk, "AMERICAN_CONTRACTS_MAX", 2)
    message = portfolio(rows=ROWS)
    packing.write(message.positions, "american", [True])
    made, state, books = slow(engine, history, [message])
    (why,) = made.latest["desk"].tail.warnings
    assert "holds 3 American contracts, and with those of smaller books there are more than 2" in why
    made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
    assert caplog.text.count("American") == 1
    risk = DeskRisk(engine, ScenarioSource(history, 500), DeskPremiums(engine))
    risk.hold(list(books.values()))
    risk.measure(state, VolMarks(), {"IDX"})
    metrics = MetricsWriter(engine, 0.975).write(
        state, books["desk"], risk.numbers(0), None, made.latest["desk"]
    )
    assert list(metrics.monte_carlo[0].warnings) == [why]
    assert math.isnan(metrics.monte_carlo[0].expected_shortfall)


def american(name, rows):
    message = portfolio(name, rows=rows)
    packing.write(message.positions, "american", [True])
    return message


def test_too_many_american_contracts_cost_the_other_books_nothing(engine, history, monkeypatch):
    """What two books share counts once; the book that is too much is that with the most."""
    many = [option(strike, False, 3.0) for strike in (80.0, 90.0, 100.0)]
    messages = [
        american("many", [*many, option(110.0, False, 1.0)]),
        american("some", many[1:]),
        american("same", many[1:]),
        portfolio("plain", rows=ROWS),
    ]
    free, _, _ = slow(engine, history, messages)
    monkeypatch.setattr(slow_risk, "AMERICAN_CONTRACTS_MAX", 3)
    made, state, books = slow(engine, history, messages)
    assert "holds 4 American contracts" in made.latest["many"].tail.warnings[0]
    assert math.isnan(made.latest["many"].tail.expected_shortfall)
    for name in ("some", "same", "plain"):
        assert made.latest[name].book is books[name]
        assert made.latest[name].tail.expected_shortfall == pytest.approx(
            free.latest[name].tail.expected_shortfall, rel=1e-12
        )
    del books["many"]
    made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
    assert sorted(made.latest) == ["plain", "same", "some"]


def test_an_underlying_that_the_engine_refuses_costs_the_books_on_others_nothing(
    engine, history, monkeypatch, caplog
):
    made, state, books = slow(engine, history, [portfolio(rows=OTHER, underlyings=("IDX", "ABC"))])
    alone = Book.of(check(portfolio("alone", rows=ROWS)), state)
    measure = DeskRisk.measure

    def refuse(self, market, marks, names):
        if names == {"ABC"}:
            raise gk.InvalidInput("vol", "is what it is")
        measure(self, market, marks, names)

    monkeypatch.setattr(DeskRisk, "measure", refuse)
    for _ in range(2):
        made.measure(LiveSnapshot(state, VolMarks(), books | {"alone": alone}, {}), Stop())
    assert "is what it is" in made.latest["desk"].tail.warnings[0]
    assert made.latest["alone"].tail.expected_shortfall > 0.0
    assert caplog.text.count("is what it is") == 1


def test_a_book_beyond_all_numbers_costs_the_others_nothing(engine, history):
    made, state, books = slow(engine, history, [portfolio(rows=ROWS)])
    huge = replace(check(portfolio("huge", rows=[spot_position(1.0)])), quantity=np.array([1e307]))
    every = books | {"huge": Book.of(huge, state)}
    made.measure(LiveSnapshot(state, VolMarks(), every, {}), Stop())
    assert made.latest["desk"].tail.expected_shortfall > 0.0
    assert "pnl" in made.latest["huge"].tail.warnings[0]


def test_without_history_it_says_so(engine):
    made, _, _ = slow(engine, None, [portfolio(rows=ROWS)])
    tail = made.latest["desk"].tail
    assert math.isnan(tail.expected_shortfall)
    assert list(tail.warnings) == ["no price history is loaded"]


def test_american_books_are_those_of_the_engine_within_the_stated_error(engine, history):
    message = portfolio(rows=ROWS)
    packing.write(message.positions, "american", [True])
    state = priced_market()
    held = DeskBooks(DeskRisk(engine, ScenarioSource(history, 100), DeskPremiums(engine)))
    held.take([check(message)], Positions(AccountRule.of([])), state)
    plain = RiskCalculator(engine, held.risk.scenarios, 0.975)
    for spot in (SPOT, SPOT * 1.004, SPOT * 1.05):
        state.apply(quotes(["IDX"], [spot]), "IDX", 0, 9)
        held.touch("IDX")
        (book,) = held.measure(state, VolMarks())
        numbers = held.numbers(book.held.name)
        wanted = plain.measurement(state, book, VolMarks())
        # Each of 35 options may be wrong by as much.
        allowed = 35.0 * numbers.premium_error * spot
        assert numbers.premium_error > 0.0
        assert numbers.value == pytest.approx(wanted.metrics.value, abs=allowed)
        assert numbers.historical_pnl == pytest.approx(wanted.historical_pnl, abs=2.0 * allowed)
        assert abs(numbers.greeks[0, 0] - wanted.metrics.greeks.delta[0]) < 0.05
    # Two tables: the third spot lies outside the first one's range.
    assert held.risk.premiums.built == 2


@pytest.fixture
def apart(history):
    """Monte Carlo in its own process, over a desk that is given `snapshot`; and the snapshot."""
    rows = [(*row[:-1], number % 2) for number, row in enumerate(OTHER)]
    message = portfolio(rows=rows, underlyings=("IDX", "ABC"), groups=("even", "odd"))
    _, state, books = slow(gk.engine("cpu"), history, [message])
    desk, stop = SnapshotDesk(1), Stop()
    told = []
    process = SlowProcess(desk, "cpu", ScenarioSource(history, 500), 0.975, told.append)
    carrying = threading.Thread(target=process.run, args=(stop,))
    carrying.start()
    yield process, LiveSnapshot(state, VolMarks(), books, {}, bars=BARS), told
    stop.set()
    desk.close()
    carrying.join(PATIENCE_S)
    assert not carrying.is_alive()


def answered(process, snapshot):
    """Hands out the snapshot until numbers have come back."""
    process.latest = {}
    ends = time.monotonic() + PATIENCE_S
    while not process.latest:
        assert time.monotonic() < ends
        process.desk.answer(lambda: snapshot)
        threading.Event().wait(0.01)
    return process.latest


def test_a_process_of_its_own_comes_to_the_same_bits(apart, engine, history):
    process, snapshot, _ = apart
    here = SlowRisk.of(engine, ScenarioSource(history, 500), 0.975)
    here.measure(snapshot, Stop())
    for _ in range(2):  # the second time it is not told the books again
        found = answered(process, snapshot)["desk"]
        wanted = here.latest["desk"]
        assert found.book is snapshot.books["desk"]
        assert replace(found, book=wanted.book) == wanted
        assert len(found.component_es_by_group) == 2


def test_a_process_tells_analytics_of_each_bar_once(apart):
    process, snapshot, told = apart
    wanted = Analytics().results(BARS)
    assert [one.key for one in wanted] == ["IDX", "ABC"]
    answered(process, snapshot)
    answered(process, snapshot)
    assert told == [wanted, []]
    one_more = BARS.bars[-1]._replace(number=1_009)
    answered(process, replace(snapshot, bars=BARS._replace(bars=(*BARS.bars, one_more), ends=1_010)))
    assert AnalyticsResult.FromString(told[-1][0].value).time_ns == 1_010_000_000_000


def test_a_process_that_dies_is_replaced(apart):
    process, snapshot, told = apart
    first = answered(process, snapshot)["desk"]
    dead = process.pid
    os.kill(dead, signal.SIGKILL)
    again = answered(process, snapshot)["desk"]
    while process.pid == dead:
        again = answered(process, snapshot)["desk"]
    assert again.tail == first.tail
    # Whoever takes its place is given all bars.
    assert told.count(Analytics().results(BARS)) == 2
