"""Every answer over gRPC: equal to the kernels' bit for bit, and to a recomputation written anew."""

from __future__ import annotations

import math

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, STRIKES, UNDERLYINGS, Service, price_history, serving
from worlds import (
    NOW_NS,
    RATE,
    SPOT,
    YEAR_NS,
    black_scholes,
    option,
    osi,
    portfolio,
    quotes,
    smile,
    spot_position,
)

import gpu_kernels as gk
import risk_client
from gpu_kernels.es_components import component_es, trade_impact
from gpu_kernels.stress_library import stress_scenarios
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from risk_client import RiskClient
from risk_service.price_history import PriceHistory
from service_kit.grpc_server import GrpcSettings

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0, group=1),
    option(110.0, True, 5.0),
    option(80.0, True, 3.0, group=1),
    spot_position(150.0),
)
GROUPS = ("vol", "carry", "empty")
HISTORY = price_history()
WINDOW = 300


@pytest.fixture(scope="module")
def service():
    with Service(HISTORY) as service:
        service.open_market()
        yield service


@pytest.fixture(scope="module")
def client(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
    ):
        client.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
        yield client


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")


def kernel_book(rows=ROWS, underlyings=1):
    """The rows as gpu_kernels takes them, at the vols that the market's quotes were made with."""
    options = [row for row in rows if row[1] == wire.INSTRUMENT_KIND_OPTION]
    linear = [row for row in rows if row[1] != wire.INSTRUMENT_KIND_OPTION]
    strike = np.array([row[3] for row in options])
    return gk.Portfolio(
        options=gk.Options(
            spot=np.full(len(strike), SPOT),
            strike=strike,
            expiry=round(0.5 * YEAR_NS) / (365.0 * 86_400e9),
            vol=smile(strike),
            rate=RATE,
            dividend_yield=0.01,
            is_call=np.array([row[4] for row in options]),
        ),
        quantity=[row[2] for row in options],
        group=[row[7] for row in (*options, *linear)],
        linear={
            "underlying": np.zeros(len(linear), int),
            "quantity": [row[2] for row in linear],
            "spot": SPOT,
            "group": [row[7] for row in linear],
        }
        if linear
        else None,
    )


def live_book(service, name="desk"):
    """The very portfolio that the live loop values."""
    snapshot = service.loop.desk.ask().result(10)
    return snapshot.measured[name].valuation.portfolio


def plain_value(spot, vol_change=0.0, years=0.5, rate=RATE, rows=ROWS):
    total = 0.0
    for _, kind, quantity, strike, is_call, *_ in rows:
        if kind == wire.INSTRUMENT_KIND_OPTION:
            vol = np.maximum(smile(strike) + vol_change, 1e-4)
            total = total + quantity * black_scholes(spot, strike, years, vol, is_call, rate)
        else:
            total = total + quantity * spot
    return total


def plain_pnl(days=WINDOW, rows=ROWS):
    """The book under each of the last days, from the formula."""
    column = HISTORY.underlyings.index("IDX")
    closes, vols = HISTORY.closes[-days - 1 :, column], HISTORY.vols[-days - 1 :, column]
    moves, changes = np.diff(np.log(closes)), np.diff(vols)
    now = plain_value(SPOT, rows=rows)
    return plain_value(SPOT * np.exp(moves), changes, 0.5 - 1 / 252, rows=rows) - now


def plain_es(pnl, level=0.975):
    losses = np.sort(-pnl)[::-1]
    k = round(len(losses) * (1 - level), 9)
    whole = int(k)
    return (losses[:whole].sum() + (k - whole) * losses[whole]) / k


def historical_scenarios(days=WINDOW):
    return HISTORY.scenarios(("IDX",), days)


# ---- expected shortfall ----------------------------------------------------------------------------------


def test_historical_es_is_the_kernels_to_the_bit(client, service, engine):
    answer = client.expected_shortfall(
        "desk", risk_client.historical(WINDOW), levels=[0.975, 0.9], with_components=True, with_pnl=True
    )
    book, scenarios = live_book(service), historical_scenarios()
    pnl = engine.revalue(book, scenarios)
    np.testing.assert_array_equal(answer.pnl, pnl)
    for level, tail in zip((0.975, 0.9), answer.tail, strict=True):
        expected = gk.tail_risk(pnl, level)
        assert (tail.value_at_risk, tail.expected_shortfall) == (expected.var, expected.es)
        assert tail.expected_shortfall_std_error == expected.es_std_error
    parts = component_es(engine, book, scenarios, 0.975, pnl=pnl)
    np.testing.assert_array_equal(answer.component_by_position, parts.by_position)
    np.testing.assert_array_equal(answer.component_by_group[:2], parts.by_group)
    assert answer.component_by_group[2] == 0.0
    assert (answer.scenarios, answer.portfolio_version) == (WINDOW, 1)


def test_historical_es_is_that_of_a_plain_recomputation(client):
    answer = client.expected_shortfall(
        "desk", risk_client.historical(WINDOW), with_pnl=True, with_components=True
    )
    np.testing.assert_allclose(answer.pnl, plain_pnl(), rtol=1e-9, atol=1e-9)
    es = plain_es(plain_pnl())
    assert answer.tail[0].expected_shortfall == pytest.approx(es, rel=1e-9)
    assert answer.component_by_position.sum() == pytest.approx(es, rel=1e-12)
    assert answer.component_by_group.sum() == pytest.approx(es, rel=1e-12)


def test_the_live_vector_gives_the_live_number(client, service):
    live = client.expected_shortfall("desk", risk_client.historical(500), with_pnl=True)
    metrics = service.loop.board.latest("desk")
    assert live.tail[0].expected_shortfall == metrics.historical[0].expected_shortfall
    np.testing.assert_allclose(live.pnl, plain_pnl(500), rtol=1e-9, atol=1e-9)


def test_an_inline_portfolio_is_valued_like_a_stored_one(client):
    inline = portfolio("", rows=ROWS, groups=GROUPS)
    mine = client.expected_shortfall(inline, risk_client.historical(WINDOW), with_pnl=True)
    stored = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    np.testing.assert_array_equal(mine.pnl, stored.pnl)
    assert mine.portfolio_version == 0
    assert "inline" not in [one.portfolio for one in client.list_portfolios()]


def test_inline_symbols_leave_no_trace_in_the_market(client, service):
    before = dict(service.loop.market._slots)
    book = portfolio("", rows=(*ROWS, option(95.0, True)), groups=GROUPS)
    client.expected_shortfall(book, risk_client.historical(WINDOW))
    assert service.loop.market._slots == before


def test_an_inline_contract_with_wrong_terms_marks_nobody_else(client):
    before = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    wrong = portfolio("", rows=(option(90.0, False, years=2.0), option(100.0, True, years=0.1)))
    client.expected_shortfall(wrong, risk_client.historical(WINDOW))
    after = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    np.testing.assert_array_equal(before.pnl, after.pnl)


@pytest.mark.parametrize("distribution", ["normal", "student_t", "jump"])
@pytest.mark.parametrize("sampler", ["sobol", "philox"])
def test_monte_carlo_es_is_the_kernels_to_the_bit(client, service, engine, distribution, sampler):
    asked = risk_client.monte_carlo(
        2_000, seed=2**63 + 11, horizon=0.02, distribution=distribution, vol_beta=-0.8, sampler=sampler
    )
    answer = client.expected_shortfall("desk", asked, with_pnl=True, levels=[0.99], convention="discrete")
    returns = np.diff(np.log(HISTORY.closes[:, :1]), axis=0)
    scenarios = gk.simulate_scenarios(
        2_000,
        mean=0.0,
        cov=HISTORY.covariance(("IDX",), 500).cov,
        seed=2**63 + 11,
        horizon=0.02,
        distribution=distribution,
        vol_beta=-0.8,
        sampler=sampler,
    )
    pnl = engine.revalue(live_book(service), scenarios)
    np.testing.assert_array_equal(answer.pnl, pnl)
    assert answer.tail[0].expected_shortfall == gk.tail_risk(pnl, 0.99, "discrete").es
    # The draws have the spread of the history: a few per cent of sampling error, no factor.
    assert scenarios.spot_return.std() == pytest.approx(returns.std() * math.sqrt(252 * 0.02), rel=0.2)


@pytest.mark.parametrize("weighting", ["plain", "age", "filtered_ewma", "filtered_garch"])
def test_weightings_and_horizons_reach_the_kernels(client, service, engine, weighting):
    asked = risk_client.historical(250, horizon_days=10, weighting=weighting, decay=0.99)
    answer = client.expected_shortfall("desk", asked, levels=[0.9], with_components=True)
    scenarios = HISTORY.scenarios(("IDX",), 250, horizon_days=10, weighting=weighting, decay=0.99)
    pnl = engine.revalue(live_book(service), scenarios)
    expected = gk.tail_risk(pnl, 0.9, weights=scenarios.weights)
    assert answer.tail[0].expected_shortfall == expected.es
    assert answer.component_by_position.sum() == pytest.approx(expected.es, rel=1e-12)


def test_given_scenarios_are_revalued_in_full(client):
    moves, changes = np.array([-0.2, 0.1, 0.05, -0.01]), np.array([0.3, -0.5, 0.0, 0.01])
    given = risk_client.shocks(moves[:, None], changes[:, None], [0.01, 0.0, -0.01, 0.0], elapsed=0.1)
    answer = client.expected_shortfall("desk", given, levels=[0.5], with_pnl=True)
    rates = RATE + np.array([0.01, 0.0, -0.01, 0.0])
    expected = plain_value(SPOT * np.exp(moves), changes, 0.4, rates) - plain_value(SPOT)
    np.testing.assert_allclose(answer.pnl, expected, rtol=1e-9)
    assert answer.tail[0].expected_shortfall == pytest.approx(plain_es(expected, 0.5), rel=1e-9)


def test_an_answer_says_where_it_comes_from(client, service, engine):
    answer = client.expected_shortfall("desk", risk_client.historical(WINDOW))
    came = answer.provenance
    assert (came.engine, came.device) == (engine.name, engine.device)
    assert came.market_snapshot_id == service.loop.market.snapshot_id()
    assert came.method == "full revaluation, 300 historical scenarios of 1 d, plain, exact_tail"
    assert (came.data_age_ns, came.degraded) == (0, False)
    reference = client.expected_shortfall("desk", risk_client.historical(WINDOW), engine="reference")
    assert reference.provenance.engine == "reference"
    assert reference.tail[0].expected_shortfall == pytest.approx(answer.tail[0].expected_shortfall, rel=1e-9)


def test_positions_left_out_count_nought_and_are_named(client):
    rows = (option(95.0, True), *ROWS, spot_position(1.0, "ABC", 1))
    book = portfolio("", rows=rows, underlyings=UNDERLYINGS, groups=GROUPS)
    answer = client.expected_shortfall(book, risk_client.historical(WINDOW), with_components=True)
    assert list(answer.tail[0].warnings)[-2:] == [
        f"position 0, {rows[0][0]}, is left out: no market data",
        "position 6, ABC, is left out: no market data",
    ]
    assert answer.component_by_position[[0, 6]].tolist() == [0.0, 0.0]
    assert answer.component_by_position.sum() == pytest.approx(plain_es(plain_pnl()), rel=1e-9)


def test_a_replay_gives_the_same_number_at_the_same_snapshot(client):
    with Service(HISTORY) as again:
        again.open_market()
        with (
            serving(lambda: again.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as other,
        ):
            other.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
            first = client.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
            second = other.expected_shortfall("desk", risk_client.historical(WINDOW), with_pnl=True)
    assert first.provenance.market_snapshot_id == second.provenance.market_snapshot_id
    np.testing.assert_array_equal(first.pnl, second.pnl)


# ---- stresses --------------------------------------------------------------------------------------------


def test_stresses_by_group_and_position_add_up(client, service, engine):
    given = risk_client.shocks([[-0.1], [0.0]], [[0.2], [0.1]], names=["crash", "vol"])
    answer = client.stress_test(
        "desk", given, named=["1987-10-19", "2020-03"], by_group=True, by_position=True
    )
    assert answer.names == ("crash", "vol", "1987-10-19", "2020-03")
    scenarios = gk.Scenarios.stacked(
        [
            gk.Scenarios([[-0.1], [0.0]], [[0.2], [0.1]], names=["a", "b"]),
            stress_scenarios(["1987-10-19", "2020-03"], 1),
        ]
    )
    np.testing.assert_array_equal(answer.pnl, engine.revalue(live_book(service), scenarios))
    np.testing.assert_allclose(answer.pnl_by_position.sum(axis=0), answer.pnl, rtol=1e-12)
    np.testing.assert_allclose(answer.pnl_by_group.sum(axis=0), answer.pnl, rtol=1e-12)
    assert answer.pnl_by_group.shape == (3, 4)
    assert answer.pnl[0] == pytest.approx(
        plain_value(SPOT * math.exp(-0.1), 0.2) - plain_value(SPOT), rel=1e-9
    )
    # The S&P 500 fell by 20.47 % that day.
    assert answer.pnl_by_position[4, 2] == pytest.approx(150.0 * SPOT * -0.2047, rel=1e-9)
    assert answer.value_today == pytest.approx(plain_value(SPOT), rel=1e-9)
    assert "vol change is illustrative" in answer.provenance.method


# ---- what if ---------------------------------------------------------------------------------------------


def trade_of(*rows):
    return portfolio(rows=rows).positions


def test_a_what_if_is_the_book_with_the_trade_in_it(client):
    trade = trade_of(option(90.0, False, 30.0))
    answer = client.what_if("desk", trade)
    before, after = plain_es(plain_pnl(500)), plain_es(plain_pnl(500, (*ROWS, option(90.0, False, 30.0))))
    assert answer.before.expected_shortfall == pytest.approx(before, rel=1e-9)
    assert answer.after.expected_shortfall == pytest.approx(after, rel=1e-9)
    assert answer.incremental == pytest.approx(after - before, rel=1e-7)
    small = client.what_if("desk", trade_of(option(90.0, False, 30.0e-6)))
    assert answer.marginal == pytest.approx(small.incremental * 1e6, rel=1e-3)


def test_a_what_if_from_the_cached_vector_is_the_kernels_to_the_bit(client, service, engine):
    trade = (option(110.0, False, 4.0), spot_position(-20.0))
    answer = client.what_if("desk", trade_of(*trade), level=0.95)
    client.put_portfolio(portfolio("trade", rows=trade, groups=GROUPS))
    client.expected_shortfall("trade", risk_client.historical(500))
    impact = trade_impact(
        engine, live_book(service), live_book(service, "trade"), historical_scenarios(500), 0.95
    )
    client.delete_portfolio("trade")
    assert answer.incremental == impact.incremental
    assert answer.marginal == impact.marginal
    assert answer.before.expected_shortfall == impact.before.es
    assert (
        answer.provenance.market_snapshot_id
        == service.loop.board.latest("desk").provenance.market_snapshot_id
    )


def test_a_what_if_on_another_engine_is_computed_there(client):
    trade = trade_of(option(90.0, False, 30.0))
    assert client.what_if("desk", trade, engine="reference").provenance.engine == "reference"
    assert client.what_if("desk", trade, engine="reference").incremental == pytest.approx(
        client.what_if("desk", trade).incremental, rel=1e-8
    )


# ---- hedges ----------------------------------------------------------------------------------------------


def plain_greeks(rows=ROWS):
    step = 1e-3
    up, mid, down = (plain_value(SPOT + move, rows=rows) for move in (step, 0.0, -step))
    vega = (plain_value(SPOT, 1e-4, rows=rows) - plain_value(SPOT, -1e-4, rows=rows)) / 2e-4
    return (up - down) / (2 * step), (up - 2 * mid + down) / step**2, vega


def test_a_delta_hedge_trades_the_underlying(client):
    hedge = client.hedge("desk", "delta")
    delta = plain_greeks()[0]
    assert hedge.symbols == ("IDX",)
    assert hedge.trade.tolist() == [-round(delta)]
    assert hedge.risk_before == pytest.approx(abs(delta) * SPOT, rel=1e-6)
    assert hedge.risk_after == pytest.approx(abs(delta - round(delta)) * SPOT, rel=1e-3)
    assert hedge.measure == "sum of |delta| · spot"


def test_a_delta_hedge_in_futures_counts_their_multiplier_lots_costs_and_limits(client):
    future = ("IDXZ5", wire.INSTRUMENT_KIND_FUTURE, 3.0, 0.0, False, 0.5, 0, 0)
    instruments = trade_of(future)
    instruments.multiplier.append(50.0)
    hedge = client.hedge("desk", "delta", instruments, lot_size=1.0, cost_per_lot=2.5)
    contracts = min(3, round(plain_greeks()[0] / 50.0))
    assert hedge.trade.tolist() == [-contracts]
    assert hedge.cost.tolist() == [2.5 * contracts]


def test_a_hedge_of_three_greeks_takes_most_of_them_away(client):
    instruments = trade_of(spot_position(500.0), option(90.0, False, 100.0), option(120.0, True, 100.0))
    hedge = client.hedge("desk", "delta_gamma_vega", instruments, lot_size=0.01)
    traded = [
        (*row[:2], quantity, *row[3:])
        for row, quantity in zip(
            (spot_position(0.0), option(90.0, False), option(120.0, True)), hedge.trade, strict=True
        )
    ]

    def risk(rows):
        delta, gamma, vega = plain_greeks(rows)
        return math.sqrt(
            (0.01 * SPOT * delta) ** 2 + (0.5 * gamma * (0.01 * SPOT) ** 2) ** 2 + (0.01 * vega) ** 2
        )

    assert hedge.risk_before == pytest.approx(risk(ROWS), rel=1e-4)
    assert hedge.risk_after == pytest.approx(risk((*ROWS, *traded)), rel=0.05, abs=0.01)
    assert hedge.risk_after < 0.02 * hedge.risk_before


def test_a_hedge_of_the_tail_lowers_es_by_what_it_says(client):
    instruments = trade_of(option(90.0, False, 40.0), spot_position(200.0))
    hedge = client.hedge("desk", "min_expected_shortfall", instruments, cost_per_lot=[0.5, 0.01], budget=15.0)
    traded = [
        (*row[:2], quantity, *row[3:])
        for row, quantity in zip((option(90.0, False), spot_position(0.0)), hedge.trade, strict=True)
    ]
    assert hedge.risk_before == pytest.approx(plain_es(plain_pnl(500)), rel=1e-9)
    assert hedge.risk_after == pytest.approx(plain_es(plain_pnl(500, (*ROWS, *traded))), rel=1e-9)
    assert hedge.risk_after < hedge.risk_before
    assert hedge.cost.sum() <= 15.0
    assert np.all(np.abs(hedge.trade) <= [40.0, 200.0])
    assert np.all(hedge.trade == np.rint(hedge.trade))


def test_a_pure_european_book_needs_no_history_for_greeks():
    with Service(None) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=ROWS, groups=GROUPS))
            assert client.hedge("desk", "delta").trade.tolist() == [-round(plain_greeks()[0])]
            for call in (
                lambda: client.expected_shortfall("desk", risk_client.historical()),
                lambda: client.expected_shortfall("desk", risk_client.monte_carlo(1_000, seed=1)),
                lambda: client.what_if("desk", trade_of(option(90.0, False))),
                lambda: client.hedge("desk", "min_expected_shortfall", trade_of(option(90.0, False))),
            ):
                with pytest.raises(risk_client.PreconditionFailed, match="no price history is loaded"):
                    call()


# ---- pricing and the rest --------------------------------------------------------------------------------


def test_columns_over_the_wire_are_the_kernels_to_the_bit(client, engine, seed):
    random = np.random.default_rng(seed)
    rows = 1_000  # more than is computed in the event loop
    columns = {
        "spot": random.uniform(50, 150, rows),
        "strike": random.uniform(50, 150, rows),
        "expiry": random.uniform(0, 2, rows),
        "vol": random.uniform(0, 0.8, rows),
        "rate": 0.02,
        "is_call": random.random(rows) < 0.5,
    }
    options = gk.Options(**columns)
    priced, greeks = engine.price(options), engine.greeks(options)
    answer = client.price(**columns)
    np.testing.assert_array_equal(answer["price"], priced.price)
    np.testing.assert_array_equal(answer.status, priced.status)
    over_wire = client.greeks(**columns)
    for name in ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm"):
        np.testing.assert_array_equal(over_wire[name], getattr(greeks, name))
    implied = engine.implied_vol(options, priced.price)
    np.testing.assert_array_equal(client.implied_volatility(priced.price, **columns)["vol"], implied.vol)


def test_a_market_that_moves_moves_the_answer():
    with Service(PriceHistory(("IDX",), HISTORY.closes[:, :1], HISTORY.vols[:, :1])) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=(spot_position(10.0),)))
            first = client.stress_test("desk", risk_client.shocks([[-0.1]]))
            service.market.send("IDX", quotes(["IDX"], [50.0], time_ns=NOW_NS + 5))
            metrics = next(
                one for one in client.watch_risk(["desk"], deadline_s=30) if one.greeks.spot[0] == 50.0
            )
            second = client.stress_test("desk", risk_client.shocks([[-0.1]]))
    assert metrics.value == 500.0
    assert (first.value_today, second.value_today) == (1_000.0, 500.0)
    assert second.pnl[0] == first.pnl[0] / 2.0
    assert first.provenance.market_snapshot_id != second.provenance.market_snapshot_id


def test_streams_answer_each_request_in_order(service, client):
    from protos.risk.v1.risk_pb2_grpc import RiskServiceStub

    requests = []
    for spot in (90.0, 100.0, 110.0):
        request = wire.PriceRequest()
        for name, value in (("spot", spot), ("strike", 100.0), ("expiry", 1.0), ("vol", 0.2)):
            packing.write(request.options, name, [value])
        requests.append(request)
    with serving(lambda: service.server(GrpcSettings(port=0))) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        answers = list(RiskServiceStub(channel).PriceStream(iter(requests), timeout=30))
        channel.close()
    expected = black_scholes(np.array([90.0, 100.0, 110.0]), 100.0, 1.0, 0.2, True, 0.0, 0.0)
    np.testing.assert_allclose([one.price[0] for one in answers], expected, rtol=1e-11)


def test_engines_are_listed(client, engine):
    listed = client.list_engines()
    assert listed.serving == engine.name
    cannot = {one.name: list(one.cannot) for one in listed.engines}
    assert cannot.keys() == {"cuda", "cpu", "xla", "reference"}
    assert not cannot["cpu"]
    assert "interpolated American books" in cannot["cuda"]


def test_strikes_of_the_world_are_quoted():
    assert osi("IDX", "C", STRIKES[0]) == "IDX   240119C00080000"
