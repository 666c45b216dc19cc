"""Cash dividends over gRPC: options in columns, portfolios, and what live numbers say of them."""

from __future__ import annotations

import pickle
import time

import grpc
import numpy as np
import pytest
from desk_world import HISTORY
from scipy.optimize import brentq
from served import PATIENCE_S, serving
from worlds import DAY_NS, NOW_NS, RATE, SPOT, YIELD, black_scholes, option, portfolio, priced_market, smile

import gpu_kernels as gk
import risk_client
from gpu_kernels.dividend_schedules import CashDividends
from gpu_kernels.options import FLAG_FIELDS, NUMERIC_FIELDS
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service.api import book_requests
from risk_service.api.gathering import joined
from risk_service.api.option_requests import read_options
from risk_service.held_dividends import HeldDividends
from risk_service.on_demand.books import book_at, stored_book
from risk_service.on_demand.option_blocks import cost_of
from risk_service.portfolios import check
from risk_service.worker.tasks import BookTask, Kept, OptionTask, answer
from service_kit.errors import InvalidRequest
from service_kit.grpc_server import GrpcSettings

CARRY = RATE - YIELD
PAID = [(40, 1.5), (120, 2.0), (250, 9.0)]  # days from now and amounts; the last one after expiry
ROWS = (option(90.0, False, 10.0), option(100.0, True, -20.0), option(110.0, True, 5.0))


def paying(rows=ROWS, name="paying", american=False):
    """The rows on an index that pays; dividends in no order."""
    message = portfolio(name, rows=rows)
    for day, amount in reversed(PAID):
        message.dividends.underlying_index.append(0)
        message.dividends.ex_time_ns.append(NOW_NS + day * DAY_NS)
        message.dividends.amount.append(amount)
    message.positions.american.append(american)
    return message


def columns(**changes):
    given = {"spot": [100.0, 90.0, 110.0, 100.0], "strike": [100.0], "expiry": [1.0], "vol": [0.25]} | changes
    sent = wire.OptionColumns(**given, rate=[0.03], is_call=[True, False, True, False])
    sent.american.extend([False, False, True, True])
    sent.dividends.schedule.extend([7, 3, 7])
    sent.dividends.ex_date.extend([0.6, 0.5, 0.2])
    sent.dividends.amount.extend([2.0, 3.0, 1.0])
    sent.dividend_schedule.extend([7, 3, 7, 4])
    return sent


OPTIONS = gk.Options(
    spot=[100.0, 90.0, 110.0, 100.0], strike=100.0, expiry=1.0, vol=0.25, rate=0.03,
    is_call=[True, False, True, False], american=[False, False, True, True],
    dividends=CashDividends.per_option(
        [[(0.2, 1.0), (0.6, 2.0)], [(0.5, 3.0)], [(0.2, 1.0), (0.6, 2.0)], []]
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def stub(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        yield RiskServiceStub(channel)


def test_columns_with_dividends_are_the_kernels_to_the_bit(stub, engine):
    price = stub.Price(wire.PriceRequest(options=columns()), timeout=PATIENCE_S)
    priced = engine.price(OPTIONS)
    assert list(price.price) == priced.price.tolist()
    assert list(price.status) == priced.status.tolist()
    greeks = stub.Greeks(wire.GreeksRequest(options=columns()), timeout=PATIENCE_S)
    for name in gk.GreeksResult.COLUMNS:
        assert list(getattr(greeks, name)) == getattr(engine.greeks(OPTIONS), name).tolist(), name
    asked = wire.ImpliedVolatilityRequest(options=columns(), price=priced.price)
    vols = stub.ImpliedVolatility(asked, timeout=PATIENCE_S)
    np.testing.assert_allclose(vols.vol, 0.25, rtol=1e-6)
    assert list(vols.vol) == engine.implied_vol(OPTIONS, priced.price).vol.tolist()
    # And they are another's than those without.
    plain = columns()
    plain.ClearField("dividends")
    plain.ClearField("dividend_schedule")
    answer = stub.Price(wire.PriceRequest(options=plain), timeout=PATIENCE_S).price
    assert [one != other for one, other in zip(answer, price.price, strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("field", "values", "named", "row"),
    [
        ("ex_date", [0.5, float("nan"), 0.2], "options.dividends.ex_date", 1),
        ("amount", [1.0, 2.0, -3.0], "options.dividends.amount", 2),
        ("amount", [1.0, float("inf"), 3.0], "options.dividends.amount", 1),
        ("amount", [], "options.dividends.amount", None),
        ("schedule", [0, 1], "options.dividends.schedule", None),
    ],
)
def test_bad_dividends_of_options_are_named(field, values, named, row):
    sent = columns()
    sent.dividends.ClearField(field)
    getattr(sent.dividends, field).extend(values)
    with pytest.raises(InvalidRequest) as caught:
        read_options(sent, 100, with_vol=True)
    assert (caught.value.field, caught.value.row) == (named, row)


def test_bad_schedules_of_options_are_named():
    wrong_length, alone, endless = columns(), columns(), columns()
    del wrong_length.dividend_schedule[2:]
    alone.ClearField("dividends")
    endless.dividends.ex_date[:] = np.linspace(0.1, 0.9, 401)
    endless.dividends.schedule[:] = [7]
    endless.dividends.amount[:] = [1.0]
    for sent, named in (
        (wrong_length, "options.dividend_schedule"),
        (alone, "options.dividend_schedule"),
        (endless, "options.dividends.schedule"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            read_options(sent, 100, with_vol=True)
        assert caught.value.field == named


def test_one_schedule_holds_for_all_rows():
    sent = columns()
    sent.ClearField("dividend_schedule")
    sent.dividends.ClearField("schedule")
    held = read_options(sent, 100, with_vol=True).dividends
    assert held.schedule_of(4).tolist() == [0, 0, 0, 0]
    assert held.times.tolist() == [0.2, 0.5, 0.6]
    assert held.amounts.tolist() == [1.0, 3.0, 2.0]


def test_gathered_requests_keep_their_own_dividends(engine):
    plain = OPTIONS.rows(slice(0, 2)).replace(dividends=None)
    some = OPTIONS.rows(np.array([0, 1]))
    both, _ = joined([(plain, None), (some, None), (plain, None)])
    want = [engine.price(one).price for one in (plain, some, plain)]
    np.testing.assert_array_equal(engine.price(both).price, np.concatenate(want))


def test_a_worker_is_sent_the_dividends(engine):
    fields = {name: getattr(OPTIONS, name) for name in (*NUMERIC_FIELDS, *FLAG_FIELDS, "dividends")}
    task = pickle.loads(pickle.dumps(OptionTask("price", fields, "accurate")))
    done = answer(engine, Kept(), task)
    np.testing.assert_array_equal(done.value[0], engine.price(OPTIONS).price)
    book = gk.Portfolio(options=OPTIONS, quantity=np.ones(4))
    given = gk.Scenarios(spot_return=[[0.1], [-0.1]])
    whole = pickle.loads(pickle.dumps(BookTask(1, 2, None, {1: book, 2: given})))
    np.testing.assert_array_equal(answer(engine, Kept(), whole).value, engine.revalue(book, given))


def test_grids_are_costed():
    european, plain = OPTIONS.replace(american=False), OPTIONS.replace(dividends=None)
    assert cost_of(plain.replace(american=False)) < cost_of(european) < 100 < cost_of(plain)
    assert cost_of(OPTIONS) > 50_000 > cost_of(plain)


def plain_terms(vols, moves, changes, elapsed):
    """The book's P&L written anew: vols from the quotes, spots less their dividends, days passed."""
    years, total = 0.5, 0.0

    def left(spot, passed):
        alive = [(day / 365.0 - passed, amount) for day, amount in PAID if passed < day / 365.0 < years]
        return spot - sum(amount * np.exp(-CARRY * when) for when, amount in alive)

    for (_, _, quantity, strike, is_call, *_), vol in zip(ROWS, vols, strict=True):
        now = black_scholes(left(SPOT, 0.0), strike, years, vol, is_call)
        then = black_scholes(
            left(SPOT * np.exp(moves), elapsed), strike, years - elapsed, vol + changes, is_call
        )
        total = total + quantity * (then - now)
    return total


def plain_vols():
    """Vols at which the quotes out of the money are met, with the dividends taken out of the spot."""
    worth = sum(amount * np.exp(-CARRY * day / 365.0) for day, amount in PAID if day < 180)
    found = []
    for _, _, _, strike, *_ in ROWS:
        put_first = strike < (SPOT - worth) * np.exp(CARRY * 0.5)
        quote = black_scholes(SPOT, strike, 0.5, smile(strike), not put_first)
        found.append(
            brentq(
                lambda vol, quote=quote, strike=strike, call=not put_first: (
                    black_scholes(SPOT - worth, strike, 0.5, vol, call) - quote
                ),
                0.01, 2.0, xtol=1e-14,
            )
        )  # fmt: skip
    return found


def test_a_requested_book_is_that_of_a_plain_recomputation(engine):
    market = priced_market()
    book = book_at(engine, market, "", check(paying())).portfolio
    np.testing.assert_allclose(book.vol, plain_vols(), rtol=1e-9)
    scenarios = HISTORY.scenarios(("IDX",), 200)
    moves, changes = scenarios.spot_return[:, 0], np.broadcast_to(scenarios.vol_change, (200, 1))[:, 0]
    want = plain_terms(plain_vols(), moves, changes, float(scenarios.elapsed[0]))
    np.testing.assert_allclose(engine.revalue(book, scenarios), want, rtol=1e-8, atol=1e-8)


def test_a_stored_portfolio_keeps_its_dividends_and_its_es_has_them(client, service, engine):
    client.put_portfolio(paying())
    held = service.loop.state.store.get("paying")
    assert held.dividends.amount.tolist() == [1.5, 2.0, 9.0]
    assert list(client.get_portfolio("paying").dividends.amount) == [9.0, 2.0, 1.5]
    answer = client.expected_shortfall("paying", risk_client.historical(200), with_pnl=True)
    scenarios = HISTORY.scenarios(("IDX",), 200)
    book = stored_book(engine, service.loop.desk.ask().result(PATIENCE_S), held, fills=False).portfolio
    np.testing.assert_array_equal(answer.pnl, engine.revalue(book, scenarios))
    moves, changes = scenarios.spot_return[:, 0], np.broadcast_to(scenarios.vol_change, (200, 1))[:, 0]
    want = plain_terms(plain_vols(), moves, changes, float(scenarios.elapsed[0]))
    np.testing.assert_allclose(answer.pnl, want, rtol=1e-8, atol=1e-8)
    moved = risk_client.shocks(
        scenarios.spot_return[:20], vol_change=changes[:20, None], elapsed=scenarios.elapsed[:20]
    )
    stress = client.stress_test("paying", moved)
    np.testing.assert_allclose(stress.pnl, want[:20], rtol=1e-8, atol=1e-8)


def test_live_numbers_are_what_calls_say(client, service):
    client.put_portfolio(paying(name="live", american=True))
    until = time.monotonic() + PATIENCE_S
    latest = None
    # Until their table is there they are named, and no limit is said to be kept without them.
    while (latest is None or latest.faults) and time.monotonic() < until:
        service.loop.desk.ask().result(PATIENCE_S)
        latest = service.loop.teller.board.latest("live")
        for one in () if latest is None else latest.faults:
            assert one.status == wire.ROW_STATUS_NOT_VALUED_LIVE
            assert all(np.isnan(limit.used) and not limit.breached for limit in latest.limits)
    said = client.stress_test("live", risk_client.shocks(np.zeros((1, 1))))
    assert latest.value == pytest.approx(said.value_today, abs=2e-3 * latest.gross_value)
    assert latest.value != said.value_today  # read from a table
    assert len(latest.limits) == 2
    assert all(one.used > 0.0 for one in latest.limits)
    # European ones are in, with what calls say they are worth.
    client.put_portfolio(paying(name="european"))
    latest = None
    while latest is None and time.monotonic() < until:
        service.loop.desk.ask().result(PATIENCE_S)
        latest = service.loop.teller.board.latest("european")
    assert not latest.faults
    said = client.stress_test("european", risk_client.shocks(np.zeros((1, 1))))
    assert latest.value == pytest.approx(said.value_today, rel=1e-12)
    assert all(one.used > 0.0 for one in latest.limits)


def test_trades_and_instruments_have_their_portfolio_s_dividends(engine):
    held = check(paying())
    asked = book_requests.read_positions(paying().positions, held, "trade")
    np.testing.assert_array_equal(asked.dividends.amount, held.dividends.amount)
    np.testing.assert_array_equal(asked.dividends.ex_time_ns, held.dividends.ex_time_ns)
    market = priced_market()
    trade, whole = (book_at(engine, market, "", one).portfolio for one in (asked, held))
    np.testing.assert_array_equal(trade.vol, whole.vol)
    assert trade.paying.all()


@pytest.mark.parametrize(
    ("field", "values", "named", "row"),
    [
        ("underlying_index", [0, 1, 0], "dividends.underlying_index", 1),
        ("ex_time_ns", [NOW_NS, NOW_NS, 0], "dividends.ex_time_ns", 2),
        ("amount", [1.0, -1.0, 0.0], "dividends.amount", 1),
        ("amount", [float("nan"), 1.0, 0.0], "dividends.amount", 0),
        ("amount", [1.0, 1.0], "dividends.amount", None),
        ("amount", [], "dividends.amount", None),
    ],
)
def test_bad_dividends_of_portfolios_are_named(client, field, values, named, row):
    message = paying()
    message.dividends.ClearField(field)
    getattr(message.dividends, field).extend(values)
    with pytest.raises(risk_client.InvalidRequest) as caught:
        client.put_portfolio(message)
    told = caught.value.violations[0]
    assert told.field == (named if row is None else f"{named}[{row}]")
    assert told.row == row


def test_too_many_dividends_of_one_underlying_are_refused():
    message = paying()
    message.dividends.ex_time_ns[:] = NOW_NS + np.arange(401) * DAY_NS
    message.dividends.underlying_index[:] = [0]
    message.dividends.amount[:] = [1.0]
    with pytest.raises(InvalidRequest, match=r"underlying_index\[400\].*more than 400"):
        check(message)


def test_held_dividends_are_sorted_and_seen_from_each_moment():
    message = portfolio(underlyings=("A", "B", "C")).dividends
    message.underlying_index.extend([2, 0, 2])
    message.ex_time_ns.extend([NOW_NS + 20 * DAY_NS, NOW_NS + 5 * DAY_NS, NOW_NS + 10 * DAY_NS])
    message.amount.extend([3.0, 1.0, 2.0])
    held = HeldDividends.read(message, 3)
    place = np.array([2, 1, 0, 2])
    seen = held.of(place, np.array([NOW_NS, NOW_NS, NOW_NS, NOW_NS + 15 * DAY_NS]))
    lists = [
        [(seen.times[k] * 365.0, seen.amounts[k]) for k in range(seen.offsets[s], seen.offsets[s + 1])]
        for s in seen.schedule_of(4)
    ]
    np.testing.assert_allclose(lists[0], [(10.0, 2.0), (20.0, 3.0)])
    assert lists[1] == []
    np.testing.assert_allclose(lists[2], [(5.0, 1.0)])
    np.testing.assert_allclose(lists[3], [(-5.0, 2.0), (5.0, 3.0)])
    expiry = NOW_NS + np.array([15, 15, 4, 20]) * DAY_NS
    want = [NOW_NS + 10 * DAY_NS, 0, 0, NOW_NS + 10 * DAY_NS]
    assert held.last_before(place, expiry).tolist() == want
    keys = held.keys(place)
    assert keys[0] == keys[3] != keys[2]
    assert keys[1] == 0


def test_an_american_book_is_valued_with_dividends(engine):
    market = priced_market()
    book = book_at(engine, market, "", check(paying(american=True))).portfolio
    assert book.american.all()
    assert book.paying.all()
    # The quotes are met again.
    european = book_at(engine, market, "", check(paying())).portfolio
    assert (book.vol < european.vol + 1e-9).all()
