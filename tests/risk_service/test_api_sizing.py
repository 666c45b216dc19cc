"""Kelly's sizes and rebalancing plans over gRPC, against growth and deltas written anew."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, UNDERLYINGS, Service, market_records, price_history, serving
from worlds import RATE, SPOT, YIELD, option, portfolio, smile, spot_position

from gpu_kernels.optimise import kelly
from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from service_kit.grpc_server import GrpcSettings

HISTORY = price_history()
SPOTS = (spot_position(150.0), spot_position(-40.0, "ABC", 1))
HELD = np.array([150.0, -40.0])
INVALID = grpc.StatusCode.INVALID_ARGUMENT
COV = np.array([[0.04, 0.012], [0.012, 0.09]])
MEAN = np.array([0.03, 0.05])
CAPITAL = 1e6
KELLY = wire.HedgeRequest.OBJECTIVE_KELLY


@pytest.fixture(scope="module")
def service():
    with Service(HISTORY) as service:
        for underlying in UNDERLYINGS:
            for record in market_records(underlying):
                service.market.send(underlying, record)
        yield service


@pytest.fixture(scope="module")
def stub(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        stub = RiskServiceStub(channel)
        call = option(100.0, True, -20.0)
        for name, rows in (("spots", SPOTS), ("call", (call, spot_position(3.0)))):
            book = portfolio(name, rows=rows, underlyings=UNDERLYINGS)
            stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=PATIENCE_S)
            next(stub.WatchRisk(wire.WatchRiskRequest(portfolios=[name]), timeout=PATIENCE_S))
        yield stub


def positions(*rows):
    return portfolio(rows=rows, underlyings=UNDERLYINGS).positions


WIDE = positions(spot_position(1e9), spot_position(1e9, "ABC", 1))


def matrix(values):
    return wire.Matrix(rows=len(values), columns=len(values[0]), values=np.ravel(values))


def sized(stub, *, instruments=WIDE, request=None, **asked):
    given = {"expected_return": MEAN, "covariance": matrix(COV), "capital": CAPITAL, "fraction": 0.25} | asked
    hedge = wire.HedgeRequest(
        portfolio="spots",
        objective=KELLY,
        instruments=instruments,
        kelly=wire.KellySizing(**given),
        **(request or {}),
    )
    return stub.Hedge(hedge, timeout=PATIENCE_S)


def test_holdings_go_to_a_fraction_of_kellys(stub):
    answer = sized(stub)
    wanted = 0.25 * np.linalg.solve(COV, MEAN) * CAPITAL / SPOT
    assert packing.read(answer, "trade").tolist() == (np.trunc(wanted) - HELD).tolist()
    share = HELD * SPOT / CAPITAL
    assert answer.risk_before == pytest.approx(np.sqrt(share @ COV @ share), rel=1e-12)
    share = np.trunc(wanted) * SPOT / CAPITAL
    assert answer.risk_after == pytest.approx(np.sqrt(share @ COV @ share), rel=1e-12)
    assert answer.provenance.method == "0.25 of Kelly, covariance as given"
    assert answer.measure == "volatility of wealth per year"


def test_leverage_and_limits_bind_where_they_must(stub):
    answer = sized(stub, leverage=0.1)
    after = packing.read(answer, "trade") + HELD
    assert abs(after).sum() * SPOT <= 0.1 * CAPITAL * (1 + 1e-9)

    def growth(units):
        share = np.asarray(units) * SPOT / CAPITAL
        return share @ MEAN - share @ COV @ share / (2 * 0.25)

    # The best of all splits of the leverage, tried one by one; rounding costs less than a share of each.
    most = 0.1 * CAPITAL / SPOT
    best = max(growth((one, most - one)) for one in np.linspace(0.0, most, 2_001))
    assert best - growth(after) < 1e-5
    limited = sized(stub, instruments=positions(spot_position(200.0), spot_position(50.0, "ABC", 1)))
    assert (packing.read(limited, "trade") + HELD).tolist() == [200.0, 50.0]


def test_the_historys_covariance_stands_in_for_one_not_given(stub):
    hedge = wire.HedgeRequest(
        portfolio="spots",
        objective=KELLY,
        instruments=WIDE,
        kelly=wire.KellySizing(expected_return=MEAN, capital=CAPITAL),
    )
    answer = stub.Hedge(hedge, timeout=PATIENCE_S)
    cov = HISTORY.covariance(UNDERLYINGS, 500).cov
    wanted = np.trunc(0.5 * np.linalg.solve(cov, MEAN) * CAPITAL / SPOT)
    np.testing.assert_allclose(packing.read(answer, "trade") + HELD, wanted, atol=1.0)
    assert "0.5 of Kelly, covariance of 500 d" in answer.provenance.method


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"expected_return": [0.1]}, "kelly.expected_return: has 1 entries for 2"),
        ({"expected_return": [0.1, np.nan]}, r"kelly.expected_return\[1\]: is nan"),
        ({"capital": 0.0}, "kelly.capital: must be above 0"),
        ({"capital": np.inf}, "kelly.capital"),
        ({"fraction": -0.5}, "kelly.fraction"),
        ({"leverage": np.nan}, "kelly.leverage"),
        ({"covariance": matrix([[0.04]])}, "kelly.covariance: is 1 × 1, the book has 2"),
        ({"covariance": matrix([[0.04, 0.9], [0.9, 0.09]])}, "kelly.covariance: is that of no"),
        ({"covariance": matrix([[0.04, np.nan], [0.0, 0.09]])}, "kelly.covariance"),
        ({"covariance": matrix([[0.04, 0.02], [0.0, 0.09]])}, "kelly.covariance"),
        (
            {"instruments": positions(spot_position(1.0), option(100.0, True, 1.0))},
            "instruments: must be one",
        ),
        ({"instruments": positions(spot_position(1.0), spot_position(2.0))}, "instruments: must be one"),
        ({"request": {"plan_reach": 0.1}}, "plan_reach: is of a delta hedge alone"),
        ({"request": {"level": 0.9}}, "level: is of the least expected shortfall alone"),
        ({"request": {"budget": -1.0}}, "budget: must not be negative"),
    ],
)
def test_what_is_wrong_with_sizes_is_named(stub, asked, why):
    with pytest.raises(grpc.RpcError, match=why) as fault:
        sized(stub, **asked)
    assert fault.value.code() is INVALID


def test_kelly_needs_its_words_and_nobody_else_takes_them(stub):
    for objective, why in ((KELLY, "kelly: is missing"), (0, "kelly: is of OBJECTIVE_KELLY alone")):
        words = wire.KellySizing(capital=1.0) if objective == 0 else None
        request = wire.HedgeRequest(portfolio="spots", objective=objective, instruments=WIDE, kelly=words)
        with pytest.raises(grpc.RpcError, match=why):
            stub.Hedge(request, timeout=PATIENCE_S)


def test_a_sizing_ends_with_its_call(stub, service, monkeypatch):
    went_on, reached, go = [], threading.Event(), threading.Event()
    inner = kelly._Problem.allows

    def gated(problem, at):
        reached.set()
        assert go.wait(PATIENCE_S)
        return inner(problem, at)

    def never(problem, at):
        problem.check()
        went_on.append(at)
        return 0.0

    monkeypatch.setattr(kelly._Problem, "allows", gated)
    monkeypatch.setattr(kelly._Problem, "growth", never)
    request = wire.HedgeRequest(
        portfolio="spots",
        objective=KELLY,
        instruments=WIDE,
        kelly=wire.KellySizing(
            expected_return=MEAN, covariance=matrix(COV), capital=CAPITAL, fraction=0.25, leverage=0.1
        ),
    )
    call = stub.Hedge.future(request, timeout=PATIENCE_S)
    assert reached.wait(PATIENCE_S)
    call.cancel()
    while service.last_server.guard.open:
        assert service.thread.is_alive()
    go.set()
    for _ in range(2):
        service.executor.submit(int).result(PATIENCE_S)
    assert call.cancelled()
    assert not went_on


# ---- plans ----------------------------------------------------------------------------------------------


def delta_of(spot):
    """Delta of the book `call` at this spot, its vol as it is: 20 calls sold, 3 of the underlying held."""
    from scipy.stats import norm

    years, vol = 0.5, float(smile(np.array([100.0]))[0])
    deviation = vol * np.sqrt(years)
    d1 = (np.log(spot / 100.0) + (RATE - YIELD) * years) / deviation + 0.5 * deviation
    return 3.0 - 20.0 * np.exp(-YIELD * years) * norm.cdf(d1)


def test_a_plan_says_where_the_delta_leaves_its_band(stub):
    request = wire.HedgeRequest(
        portfolio="call", cost_rate=[0.002], risk_aversion=0.05, plan_reach=0.3, lot_size=[0.01]
    )
    answer = stub.Hedge(request, timeout=PATIENCE_S)
    plan, band = answer.plan[0], answer.band[0]
    assert plan.due_now == pytest.approx(answer.trade[0], abs=1e-9)
    assert len(plan.spot_up) > 1
    assert len(plan.spot_down) > 1
    step = 0.3 * SPOT / 400
    for spots, trades in ((plan.spot_up, plan.trade_up), (plan.spot_down, plan.trade_down)):
        hedged = plan.due_now
        for spot, trade in zip(spots, trades, strict=True):
            inside = spot - step if spot > SPOT else spot + step
            # Within the band, but for half a lot, one step before; beyond it here; back to its edge after.
            assert abs(delta_of(inside) + hedged) <= band + 0.02
            assert abs(delta_of(spot) + hedged) > band - 0.001
            hedged += trade
            assert abs(delta_of(spot) + hedged) <= band + 0.01
    empty = answer.plan[1]
    assert (empty.due_now, list(empty.spot_up), list(empty.trade_down)) == (0.0, [], [])


@pytest.mark.parametrize("reach", [-0.1, 0.95, float("nan")])
def test_a_plan_reaches_so_far_and_no_further(stub, reach):
    with pytest.raises(grpc.RpcError, match="plan_reach: must be 0 to 0") as fault:
        stub.Hedge(wire.HedgeRequest(portfolio="call", plan_reach=reach), timeout=PATIENCE_S)
    assert fault.value.code() is INVALID
