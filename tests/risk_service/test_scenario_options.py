"""Every choice of the scenario engine reaches it over gRPC: answers equal the kernels', asked directly."""

from __future__ import annotations

import math

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, UNDERLYINGS, Service, market_records, price_history, serving
from worlds import SPOT, option, portfolio, spot_position

import gpu_kernels as gk
import risk_client
from gpu_kernels.hedging import delta_hedge, exposures, whalley_wilmott_band
from gpu_kernels.reverse_stress import reverse_stress
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import RiskClient
from service_kit.grpc_server import GrpcSettings

ROWS = (
    option(90.0, False, 10.0),
    option(100.0, True, -20.0),
    spot_position(15.0),
    option(110.0, True, 12.0, underlying="ABC", place=1),
    spot_position(-9.0, "ABC", 1),
)
HISTORY = price_history()
COV = np.array([[0.04, 0.012], [0.012, 0.09]])
INVALID, LARGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def service():
    with Service(HISTORY) as service:
        for underlying in UNDERLYINGS:
            for record in market_records(underlying):
                service.market.send(underlying, record)
        yield service


@pytest.fixture(scope="module")
def client(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
    ):
        client.put_portfolio(portfolio(rows=ROWS, underlyings=UNDERLYINGS))
        yield client


@pytest.fixture(scope="module")
def stub(client):
    return RiskServiceStub(client._channel)


@pytest.fixture(scope="module")
def engine():
    return gk.engine("auto")


@pytest.fixture
def book(service, stub):
    """The very portfolio that the live loop values."""
    return service.loop.desk.ask().result(PATIENCE_S).measured["desk"].valuation.portfolio


def ask(stub, scenarios, **fields):
    which = {
        wire.HistoricalScenarios: "historical",
        wire.MonteCarloScenarios: "monte_carlo",
        wire.ScenarioColumns: "custom",
    }[type(scenarios)]
    request = wire.ExpectedShortfallRequest(portfolio="desk", with_pnl=True, **{which: scenarios}, **fields)
    return stub.ExpectedShortfall(request, timeout=PATIENCE_S)


def pnl_of(answer):
    return packing.read(answer, "pnl")


# ---- Monte Carlo ----------------------------------------------------------------------------------------


def test_a_law_of_the_callers_own(stub, engine, book):
    law = {
        "mean": [0.05, -0.1],
        "vol_beta": [-0.8, -0.3],
        "jump_intensity": 9.0,
        "jump_mean": [-0.01, 0.02],
        "jump_share": 0.25,
        "horizon": 0.02,
        "distribution": "jump",
    }
    asked = risk_client.monte_carlo(1_000, seed=7, covariance=COV, **law)
    answer = ask(stub, asked)
    scenarios = gk.simulate_scenarios(1_000, cov=COV, seed=7, **law)
    np.testing.assert_array_equal(pnl_of(answer), engine.revalue(book, scenarios))
    assert "covariance as given" in answer.provenance.method


def test_window_and_shrinkage_of_the_historys_covariance(stub, engine, book):
    answer = ask(stub, risk_client.monte_carlo(500, seed=1, window_days=120, shrinkage=0.0))
    returns = np.diff(np.log(HISTORY.closes[-121:]), axis=0)
    plain = np.cov(returns.T, bias=True) * 252.0
    scenarios = gk.simulate_scenarios(500, mean=0.0, cov=plain, seed=1, horizon=1 / 252)
    np.testing.assert_allclose(pnl_of(answer), engine.revalue(book, scenarios), rtol=1e-6, atol=1e-8)
    assert "covariance of 120 d shrunk by 0" in answer.provenance.method


def test_draws_along_the_book(stub, engine, book):
    answer = ask(stub, risk_client.monte_carlo(1_024, seed=3, covariance=COV, along_book=True))
    at = exposures(engine, book)
    scenarios = gk.simulate_scenarios(
        1_024, mean=0.0, cov=COV, seed=3, horizon=1 / 252, exposure=at.delta * at.spot
    )
    np.testing.assert_array_equal(pnl_of(answer), engine.revalue(book, scenarios))
    assert "along the book" in answer.provenance.method


# ---- given scenarios ------------------------------------------------------------------------------------

MOVES = np.array([[-0.1, -0.2], [0.05, 0.0], [0.0, 0.1], [-0.02, 0.03]])
SURFACE = {
    "log_moneyness": [-0.2, 0.0, 0.2],
    "tenor": [0.25, 1.0],
    "shock": np.linspace(-0.05, 0.1, 4 * 2 * 3 * 2).reshape(4, 2, 3, 2),
}


def test_surface_elapsed_and_weights_by_scenario(stub, engine, book):
    weights, elapsed = [1.0, 2.0, 3.0, 4.0], [0.0, 0.1, 0.2, 0.6]
    asked = risk_client.shocks(
        MOVES, elapsed=elapsed, weights=weights, vol_shock_surface=risk_client.vol_shock_surface(**SURFACE)
    )
    answer = ask(stub, asked, levels=[0.5])
    scenarios = gk.Scenarios(MOVES, elapsed=elapsed, vol_shock_surface=gk.VolShockSurface.of(**SURFACE))
    pnl = engine.revalue(book, scenarios)
    np.testing.assert_array_equal(pnl_of(answer), pnl)
    assert answer.tail[0].expected_shortfall == gk.tail_risk(pnl, 0.5, weights=weights).es


def test_a_surface_stays_with_its_scenarios_beside_named_events(stub):
    surface = risk_client.vol_shock_surface([0.0], [1.0], [[[0.1]], [[0.2]]])
    given = risk_client.shocks(np.zeros((2, 2)), vol_shock_surface=surface)
    both = stub.StressTest(
        wire.StressTestRequest(portfolio="desk", scenarios=given, named=["1987-10-19"]), timeout=PATIENCE_S
    )
    flat = risk_client.shocks(np.zeros((2, 2)), [[0.1], [0.2]])
    apart = stub.StressTest(wire.StressTestRequest(portfolio="desk", scenarios=flat), timeout=PATIENCE_S)
    event = stub.StressTest(
        wire.StressTestRequest(portfolio="desk", named=["1987-10-19"]), timeout=PATIENCE_S
    )
    np.testing.assert_allclose(both.pnl, [*apart.pnl, *event.pnl], rtol=1e-12)


# ---- what is asked of a tail ----------------------------------------------------------------------------


def test_a_bootstrap_gives_an_interval_around_the_shortfall(stub):
    asked = risk_client.historical(300)
    answer = ask(stub, asked, levels=[0.9, 0.975], bootstrap=500, confidence=0.9)
    for tail in answer.tail:
        expected = gk.tail_risk(pnl_of(answer), tail.level, bootstrap=500, confidence=0.9)
        assert tuple(tail.expected_shortfall_interval) == expected.es_interval
        low, high = tail.expected_shortfall_interval
        assert low < tail.expected_shortfall < high
    assert not ask(stub, asked).tail[0].expected_shortfall_interval


def test_liquidity_horizons_follow_the_formula(stub, engine, book):
    """MAR33.5 written out: √(ES² · 10/10 + ES(≥20 d)² · 10/10 + ES(≥40 d)² · 20/10)."""
    asked = risk_client.historical(300, horizon_days=10)
    horizons = wire.LiquidityHorizons(spot_days=[10.0, 40.0], vol_days=[20.0, 20.0])
    answer = ask(stub, asked, levels=[0.95], liquidity_horizons=horizons)
    all_of_it = HISTORY.scenarios(UNDERLYINGS, 300, horizon_days=10)
    spot, vol = all_of_it.spot_return, all_of_it.vol_change
    only_second = np.array([0.0, 1.0])
    parts = [all_of_it, gk.Scenarios(spot * only_second, vol), gk.Scenarios(spot * only_second, vol * 0.0)]
    es = [gk.tail_risk(engine.revalue(book, part), 0.95).es for part in parts]
    expected = math.sqrt(es[0] ** 2 + es[1] ** 2 + 2.0 * es[2] ** 2)
    assert answer.liquidity_horizon_expected_shortfall == pytest.approx(expected, rel=1e-12)


def test_the_stressed_period_is_the_worst_window(stub):
    answer = ask(stub, risk_client.historical(300), levels=[0.9], stressed_window=60)
    pnl = pnl_of(answer)
    shortfalls = [gk.tail_risk(pnl[start : start + 60], 0.9).es for start in range(len(pnl) - 59)]
    worst = int(np.argmax(shortfalls))
    stressed = answer.stressed
    assert (stressed.start, stressed.stop) == (worst, worst + 60)
    assert stressed.expected_shortfall == shortfalls[worst]


# ---- reverse stress -------------------------------------------------------------------------------------


def test_the_most_likely_way_to_lose(stub, engine, book):
    asked = wire.ReverseStress(loss=60.0, covariance=risk_client.scenarios.matrix(COV), vol_beta=[-0.5])
    answer = stub.StressTest(
        wire.StressTestRequest(portfolio="desk", reverse=asked), timeout=PATIENCE_S
    ).reverse
    expected = reverse_stress(engine, book, 60.0, cov=COV, horizon=1 / 252, vol_beta=-0.5)
    np.testing.assert_array_equal(answer.spot_return, expected.spot_return)
    np.testing.assert_array_equal(answer.vol_change, -0.5 * expected.spot_return)
    moves = np.array(answer.spot_return)
    assert answer.deviations == pytest.approx(math.sqrt(moves @ np.linalg.solve(COV / 252, moves)), rel=1e-9)
    assert answer.pnl == pytest.approx(-60.0, rel=1e-5)


# ---- hedges ---------------------------------------------------------------------------------------------


def spots(quantity=1_000.0):
    return portfolio(
        rows=(spot_position(quantity), spot_position(quantity, "ABC", 1)), underlyings=UNDERLYINGS
    ).positions


def test_the_least_shortfall_under_the_callers_scenarios(stub, engine, book):
    draws = risk_client.monte_carlo(2_000, seed=5, covariance=COV)
    request = wire.HedgeRequest(
        portfolio="desk", objective=2, instruments=spots(), monte_carlo=draws, level=0.9
    )
    answer = stub.Hedge(request, timeout=PATIENCE_S)
    scenarios = gk.simulate_scenarios(2_000, mean=0.0, cov=COV, seed=5, horizon=1 / 252)
    before = engine.revalue(book, scenarios)
    units = np.expm1(scenarios.spot_return) * SPOT
    after = before + units @ np.array(answer.trade)
    assert answer.measure == "expected shortfall at 0.9"
    assert answer.risk_before == pytest.approx(gk.tail_risk(before, 0.9).es, rel=1e-12)
    assert answer.risk_after == pytest.approx(gk.tail_risk(after, 0.9).es, rel=1e-9)
    for one in range(2):
        for step in (-1.0, 1.0):
            moved = after + step * units[:, one]
            assert gk.tail_risk(moved, 0.9).es >= answer.risk_after


def test_a_band_leaves_small_deltas_alone(stub, engine, book):
    request = wire.HedgeRequest(
        portfolio="desk", objective=0, instruments=spots(), cost_rate=[0.001], risk_aversion=0.01
    )
    answer = stub.Hedge(request, timeout=PATIENCE_S)
    at = exposures(engine, book)
    band = whalley_wilmott_band(at.gamma, spot=at.spot, cost_rate=0.001, risk_aversion=0.01)
    expected = delta_hedge(at.delta, spot=at.spot, cost_rate=0.001, band=band, limit=1_000.0)
    np.testing.assert_allclose(answer.band, band, rtol=1e-12)
    np.testing.assert_array_equal(answer.trade, expected.trades)
    np.testing.assert_allclose(answer.cost, expected.costs, rtol=1e-12)
    bare = stub.Hedge(
        wire.HedgeRequest(portfolio="desk", objective=0, instruments=spots()), timeout=PATIENCE_S
    )
    assert np.abs(answer.trade).sum() < np.abs(bare.trade).sum()
    assert not any(bare.band)


# ---- the client's own words for it ----------------------------------------------------------------------


def test_the_client_asks_for_all_of_it(stub, client):
    horizons = wire.LiquidityHorizons(spot_days=[20.0])
    answer = client.expected_shortfall(
        "desk",
        risk_client.historical(300),
        levels=[0.9],
        bootstrap=100,
        confidence=0.5,
        liquidity_horizons=horizons,
        stressed_window=50,
    )
    request = es(levels=[0.9], bootstrap=100, confidence=0.5, liquidity_horizons=horizons, stressed_window=50)
    plain = stub.ExpectedShortfall(request, timeout=PATIENCE_S)
    assert answer.tail == tuple(plain.tail)
    assert answer.over_liquidity_horizons == plain.liquidity_horizon_expected_shortfall > 0.0
    assert answer.stressed == plain.stressed
    assert answer.stressed.stop - answer.stressed.start == 50
    lost = client.stress_test("desk", reverse=wire.ReverseStress(loss=10.0)).reverse
    assert lost.pnl == pytest.approx(-10.0, rel=1e-5)
    hedged = client.hedge("desk", "delta", spots(), cost_rate=0.001, risk_aversion=0.01)
    assert hedged.band is not None
    assert (hedged.band > 0.0).all()
    draws_ = risk_client.monte_carlo(2_000, seed=5, covariance=COV)
    least = client.hedge("desk", "min_expected_shortfall", spots(), scenarios=draws_, level=0.9)
    assert least.measure == "expected shortfall at 0.9"


# ---- refusals -------------------------------------------------------------------------------------------


def es(**fields):
    if not {"monte_carlo", "custom"} & fields.keys():
        fields["historical"] = wire.HistoricalScenarios(window_days=300)
    return wire.ExpectedShortfallRequest(portfolio="desk", **fields)


def draws(**fields):
    return es(monte_carlo=wire.MonteCarloScenarios(scenarios=200, **fields))


def given(**fields):
    return es(levels=[0.5], custom=wire.ScenarioColumns(**{"spot_return": matrix(MOVES), **fields}))


def hedge(objective=0, **fields):
    return wire.HedgeRequest(portfolio="desk", objective=objective, instruments=spots(), **fields)


def reverse(**fields):
    return wire.StressTestRequest(portfolio="desk", reverse=wire.ReverseStress(**{"loss": 1.0, **fields}))


matrix = risk_client.scenarios.matrix
days, surface = wire.LiquidityHorizons, wire.VolShockSurface

REFUSED = [
    (draws(mean=[0.1] * 3), INVALID, "monte_carlo.mean: has 3 entries; the book has 2 underlyings"),
    (draws(mean=[0.1, math.nan]), INVALID, "monte_carlo.mean[1]: is nan"),
    (draws(covariance=matrix(np.eye(3))), INVALID, "monte_carlo.covariance: is 3 × 3, the book has 2"),
    (draws(covariance=matrix([[1.0, 0.5], [0.1, 1.0]])), INVALID, "monte_carlo.covariance"),
    (draws(covariance=matrix(COV), shrinkage=0.1), INVALID, "monte_carlo.shrinkage: is of the history's"),
    (draws(covariance=matrix(COV), window_days=9), INVALID, "monte_carlo.window_days: is of the history's"),
    (draws(shrinkage=1.5), INVALID, "monte_carlo.shrinkage: must lie between 0 and 1"),
    (draws(distribution=2, jump_share=2.0), INVALID, "monte_carlo.jump_share: must lie between"),
    (draws(distribution=2, jump_intensity=-1.0), INVALID, "monte_carlo.jump_intensity: must be above 0"),
    (draws(distribution=2, jump_mean=[5.0]), INVALID, "monte_carlo.jump_mean[0]: jumps of this size"),
    (given(elapsed=[0.1, 0.2]), INVALID, "custom.elapsed: has 2 entries for 4 scenarios"),
    (given(elapsed=[0.0, 0.0, -1.0, 0.0]), INVALID, "custom.elapsed[2]: must not be negative"),
    (given(weight=[1.0, -1.0, 1.0, 1.0]), INVALID, "custom.weight[1]: must not be negative"),
    (given(vol_shock_surface=surface()), INVALID, "custom.vol_shock_surface.shock: has 0 entries"),
    (
        given(vol_shock_surface=surface(log_moneyness=[0.1, 0.0], tenor=[1.0], shock=[0.0] * 2)),
        INVALID,
        "custom.vol_shock_surface.log_moneyness[1]: must increase",
    ),
    (
        given(vol_shock_surface=surface(log_moneyness=[0.0], tenor=[1.0], shock=[0.0] * 3)),
        INVALID,
        "custom.vol_shock_surface.shock: has 3 entries, not 1 × 1 × 1 for one or for 4",
    ),
    (
        wire.StressTestRequest(
            portfolio="desk", scenarios=wire.ScenarioColumns(spot_return=matrix(MOVES), weight=[1.0])
        ),
        INVALID,
        "scenarios.weight: has no meaning",
    ),
    (es(bootstrap=100_001), INVALID, "bootstrap: 100001 resamples are more than 100000"),
    (es(bootstrap=100_000, levels=[0.01] * 10), LARGE, "bootstrap: 100000 resamples"),
    (es(bootstrap=10, confidence=1.0), INVALID, "confidence: must lie between"),
    (es(bootstrap=10, confidence=math.nan), INVALID, "confidence: must lie between"),
    (es(stressed_window=301), INVALID, "stressed_window"),
    (es(liquidity_horizons=days()), INVALID, "liquidity_horizons.spot_days: is missing"),
    (
        es(liquidity_horizons=days(spot_days=[10, 30])),
        INVALID,
        "liquidity_horizons.spot_days[1]: 30 days are",
    ),
    (es(liquidity_horizons=days(spot_days=[10] * 3)), INVALID, "liquidity_horizons.spot_days: has 3 entries"),
    (
        es(
            custom=wire.ScenarioColumns(spot_return=matrix(MOVES)),
            levels=[0.5],
            liquidity_horizons=days(spot_days=[10]),
        ),
        INVALID,
        "liquidity_horizons: need scenarios that all play over one time",
    ),
    (reverse(loss=-1.0), INVALID, "reverse.loss: must be above 0"),
    (reverse(loss=1e9), INVALID, "reverse.loss: no scenario within 12 standard deviations"),
    (reverse(covariance=matrix([[0.1]])), INVALID, "reverse.covariance: is 1 × 1, the book has 2"),
    (reverse(vol_beta=[math.inf]), INVALID, "reverse.vol_beta[0]: is inf"),
    (reverse(horizon=-1.0), INVALID, "reverse.horizon: must be above 0"),
    (hedge(level=0.9), INVALID, "level: is of the least expected shortfall alone"),
    (hedge(historical=wire.HistoricalScenarios()), INVALID, "historical: is of the least expected shortfall"),
    (hedge(2, level=1.0), INVALID, "level: must lie strictly between"),
    (hedge(2, cost_rate=[0.1]), INVALID, "cost_rate: is of a delta hedge alone"),
    (hedge(1, risk_aversion=0.1), INVALID, "risk_aversion: is of a delta hedge alone"),
    (hedge(risk_aversion=-0.1), INVALID, "risk_aversion: must not be negative"),
    (hedge(cost_rate=[0.0, 1.5]), INVALID, "cost_rate[1]: must be 0 to 1"),
    (hedge(risk_aversion=0.1, budget=10.0), INVALID, "risk_aversion: needs one spot or future"),
]


@pytest.mark.parametrize(
    ("request_", "code", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_wrong_is_said_by_field_and_row(stub, request_, code, words):
    method = {
        wire.ExpectedShortfallRequest: stub.ExpectedShortfall,
        wire.StressTestRequest: stub.StressTest,
        wire.HedgeRequest: stub.Hedge,
    }[type(request_)]
    with pytest.raises(grpc.RpcError) as caught:
        method(request_, timeout=PATIENCE_S)
    assert caught.value.code() is code, caught.value.details()
    assert caught.value.details().startswith(words)
