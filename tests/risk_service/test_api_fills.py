"""Calls about a stored portfolio see its fills as the live risk does, or not, as they are asked."""

from __future__ import annotations

from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service, price_history, serving
from worlds import SPOT, option, osi, portfolio, spot_position

from protos import packing
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_service.executions import Fill
from service_kit.grpc_server import GrpcSettings

PUT = osi("IDX", "P", 90.0)
FILLED_ONLY = osi("IDX", "C", 110.0)
UNKNOWN = "XYZ   301220C00095000"
ROWS = (option(90.0, False, 10.0, group=1), option(100.0, True, -20.0))
FILLS = (
    Fill(7, PUT, 4.0, 1.0),
    Fill(7, "IDX", 150.0, 99.0),
    Fill(7, FILLED_ONLY, 2.0, 3.0),
    Fill(7, UNKNOWN, 3.0, 5.0),
    Fill(8, PUT, 9.0, 1.0),
)
# The same positions, put as they are.
WHOLE = (
    option(90.0, False, 14.0, group=1),
    option(100.0, True, -20.0),
    spot_position(150.0, group=2),
    option(110.0, True, 2.0, group=2),
)
GROUPS = ("vol", "carry")
SHOCKS = wire.ScenarioColumns(spot_return=wire.Matrix(rows=2, columns=1, values=[-0.1, 0.05]))
HISTORICAL = wire.HistoricalScenarios(window_days=500)
LEFT_OUT = f"fills of {UNKNOWN} are left out: the portfolio has no terms of it"


@contextmanager
def desk():
    """A stub of a service with the two portfolios and the fills, and the live risk of the first."""
    with Service(price_history()) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            stub = RiskServiceStub(channel)
            for name, rows, groups in (("desk", ROWS, GROUPS), ("whole", WHOLE, (*GROUPS, "filled"))):
                book = portfolio(name, rows=rows, groups=groups)
                stub.PutPortfolio(wire.PutPortfolioRequest(portfolio=book), timeout=PATIENCE_S)
            service.fills.send(PUT, FILLS[:2])
            service.fills.send("IDX", FILLS[2:])
            watch = stub.WatchRisk(wire.WatchRiskRequest(portfolios=["desk"]), timeout=PATIENCE_S)
            live = next(one for one in watch if one.filled.executions_snapshot_id == "0:2")
            watch.cancel()
            yield stub, live


@pytest.fixture(scope="module")
def stub():
    with desk() as made:
        yield made


def es(name, **more):
    more.setdefault("historical", HISTORICAL)
    return wire.ExpectedShortfallRequest(portfolio=name, with_pnl=True, with_components=True, **more)


def test_expected_shortfall_is_that_of_the_live_risk(stub):
    stub, live = stub
    answer = stub.ExpectedShortfall(es("desk"), timeout=PATIENCE_S)
    whole = stub.ExpectedShortfall(es("whole"), timeout=PATIENCE_S)
    assert answer.tail[0].expected_shortfall == live.historical[0].expected_shortfall
    assert answer.provenance.executions_snapshot_id == "0:2"
    assert list(answer.filled) == ["IDX", FILLED_ONLY]
    assert LEFT_OUT in answer.tail[0].warnings
    np.testing.assert_allclose(answer.pnl, whole.pnl, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(answer.component_by_position, whole.component_by_position, rtol=1e-9)
    np.testing.assert_allclose(answer.component_by_group, whole.component_by_group, rtol=1e-9)
    assert sum(answer.component_by_group) == pytest.approx(answer.tail[0].expected_shortfall, rel=1e-9)


@pytest.mark.parametrize(
    "scenarios", [{"monte_carlo": wire.MonteCarloScenarios(scenarios=512, seed=1)}, {"custom": SHOCKS}]
)
def test_so_it_is_under_every_kind_of_scenarios(stub, scenarios):
    stub, _ = stub
    answer = stub.ExpectedShortfall(es("desk", levels=[0.5], **scenarios), timeout=PATIENCE_S)
    whole = stub.ExpectedShortfall(es("whole", levels=[0.5], **scenarios), timeout=PATIENCE_S)
    np.testing.assert_allclose(answer.pnl, whole.pnl, rtol=1e-10, atol=1e-10)


def test_stresses_what_ifs_and_hedges_see_the_fills(stub):
    stub, live = stub
    asked = {"scenarios": SHOCKS, "by_position": True, "by_group": True}
    stress = stub.StressTest(wire.StressTestRequest(portfolio="desk", **asked), timeout=PATIENCE_S)
    whole = stub.StressTest(wire.StressTestRequest(portfolio="whole", **asked), timeout=PATIENCE_S)
    np.testing.assert_allclose(stress.pnl_by_position.values, whole.pnl_by_position.values, rtol=1e-10)
    np.testing.assert_allclose(stress.pnl_by_group.values, whole.pnl_by_group.values, rtol=1e-10)
    assert stress.value_today == pytest.approx(live.value, rel=1e-9)
    assert list(stress.filled) == ["IDX", FILLED_ONLY]
    assert LEFT_OUT in stress.warnings
    trade = portfolio(rows=(option(90.0, False, 5.0),)).positions
    impact = stub.WhatIf(wire.WhatIfRequest(portfolio="desk", trade=trade), timeout=PATIENCE_S)
    assert impact.before.expected_shortfall == live.historical[0].expected_shortfall
    hedge = stub.Hedge(wire.HedgeRequest(portfolio="desk"), timeout=PATIENCE_S)
    delta = packing.read(live.greeks, "delta")[0]
    assert hedge.trade[0] == -round(delta)
    assert hedge.risk_before == pytest.approx(abs(delta) * SPOT, rel=1e-9)
    assert LEFT_OUT in hedge.warnings


def test_without_fills_a_portfolio_is_as_it_was_put(stub):
    stub, _ = stub
    inline = portfolio("", rows=ROWS, groups=GROUPS)
    put = stub.ExpectedShortfall(es("desk", without_fills=True), timeout=PATIENCE_S)
    alone = stub.ExpectedShortfall(
        wire.ExpectedShortfallRequest(inline_portfolio=inline, historical=HISTORICAL, with_pnl=True),
        timeout=PATIENCE_S,
    )
    np.testing.assert_allclose(put.pnl, alone.pnl, rtol=1e-10, atol=1e-10)
    assert not put.filled
    assert not put.provenance.executions_snapshot_id
    assert not any("fills" in one for one in put.tail[0].warnings)
    asked = {"portfolio": "desk", "without_fills": True}
    trade = portfolio(rows=(option(90.0, False, 5.0),)).positions
    impact = stub.WhatIf(wire.WhatIfRequest(trade=trade, **asked), timeout=PATIENCE_S)
    assert impact.before.expected_shortfall == pytest.approx(put.tail[0].expected_shortfall, rel=1e-9)
    stress = stub.StressTest(
        wire.StressTestRequest(scenarios=SHOCKS, by_position=True, **asked), timeout=PATIENCE_S
    )
    assert stress.pnl_by_position.rows == len(ROWS)
    hedge = stub.Hedge(wire.HedgeRequest(**asked), timeout=PATIENCE_S)
    assert not any("fills" in one for one in hedge.warnings)


def test_the_portfolio_itself_is_told_as_it_was_put(stub):
    stub, _ = stub
    held = stub.GetPortfolio(wire.GetPortfolioRequest(portfolio="desk"), timeout=PATIENCE_S)
    assert list(held.positions.quantity) == [10.0, -20.0]


def answers(stub):
    trade = portfolio(rows=(option(90.0, False, 5.0),)).positions
    tail_hedge = wire.HedgeRequest(
        portfolio="desk", instruments=trade, objective=wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL
    )
    draws = wire.MonteCarloScenarios(scenarios=512, seed=1)
    for name, request in (
        ("ExpectedShortfall", es("desk")),
        ("ExpectedShortfall", es("desk", monte_carlo=draws, historical=None)),
        ("StressTest", wire.StressTestRequest(portfolio="desk", scenarios=SHOCKS, by_position=True)),
        ("WhatIf", wire.WhatIfRequest(portfolio="desk", trade=trade)),
        ("Hedge", wire.HedgeRequest(portfolio="desk")),
        ("Hedge", tail_hedge),
    ):
        yield getattr(stub, name)(request, timeout=PATIENCE_S)


def test_a_replay_of_market_and_fills_gives_the_same_answers_to_the_bit(stub):
    stub, _ = stub
    with desk() as (again, _):
        for first, second in zip(answers(stub), answers(again), strict=True):
            assert first.provenance.market_snapshot_id == second.provenance.market_snapshot_id == "0:4"
            assert first.provenance.executions_snapshot_id == "0:2"
            assert first == second
