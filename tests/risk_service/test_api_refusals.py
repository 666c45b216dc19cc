"""What is wrong with a request is said by field and row; a deadline and a cancellation end its work."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import grpc
import numpy as np
import pytest
from served import PATIENCE_S, Service, price_history, serving
from worlds import option, portfolio, spot_position

import gpu_kernels as gk
import risk_client
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import RiskClient
from risk_service.on_demand.patient_engine import Limits
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings

ROWS = (option(90.0, False, 10.0), option(100.0, True, -20.0), spot_position(150.0))
RISK = RiskSettings(values_per_answer_max=100, revaluations_per_request_max=20_000, history_days_max=200)
HISTORY = price_history()
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
LARGE, EARLY = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def server():
    with Service(HISTORY, risk=RISK) as service:
        service.open_market()
        with (
            serving(lambda: service.server(GrpcSettings(port=0))) as server,
            RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
        ):
            client.put_portfolio(portfolio(rows=ROWS))
            client.put_portfolio(portfolio("nothing", underlyings=()))
            client.put_portfolio(
                portfolio("unknown", rows=(spot_position(1.0, "XYZ"),), underlyings=("XYZ",))
            )
            yield server


@pytest.fixture(scope="module")
def stub(server):
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    yield RiskServiceStub(channel)
    channel.close()


def matrix(rows, columns, values):
    return wire.Matrix(rows=rows, columns=columns, values=values)


def es(**fields):
    if not {"portfolio", "inline_portfolio"} & fields.keys():
        fields["portfolio"] = "desk"
    if not {"historical", "monte_carlo", "custom"} & fields.keys():
        fields["historical"] = wire.HistoricalScenarios(window_days=100)
    return wire.ExpectedShortfallRequest(**fields)


def given(**columns):
    columns.setdefault("spot_return", matrix(2, 1, [0.1, -0.1]))
    return wire.ScenarioColumns(**columns)


def stress(**fields):
    return wire.StressTestRequest(**{"portfolio": "desk", "scenarios": given(), **fields})


def trade(**columns):
    base = portfolio(rows=(option(90.0, False, 1.0),)).positions
    for name, values in columns.items():
        column = getattr(base, name)
        del column[:]
        column.extend(values)
    return base


def what_if(**fields):
    return wire.WhatIfRequest(**{"portfolio": "desk", "trade": trade(), **fields})


def hedge(**fields):
    base = {"portfolio": "desk", "objective": wire.HedgeRequest.OBJECTIVE_DELTA_GAMMA_VEGA}
    return wire.HedgeRequest(**{**base, "instruments": trade(), **fields})


history, draws = wire.HistoricalScenarios, wire.MonteCarloScenarios
inline = portfolio("p", rows=ROWS)
bad_inline = portfolio("p", rows=ROWS)
bad_inline.positions.quantity[1] = math.nan

REFUSED = [
    # ---- which book
    (es(portfolio="nobody"), MISSING, "no portfolio named 'nobody'"),
    (stress(portfolio="nobody"), MISSING, "no portfolio named 'nobody'"),
    (what_if(portfolio="nobody"), MISSING, "no portfolio named 'nobody'"),
    (hedge(portfolio="nobody"), MISSING, "no portfolio named 'nobody'"),
    (wire.ExpectedShortfallRequest(historical=history()), INVALID, "portfolio: is missing"),
    (wire.StressTestRequest(scenarios=given()), INVALID, "portfolio: is missing"),
    (es(inline_portfolio=bad_inline), INVALID, "inline_portfolio.positions.quantity[1]: must be finite"),
    (es(portfolio="nothing"), INVALID, "portfolio: has no underlyings"),
    (stress(portfolio="nothing"), INVALID, "portfolio: has no underlyings"),
    # ---- engines and levels
    (es(engine="abacus"), INVALID, "engine: unknown engine 'abacus'"),
    (stress(engine="abacus"), INVALID, "engine: unknown engine 'abacus'"),
    (what_if(engine="abacus"), INVALID, "engine: unknown engine 'abacus'"),
    (hedge(engine="abacus"), INVALID, "engine: unknown engine 'abacus'"),
    (es(levels=[0.975, 1.0]), INVALID, "levels[1]: must lie strictly between"),
    (es(levels=[math.nan]), INVALID, "levels[0]: must lie strictly between"),
    (es(levels=[-0.5]), INVALID, "levels[0]: must lie strictly between"),
    (es(levels=[0.9] * 101), INVALID, "levels: 101 levels are more than 100"),
    (es(levels=[0.999]), INVALID, "levels: 100 scenarios are too few"),
    (what_if(level=1.5), INVALID, "level: must lie strictly between"),
    (what_if(level=0.9999), INVALID, "level: 200 scenarios are too few"),
    (es(convention=7), INVALID, "convention: 7 is no convention"),
    # ---- history
    (es(portfolio="unknown"), EARLY, "no price history of XYZ"),
    (es(historical=history(weighting=9)), INVALID, "historical.weighting: 9 is none of"),
    (
        es(historical=history(window_days=5, horizon_days=6)),
        INVALID,
        "historical.horizon_days: 6 days do",
    ),
    (es(historical=history(weighting=1, decay=1.5)), INVALID, "historical.decay: must lie strictly"),
    (es(historical=history(weighting=1, decay=math.nan)), INVALID, "historical.decay: must lie strictly"),
    # ---- Monte Carlo
    (es(monte_carlo=draws(scenarios=100, distribution=5)), INVALID, "monte_carlo.distribution: 5 is none of"),
    (es(monte_carlo=draws(scenarios=100, sampler=5)), INVALID, "monte_carlo.sampler: 5 is none of"),
    (es(monte_carlo=draws(scenarios=100, horizon=-1)), INVALID, "monte_carlo.horizon: must be above 0"),
    (es(monte_carlo=draws(scenarios=100, horizon=math.inf)), INVALID, "monte_carlo.horizon: must be above 0"),
    (
        es(monte_carlo=draws(scenarios=100, distribution=1, degrees_of_freedom=2)),
        INVALID,
        "monte_carlo.degrees_of_freedom: must be above 2",
    ),
    (es(monte_carlo=draws(scenarios=100, vol_beta=math.nan)), INVALID, "monte_carlo.vol_beta[0]: is nan"),
    (es(monte_carlo=draws(scenarios=10)), INVALID, "levels: 10 scenarios are too few"),
    (es(monte_carlo=draws(scenarios=2**32 - 1)), LARGE, "monte_carlo.scenarios: 4294967295 scenarios"),
    (es(monte_carlo=draws(scenarios=10_000)), LARGE, "more than one request may ask for"),
    # ---- given scenarios
    (wire.ExpectedShortfallRequest(portfolio="desk"), INVALID, "scenarios: is missing"),
    (es(custom=given(spot_return=matrix(2, 1, [0.1]))), INVALID, "custom.spot_return.values: has 1 entries"),
    (es(custom=given(spot_return=matrix(1, 2, [0.1, 0.2]))), INVALID, "custom.spot_return.columns: is 2"),
    (es(custom=wire.ScenarioColumns()), INVALID, "custom.spot_return.columns: is 0"),
    (es(custom=given(spot_return=matrix(0, 1, []))), INVALID, "custom.spot_return: has no scenarios"),
    (es(custom=given(spot_return=matrix(2, 1, [0, math.nan]))), INVALID, "custom.spot_return[1]: is nan"),
    (es(custom=given(vol_change=matrix(2, 1, [math.inf, 0]))), INVALID, "custom.vol_change[0]: is inf"),
    (es(custom=given(vol_change=matrix(1, 1, [0]))), INVALID, "custom.vol_change: must have shape"),
    (es(custom=given(rate_change=[0, math.nan])), INVALID, "custom.rate_change[1]: is nan"),
    (es(custom=given(rate_change=[0, 0, 0])), INVALID, "custom.rate_change: has 3 entries"),
    (es(custom=given(elapsed=-1)), INVALID, "custom.elapsed[0]: must not be negative"),
    (es(custom=given(name=["one"])), INVALID, "custom.name: has 1 entries for 2 scenarios"),
    (es(custom=given(spot_return=matrix(2, 1, [0, 5e3]))), INVALID, "custom.spot_return[1]: is 5000"),
    # ---- stresses
    (stress(scenarios=None), INVALID, "scenarios: is missing, and so is named"),
    (stress(named=["2020-03", "1929"]), INVALID, "named[1]: '1929' is unknown; there are 1987-10-19"),
    (stress(by_group=True), INVALID, "by_group: the portfolio has no groups"),
    (
        stress(by_position=True, scenarios=given(spot_return=matrix(50, 1, [0.1] * 50))),
        LARGE,
        "3 rows × 50 scenarios are more than the 100 numbers",
    ),
    # ---- trades
    (what_if(trade=None), INVALID, "trade: is missing"),
    (what_if(trade=trade(quantity=[math.nan])), INVALID, "trade.quantity[0]: must be finite"),
    (what_if(trade=trade(underlying_index=[1])), INVALID, "trade.underlying_index[0]: is outside"),
    (what_if(trade=trade(symbol=["IDX 95"])), EARLY, "trade[0]: IDX 95 has no market data"),
    (what_if(portfolio="unknown"), EARLY, "has no market data"),
    # ---- hedges
    (hedge(instruments=None), INVALID, "instruments: is missing"),
    (hedge(objective=9), INVALID, "objective: 9 is no objective"),
    (hedge(instruments=trade(quantity=[0.0])), INVALID, "instruments.quantity[0]: must be above 0"),
    (hedge(instruments=trade(strike=[-1.0])), INVALID, "instruments.strike[0]: must be positive"),
    (hedge(instruments=trade(symbol=["X"])), EARLY, "instruments[0]: X has no market data"),
    (hedge(instruments=trade(symbol=["X"] * 51)), INVALID, "instruments: 51 are more than 50"),
    (hedge(lot_size=[0.0]), INVALID, "lot_size[0]: must be 1e-06 to"),
    (hedge(lot_size=[1.0, 2.0]), INVALID, "lot_size: has 2 entries"),
    (hedge(cost_per_lot=[math.nan]), INVALID, "cost_per_lot[0]: must be 0 to"),
    (hedge(budget=-1.0), INVALID, "budget: must not be negative"),
    (hedge(budget=math.nan), INVALID, "budget: must not be negative"),
    # ---- options
    (wire.PriceRequest(), INVALID, "options.spot: is missing"),
    (wire.GreeksRequest(engine="abacus"), INVALID, "engine: unknown engine"),
    (wire.ImpliedVolatilityRequest(), INVALID, "options.spot: is missing"),
    (
        wire.PriceRequest(options=wire.OptionColumns(spot=[1, 2], strike=[1, 2, 3], expiry=[1], vol=[1])),
        INVALID,
        "options.spot: has 2 entries",
    ),
    (
        wire.PriceRequest(options=wire.OptionColumns(spot=[1], strike=[1], expiry=[1])),
        INVALID,
        "options.vol: is missing",
    ),
    # ---- portfolios
    (wire.PutPortfolioRequest(), INVALID, "portfolio: needs a printable name"),
    (wire.PutPortfolioRequest(portfolio=bad_inline), INVALID, "positions.quantity[1]: must be finite"),
    (
        wire.PutPortfolioRequest(portfolio=portfolio(rows=ROWS), expected_version=9),
        grpc.StatusCode.ABORTED,
        "version 1 is there, not 9",
    ),
    (wire.GetPortfolioRequest(portfolio="nobody"), MISSING, "no portfolio named"),
    (wire.DeletePortfolioRequest(portfolio="nobody"), MISSING, "no portfolio named"),
    (wire.ListPortfoliosRequest(page_size=1_001), INVALID, "page_size: 1001 is more than 1000"),
    (wire.WatchRiskRequest(portfolios=["nobody"]), MISSING, "no portfolio named"),
    (wire.WatchRiskRequest(min_interval_ms=60_001), INVALID, "min_interval_ms: is more than"),
]


@pytest.mark.parametrize(("request_", "code", "says"), REFUSED, ids=lambda one: str(one)[:40])
def test_what_is_wrong_is_named(stub, request_, code, says):
    method = getattr(stub, type(request_).__name__.removesuffix("Request"))
    watch = isinstance(request_, wire.WatchRiskRequest)
    with pytest.raises(grpc.RpcError) as refused:
        next(method(request_, timeout=PATIENCE_S)) if watch else method(request_, timeout=PATIENCE_S)
    assert says in refused.value.details()
    assert refused.value.code() is code
    if code is INVALID:
        fault = risk_client.errors.from_rpc(refused.value)
        assert fault.violations[0].field == says.split(":")[0]


def test_the_same_requests_pass_without_the_fault(stub):
    for request in (es(), es(inline_portfolio=inline), es(custom=given(), levels=[0.5])):
        assert stub.ExpectedShortfall(request, timeout=PATIENCE_S).tail
    assert len(stub.StressTest(stress(named=["2020-03"]), timeout=PATIENCE_S).pnl) == 3
    assert stub.WhatIf(what_if(), timeout=PATIENCE_S).incremental
    assert len(stub.Hedge(hedge(), timeout=PATIENCE_S).trade) == 1


class Gated(gk.Engine):
    """A real engine that stops at its n-th revaluation until it is let go."""

    def __init__(self, engine: gk.Engine) -> None:
        super().__init__(engine.name, engine.device, engine._backend)
        self.calls, self.stop_at = 0, math.inf
        self.reached, self.go = threading.Event(), threading.Event()

    def revalue(self, portfolio, scenarios, *, by=None, out=None):
        self.calls += 1
        if self.calls == self.stop_at:
            self.reached.set()
            assert self.go.wait(PATIENCE_S)
        return super().revalue(portfolio, scenarios, by=by, out=out)


@pytest.fixture
def gated():
    """A service whose engine can be held, revaluing one scenario at a time."""
    engine = Gated(gk.engine("auto"))
    with Service(HISTORY, engine=engine) as service:
        service.open_market()

        def make():
            settings = GrpcSettings(port=0)
            servicer = service.servicer(settings)
            servicer.on_demand = replace(servicer.on_demand, limits=Limits(block_revaluations=1))
            return service.server(settings, servicer)

        with serving(make) as server:
            yield service, engine, f"127.0.0.1:{server.port}"


REQUEST = wire.ExpectedShortfallRequest(
    inline_portfolio=portfolio("p", rows=ROWS), custom=given(spot_return=matrix(1_000, 1, np.zeros(1_000)))
)


def idle(service):
    """Waits until the threads that compute have nothing left to do; they take nothing more."""
    service.executor.shutdown(wait=True)


def ended(service, address):
    """Waits until the server has learnt that nobody waits for an answer."""
    with grpc.insecure_channel(address) as channel:
        while service.computing():
            RiskServiceStub(channel).ListPortfolios(wire.ListPortfoliosRequest(), timeout=PATIENCE_S)


def test_a_cancelled_call_stops_costing(gated):
    service, engine, address = gated
    engine.stop_at = 3
    with grpc.insecure_channel(address) as channel:
        call = RiskServiceStub(channel).ExpectedShortfall.future(REQUEST, timeout=PATIENCE_S)
        assert engine.reached.wait(PATIENCE_S)
        call.cancel()
        ended(service, address)
    engine.go.set()
    idle(service)
    assert engine.calls == 3


def test_a_call_past_its_deadline_stops_costing(gated):
    service, engine, address = gated
    engine.stop_at = 3
    with grpc.insecure_channel(address) as channel:
        stub = RiskServiceStub(channel)
        # A slow machine may take all of a short deadline before the work begins; then the next is longer.
        for seconds in (0.5, 2.0, 8.0, 32.0):
            call = stub.ExpectedShortfall.future(REQUEST, timeout=seconds)
            assert call.exception(2 * PATIENCE_S).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            ended(service, address)
            if engine.reached.is_set():
                break
    engine.go.set()
    idle(service)
    assert engine.calls == 3


def test_ticks_go_on_while_a_long_call_computes(gated):
    service, engine, address = gated
    with RiskClient(address, deadline_s=PATIENCE_S) as client:
        client.put_portfolio(portfolio(rows=ROWS))
        client.expected_shortfall("desk", risk_client.historical(500))
        engine.stop_at = engine.calls + 2
        with grpc.insecure_channel(address) as channel:
            call = RiskServiceStub(channel).ExpectedShortfall.future(REQUEST, timeout=PATIENCE_S)
            assert engine.reached.wait(PATIENCE_S)
            service.open_market(spot=90.0)
            spots = (one.greeks.spot[0] for one in client.watch_risk(["desk"], deadline_s=PATIENCE_S))
            assert 90.0 in spots
            engine.go.set()
            assert abs(call.result(PATIENCE_S).tail[0].expected_shortfall) < 1e-9
