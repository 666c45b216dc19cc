"""Where a live expected shortfall comes from, by group and underlying: against formulas of its own."""

from __future__ import annotations

import numpy as np
import pytest
from worlds import (
    DAY_NS,
    NOW_NS,
    RATE,
    SPOT,
    YEAR_NS,
    YIELD,
    black_scholes,
    option,
    portfolio,
    priced_market,
    quotes,
    smile,
    spot_position,
)

import gpu_kernels as gk
from gpu_kernels.es_components import component_es
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service import slow_risk
from risk_service.book_parts import BookParts
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import ScenarioSource
from risk_service.live_snapshot import LiveSnapshot
from risk_service.portfolios import check
from risk_service.positions import with_fills
from risk_service.price_history import PriceHistory
from risk_service.slow_risk import SlowRisk
from risk_service.valuation import Book, value
from risk_service.vol_marks import VolMarks
from service_kit.lifecycle import Stop

NAMES, GROUPS = ("IDX", "ABC"), ("vol", "nothing", "carry", "stock")
FUTURE_YEARS = 0.75
ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0, group=2),
    option(100.0, True, 8.0),  # the same contract in another group
    spot_position(150.0, group=3),
    ("IDX", wire.INSTRUMENT_KIND_FUTURE, -3.0, 0.0, False, FUTURE_YEARS, 0, 2),
    spot_position(-40.0, "ABC", 1, group=3),
)
UNGROUPED = [(*row[:-1], 0) for row in ROWS]


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def history():
    random = np.random.default_rng(8)
    moves = 0.01 * random.standard_normal((400, 2))
    vols = 0.2 * np.exp(0.05 * random.standard_normal((400, 2)))
    return PriceHistory(NAMES, SPOT * np.exp(np.cumsum(moves, axis=0)), vols)


def market():
    state = priced_market()
    state.apply(quotes(["ABC"], [50.0]), "ABC", 1, 0)
    return state


def slow(engine, history, held, state):
    made = SlowRisk.of(engine, ScenarioSource(history, 300), 0.975)
    books = {one.name: Book.of(one, state) for one in held}
    made.measure(LiveSnapshot(state, VolMarks(), books, {}), Stop())
    return made, books


def gains(scenarios, rows=ROWS):
    """Of each row (rows, scenarios), from the formula."""
    spots = np.array([SPOT, 50.0]) * np.exp(scenarios.spot_return)
    vols = np.broadcast_to(scenarios.vol_change, spots.shape)
    left = 0.5 - scenarios.elapsed
    found = []
    for _, kind, quantity, strike, is_call, _, place, _ in rows:
        if kind == wire.INSTRUMENT_KIND_OPTION:
            vol = smile(strike)
            then = black_scholes(
                spots[:, place], strike, left, np.maximum(vol + vols[:, place], 1e-4), is_call
            )
            found.append(quantity * (then - black_scholes(SPOT, strike, 0.5, vol, is_call)))
        elif kind == wire.INSTRUMENT_KIND_FUTURE:
            carry = RATE - YIELD
            then = spots[:, place] * np.exp(carry * (FUTURE_YEARS - scenarios.elapsed))
            found.append(quantity * (then - SPOT * np.exp(carry * FUTURE_YEARS)))
        else:
            found.append(quantity * (spots[:, place] - (SPOT, 50.0)[place]))
    return np.array(found)


def mean_losses(pnl, level=0.975):
    """Each row's part of the expected shortfall of their sum."""
    order = np.argsort(pnl.sum(axis=0))
    k = pnl.shape[1] * (1.0 - level)
    weight = np.clip(k - np.arange(pnl.shape[1]), 0.0, 1.0) / k
    return -(pnl[:, order] @ weight)


def test_monte_carlo_shortfall_by_group_and_underlying_is_that_of_the_formulas(engine, history):
    held = check(portfolio(rows=ROWS, underlyings=NAMES, groups=GROUPS))
    made, books = slow(engine, history, [held], market())
    found = made.latest["desk"]
    parts = mean_losses(gains(made.risk.scenarios.historical(NAMES)))
    by_group = np.bincount([row[-1] for row in ROWS], parts, len(GROUPS))
    by_underlying = np.bincount([row[-2] for row in ROWS], parts, 2)
    np.testing.assert_allclose(found.component_es_by_group, by_group, rtol=1e-8)
    np.testing.assert_allclose(found.component_es, by_underlying, rtol=1e-8)
    assert found.component_es_by_group[1] == 0.0
    assert sum(found.component_es_by_group) == pytest.approx(found.tail.expected_shortfall, rel=1e-12)
    # As the message tells it, with the names; and a book without groups has none.
    risk = DeskRisk(engine, ScenarioSource(history, 300), DeskPremiums(engine))
    risk.hold(list(books.values()))
    state = market()
    risk.measure(state, VolMarks(), set(NAMES))
    metrics = MetricsWriter(engine, 0.975).write(state, books["desk"], risk.numbers(0), None, found)
    assert tuple(metrics.group) == GROUPS
    assert tuple(metrics.component_es_by_group) == found.component_es_by_group
    plain, _ = slow(engine, history, [check(portfolio(rows=UNGROUPED, underlyings=NAMES))], market())
    assert plain.latest["desk"].component_es_by_group == ()
    assert plain.latest["desk"].tail.expected_shortfall == pytest.approx(
        found.tail.expected_shortfall, rel=1e-12
    )


def test_historical_shortfall_by_underlying_is_that_of_the_formulas(engine, history):
    held, state = check(portfolio(rows=UNGROUPED, underlyings=NAMES)), market()
    source = ScenarioSource(history, 300)
    risk = DeskRisk(engine, source, DeskPremiums(engine))
    book = Book.of(held, state)
    risk.hold([book])
    risk.measure(state, VolMarks(), set(NAMES))
    metrics = MetricsWriter(engine, 0.975).write(state, book, risk.numbers(0))
    parts = mean_losses(gains(history.scenarios(NAMES, 300)))
    wanted = np.bincount([row[-2] for row in ROWS], parts, 2)
    told = packing.read(metrics, "historical_component_es_by_underlying")
    np.testing.assert_allclose(told, wanted, rtol=1e-8)
    assert told.sum() == pytest.approx(metrics.historical[0].expected_shortfall, rel=1e-12)


def test_fills_are_a_group_of_their_own(engine, history):
    held = check(portfolio(rows=ROWS, underlyings=NAMES, groups=GROUPS))
    filled = with_fills(held, {ROWS[0][0]: 2.0, "ABC": 5.0, option(110.0, True)[0]: 9.0})
    made, _ = slow(engine, history, [filled], market())
    found = made.latest["desk"]
    more = (option(110.0, True, 9.0, group=4),)
    rows = [(*row[:2], 12.0, *row[3:]) if row is ROWS[0] else row for row in (*ROWS, *more)]
    rows[5] = (*rows[5][:2], -35.0, *rows[5][3:])
    parts = mean_losses(gains(made.risk.scenarios.historical(NAMES), rows))
    by_group = np.bincount([row[-1] for row in rows], parts, 5)
    np.testing.assert_allclose(found.component_es_by_group, by_group, rtol=1e-8)


@pytest.mark.parametrize("american", [False, True])
def test_parts_hold_what_the_book_holds(engine, history, american):
    """Dividends, futures and early exercise too: each part as the engine values its positions."""
    message = portfolio(rows=ROWS, underlyings=NAMES, groups=GROUPS)
    packing.write(message.positions, "american", [american] * len(ROWS))
    if not american:
        packing.write(message.dividends, "underlying_index", [1, 0, 0])
        packing.write(
            message.dividends, "ex_time_ns", [NOW_NS + DAY_NS, NOW_NS + YEAR_NS // 4, NOW_NS + YEAR_NS]
        )
        packing.write(message.dividends, "amount", [0.5, 2.0, 9.0])
    state = market()
    made, books = slow(engine, history, [check(message)], state)
    found = made.latest["desk"]
    valued = value(engine, state, books["desk"], VolMarks())
    wanted = component_es(engine, valued.portfolio, made.risk.scenarios.historical(NAMES))
    close = {"rel": 1e-8} if not american else {"abs": 38 * 2e-4 * SPOT}
    for group, name in enumerate(GROUPS):
        there = wanted.by_group[group] if group < len(wanted.by_group) else 0.0
        assert found.component_es_by_group[group] == pytest.approx(there, **close), name
    assert sum(found.component_es_by_group) == pytest.approx(found.tail.expected_shortfall, rel=1e-10)
    if american:
        plain = portfolio(rows=UNGROUPED, underlyings=NAMES)
        packing.write(plain.positions, "american", [True] * len(ROWS))
        whole, _ = slow(engine, history, [check(plain)], state)
        assert whole.latest["desk"].tail.expected_shortfall == pytest.approx(
            found.tail.expected_shortfall, rel=1e-10
        )


def test_groups_that_would_take_too_much_memory_are_left_out_by_name(engine, history, monkeypatch):
    few = check(portfolio("few", rows=ROWS[:2], underlyings=NAMES, groups=GROUPS))
    many = check(portfolio("many", rows=ROWS, underlyings=NAMES, groups=GROUPS))
    free, _ = slow(engine, history, [few, many], market())
    assert BookParts.by_group(Book.of(many, market())).more_cells == 2
    monkeypatch.setattr(slow_risk, "CELLS_MAX", 1)
    made, _ = slow(engine, history, [few, many], market())
    assert made.latest["few"].component_es_by_group == free.latest["few"].component_es_by_group
    found = made.latest["many"]
    assert found.component_es_by_group == ()
    assert list(found.tail.warnings) == ["no components by group: the live books have more than 1"]
    assert found.component_es == pytest.approx(free.latest["many"].component_es, rel=1e-12)
