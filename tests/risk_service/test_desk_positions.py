"""What counts of futures, of what is over, with dividends; and what many small books take."""

from __future__ import annotations

from datetime import UTC, datetime

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
    expiry_of,
    option,
    osi,
    portfolio,
    priced_market,
    quotes,
    reference,
    smile,
    spot_position,
)

import gpu_kernels as gk
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_service.desk import Desk
from risk_service.desk_books import DeskBooks
from risk_service.desk_premiums import DeskPremiums
from risk_service.desk_risk import DeskRisk
from risk_service.live_metrics import MetricsWriter
from risk_service.live_risk import GREEKS, RiskCalculator, ScenarioSource
from risk_service.live_snapshot import LiveSnapshot
from risk_service.on_demand.books import stored_book
from risk_service.on_demand.stress import value_today
from risk_service.portfolios import check
from risk_service.positions import AccountRule, Positions
from risk_service.price_history import PriceHistory
from risk_service.valuation import Book
from risk_service.vol_marks import VolMarks

NOBODY = Positions(AccountRule({}))


@pytest.fixture(scope="module")
def engine():
    return gk.engine("cpu")


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(8)
    closes = SPOT * np.exp(np.cumsum(0.01 * random.standard_normal((300, 2)), axis=0))
    vols = 0.2 + 0.02 * random.random((300, 2))
    return ScenarioSource(PriceHistory(("IDX", "ABC"), closes, vols), 200)


def future(quantity, years, symbol="IDXF", group=0):
    return (symbol, wire.INSTRUMENT_KIND_FUTURE, quantity, 0.0, False, years, 0, group)


def live(engine, source, held, state):
    """The live desk, and its numbers of one portfolio."""
    books = DeskBooks(DeskRisk(engine, source, DeskPremiums(engine)))
    books.take([held], NOBODY, state)
    (book,) = books.measure(state, VolMarks())
    return books, book, books.numbers(book.held.name)


def agree(numbers, metrics, measurement):
    """The live numbers against a plain revaluation of the same book at the same market."""
    scale = 1e-12 * max(1.0, metrics.gross_value)
    assert numbers.value == pytest.approx(metrics.value, abs=scale)
    assert numbers.gross_value == pytest.approx(metrics.gross_value, abs=scale)
    for column, name in enumerate(GREEKS):
        wanted = packing.read(metrics.greeks, name)
        np.testing.assert_allclose(numbers.greeks[:, column], wanted, rtol=1e-11, atol=1e-9)
    np.testing.assert_allclose(
        numbers.historical_pnl, measurement.historical_pnl, rtol=1e-11, atol=1e-11 * metrics.gross_value
    )
    wanted = packing.read(metrics, "stress_pnl")
    np.testing.assert_allclose(numbers.stress_pnl, wanted, rtol=1e-11, atol=1e-11 * metrics.gross_value)
    assert [(f.row, f.status) for f in numbers.faults] == [(f.row, f.status) for f in metrics.faults]


def test_a_future_is_worth_nothing_today_and_gains_what_its_forward_does(engine, source):
    state = priced_market()
    rows = [future(10.0, 0.5), future(-4.0, 1.0, "IDXG"), spot_position(3.0)]
    made = portfolio(rows=rows)
    packing.write(made.positions, "multiplier", [50.0, 20.0, 1.0])
    held = check(made)
    _, book, numbers = live(engine, source, held, state)
    size, years = np.array([500.0, -80.0]), np.array([0.5, 1.0])

    def forwards(spot=SPOT, elapsed=0.0, rate=RATE):
        return np.multiply.outer(spot, np.exp((rate - YIELD) * (years - elapsed)))

    assert numbers.value == pytest.approx(3.0 * SPOT, rel=1e-14)
    assert numbers.gross_value == pytest.approx(np.abs(size) @ forwards() + 3.0 * SPOT, rel=1e-14)
    step = 1e-5
    slopes = dict.fromkeys(GREEKS, 0.0) | {
        "delta": size @ (forwards(SPOT + 1.0) - forwards()) + 3.0,
        "theta": size @ (forwards(elapsed=step) - forwards(elapsed=-step)) / (2 * step),
        "rho": size @ (forwards(rate=RATE + step) - forwards(rate=RATE - step)) / (2 * step),
        "charm": size @ (forwards(1.0, step) - forwards(1.0, -step)) / (2 * step),
    }
    np.testing.assert_allclose(numbers.greeks[0], [slopes[name] for name in GREEKS], rtol=1e-9)
    history = source.historical(("IDX",))
    spots = SPOT * np.exp(history.spot_return[:, 0])
    gained = (forwards(spots, history.elapsed[0]) - forwards()) @ size + 3.0 * (spots - SPOT)
    np.testing.assert_allclose(numbers.historical_pnl, gained, rtol=1e-12, atol=1e-8)
    measurement = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks())
    agree(numbers, measurement.metrics, measurement)
    snapshot = LiveSnapshot(state, VolMarks(), {"desk": book}, {})
    assert value_today(engine, stored_book(engine, snapshot, held, fills=True)) == pytest.approx(300.0)


def test_the_live_numbers_of_futures_are_those_of_risk_stress(engine, source, tmp_path):
    """`risk stress` in-process, its market file at the very second of the live market."""
    from risk_cli.stress.book import arrange, at_market
    from risk_cli.stress.in_process import _today
    from risk_cli.stress.market_file import read_market
    from risk_cli.stress.portfolio_file import read_portfolio

    now = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    (tmp_path / "market.toml").write_text(
        f"date = {now:%Y-%m-%dT%H:%M:%SZ}\n[underlying.IDX]\nspot = {SPOT}\nvol = 0.2\n"
        f"rate = {RATE}\ndividend_yield = {YIELD}\n"
    )
    (tmp_path / "book.csv").write_text(
        "portfolio,underlying,kind,expiry,multiplier,quantity\n"
        "desk,IDX,future,0.5,50,10\ndesk,IDX,future,1.0,20,-4\ndesk,IDX,spot,,1,3\n"
    )
    book = at_market(arrange(read_portfolio(tmp_path / "book.csv")), read_market(tmp_path / "market.toml"))
    values, exposures = _today(engine, book)
    made = portfolio(rows=[future(10.0, 0.5), future(-4.0, 1.0, "IDXG"), spot_position(3.0)])
    packing.write(made.positions, "multiplier", [50.0, 20.0, 1.0])
    _, _, numbers = live(engine, source, check(made), priced_market())
    assert numbers.value == pytest.approx(values.sum(), rel=1e-12)
    assert numbers.greeks[0, 0] * SPOT == pytest.approx(exposures[0].delta, rel=1e-12)
    pnl = engine.revalue(book.portfolio, source.historical(("IDX",)))
    np.testing.assert_allclose(numbers.historical_pnl, pnl, rtol=1e-11, atol=1e-8)


def test_what_has_expired_is_named_and_counts_for_nothing(engine, source):
    state = priced_market()
    short = osi("IDX", "C", 100.0, expiry_of(1 / 365))
    worth = black_scholes(SPOT, 100.0, 1 / 365, smile(100.0), True)
    state.apply(quotes([short], [worth]), "IDX", 0, 4)
    rows = [
        option(90.0, True, 10.0),
        option(100.0, True, 7.0, years=1 / 365),
        future(10.0, 1 / 365),
        spot_position(5.0),
        future(2.0, 0.5, "IDXG"),
    ]
    books, book, before = live(engine, source, check(portfolio(rows=rows)), state)
    assert before.faults == ()
    # Its expiry to the second: still worth what it pays.
    state.apply(quotes(["IDX"], [SPOT], time_ns=NOW_NS + DAY_NS), "IDX", 0, 5)
    books.touch("IDX")
    books.measure(state, VolMarks())
    assert books.numbers("desk").faults == ()
    state.apply(quotes(["IDX"], [SPOT], time_ns=NOW_NS + DAY_NS + 1_000_000_000), "IDX", 0, 6)
    books.touch("IDX")
    books.measure(state, VolMarks())
    after = books.numbers("desk")
    assert [(f.row, f.symbol, f.status) for f in after.faults] == [
        (1, short, gk.Status.EXPIRED),
        (2, "IDXF", gk.Status.EXPIRED),
    ]
    rest = check(portfolio(rows=[rows[0], rows[3], rows[4]]))
    _, _, wanted = live(engine, source, rest, state)
    assert after.value == pytest.approx(wanted.value, rel=1e-14)
    assert after.gross_value == pytest.approx(wanted.gross_value, rel=1e-14)
    np.testing.assert_allclose(after.greeks, wanted.greeks, rtol=1e-13)
    np.testing.assert_allclose(after.historical_pnl, wanted.historical_pnl, rtol=1e-12, atol=1e-9)
    measurement = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks())
    agree(after, measurement.metrics, measurement)
    snapshot = LiveSnapshot(state, VolMarks(), {"desk": book}, {})
    said = stored_book(engine, snapshot, book.held, fills=True).left_out()
    assert said == [
        f"position 1, {short}, is left out: it has expired",
        "position 2, IDXF, is left out: it has expired",
    ]
    # What is over takes no limit with it: nothing of it can be lost any more.
    metrics = MetricsWriter(engine, 0.975).write(state, book, after)
    assert [fault.status for fault in metrics.faults] == [wire.ROW_STATUS_EXPIRED] * 2
    assert all(np.isfinite(usage.used) for usage in metrics.limits)


def paying(name, amounts, *, extra=()):
    """Calls and puts at four strikes on a stock that pays within days, within the year and after expiry."""
    rows = [option(strike, call, 10.0 - 3 * call) for strike in (80.0, 90.0, 100.0, 110.0) for call in (0, 1)]
    rows += [option(50.0, True, 4.0, underlying="ABC", place=1), spot_position(20.0), *extra]
    made = portfolio(name, rows=rows, underlyings=("IDX", "ABC"))
    when = NOW_NS + np.array([DAY_NS // 2, YEAR_NS // 4, YEAR_NS])
    packing.write(made.dividends, "underlying_index", np.zeros(3, np.uint32))
    packing.write(made.dividends, "ex_time_ns", when)
    packing.write(made.dividends, "amount", amounts)
    return check(made)


def two_stocks():
    state = priced_market()
    state.apply(reference("ABC"), "ABC", 1, 0)
    state.apply(quotes(["ABC", osi("ABC", "C", 50.0)], [50.0, 3.0]), "ABC", 1, 1)
    return state


def test_european_options_with_dividends_are_in_the_live_numbers(engine, source):
    """Two portfolios that state other dividends of the same stock, and one that states none, on one desk."""
    state = two_stocks()
    futures = (future(6.0, 0.5), future(-2.0, 1.5, "IDXG"))
    held = [
        paying("a", [0.5, 2.0, 9.0], extra=futures),
        paying("b", [0.0, 3.5, 9.0], extra=futures),
        paying("c", [0.0, 0.0, 9.0]),
    ]
    books = DeskBooks(DeskRisk(engine, source, DeskPremiums(engine)))
    books.take(held, NOBODY, state)
    values = []
    for book in books.measure(state, VolMarks()):
        numbers = books.numbers(book.held.name)
        assert numbers.faults == ()
        measurement = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks())
        agree(numbers, measurement.metrics, measurement)
        values.append(measurement.historical_pnl)
    assert np.abs(values[0] - values[1]).max() > 0.1
    assert np.abs(values[0] - values[2]).max() > 0.1
    # Past the ex-dates the dividends are paid, and nothing is left of them.
    state.apply(quotes(["IDX"], [SPOT], time_ns=NOW_NS + 200 * DAY_NS), "IDX", 0, 4)
    books.touch("IDX")
    for book in books.measure(state, VolMarks()):
        measurement = RiskCalculator(engine, source, 0.975).measurement(state, book, VolMarks())
        agree(books.numbers(book.held.name), measurement.metrics, measurement)


def arrays(thing):
    """Bytes of all arrays in a record, each array once."""
    seen, total, waiting = set(), 0, [thing]
    while waiting:
        one = waiting.pop()
        if isinstance(one, np.ndarray):
            whole = one if one.base is None else one.base
            if id(whole) not in seen:
                seen.add(id(whole))
                total += one.nbytes
        elif isinstance(one, (tuple, list)):
            waiting += one
        elif hasattr(one, "__dataclass_fields__") and not isinstance(one, Book):
            waiting += [getattr(one, name) for name in one.__dataclass_fields__]
    return total


def test_a_desk_takes_what_its_positions_do_however_many_books_and_contracts_there_are(seed):
    random, state = np.random.default_rng(seed), priced_market()

    def book(name, strikes):
        rows = [option(float(strike), True, 1.0) for strike in strikes]
        return Book.of(check(portfolio(name, rows=rows)), state)

    strikes = 50.0 + np.arange(4_000) / 40
    large = book("large", strikes)
    alone = arrays(Desk.of([large]))
    small = [book(f"small-{number}", random.choice(strikes, 1)) for number in range(600)]
    together = arrays(Desk.of([large, *small]))
    # Written out, 600 books of these contracts would be 6 tables of 19 MB.
    assert together - alone < 600 * 3_000
    assert alone < 4_000 * 400


def test_symbols_of_replaced_portfolios_do_not_pile_up(engine):
    state = priced_market()
    books = DeskBooks(DeskRisk(engine, ScenarioSource(None, 500), DeskPremiums(engine)))
    for number in range(10):
        rows = [option(200.0 + number + strike / 1_000, True) for strike in range(1_000)]
        books.take([check(portfolio(rows=rows))], NOBODY, state)
        assert state.symbols < 9_000
    (book,) = books.measure(state, VolMarks())
    assert len(book.held.symbols) == 1_000
    assert np.array_equal(state.find(book.held.symbols), book.contracts.call)
    # The market's own are all there.
    assert np.isfinite(state.spots(state.find(["IDX", osi("IDX", "C", 100.0)]))).all()
