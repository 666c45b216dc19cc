"""What is wrong with a request is said by field and row."""

from __future__ import annotations

import math

import grpc
import pytest
from served import PATIENCE_S, Service, price_history, serving
from worlds import option, portfolio, spot_position

from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceStub
from risk_client import RiskClient
from risk_client.failed_calls import from_rpc
from risk_service.api.option_requests import ANSWER_BYTES_BESIDE
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings

ROWS = (option(90.0, False, 10.0), option(100.0, True, -20.0), spot_position(150.0))
RISK = RiskSettings(values_per_answer_max=100, revaluations_per_request_max=20_000, history_days_max=200)
HISTORY = price_history()
SMALL_BYTES = 16_384  # of a message
INVALID, MISSING = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
LARGE, EARLY = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
def service():
    with Service(HISTORY, risk=RISK) as service:
        service.open_market()
        yield service


@pytest.fixture(scope="module")
def server(service):
    with (
        serving(lambda: service.server(GrpcSettings(port=0))) as server,
        RiskClient(f"127.0.0.1:{server.port}", deadline_s=PATIENCE_S) as client,
    ):
        client.put_portfolio(portfolio(rows=ROWS))
        client.put_portfolio(portfolio("nothing", underlyings=()))
        client.put_portfolio(portfolio("unknown", rows=(spot_position(1.0, "XYZ"),), underlyings=("XYZ",)))
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
    (es(monte_carlo=draws(scenarios=100, vol_beta=[math.nan])), INVALID, "monte_carlo.vol_beta[0]: is nan"),
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
    (es(custom=given(elapsed=[-1])), INVALID, "custom.elapsed[0]: must not be negative"),
    (es(custom=given(name=["one"])), INVALID, "custom.name: has 1 entries for 2 scenarios"),
    (es(custom=given(spot_return=matrix(2, 1, [0, 5e3]))), INVALID, "custom.spot_return[1]: is 5000"),
    (
        es(with_pnl=True, historical=history(window_days=101)),
        LARGE,
        "1 rows × 101 scenarios are more than the 100 numbers",
    ),
    (
        es(portfolio="nothing", liquidity_horizons=wire.LiquidityHorizons(spot_days=[10])),
        INVALID,
        "portfolio: has no underlyings, so there are no horizons",
    ),
    # ---- stresses
    (stress(scenarios=None), INVALID, "scenarios: is missing, and so are named"),
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
    (what_if(trade=trade(quantity=[1e306])), INVALID, "trade.quantity[0]: must be finite and at most 1e+12"),
    (
        what_if(trade=portfolio(rows=(spot_position(1.0, "XXX"),)).positions),
        INVALID,
        "trade.symbol[0]: of a spot position is its underlying's, IDX",
    ),
    # ---- hedges
    (
        hedge(instruments=portfolio(rows=(spot_position(1.0, "XXX"),)).positions),
        INVALID,
        "instruments.symbol[0]: of a spot position is its underlying's, IDX",
    ),
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
    (
        wire.ImpliedVolatilityRequest(
            options=wire.OptionColumns(spot=[1], strike=[1], expiry=[1]), price=[0.1], american_method=7
        ),
        INVALID,
        "american_method: 7 is no method",
    ),
    # ---- portfolios
    (wire.PutPortfolioRequest(), INVALID, "portfolio: needs a printable name"),
    (wire.PutPortfolioRequest(portfolio=portfolio(" ")), INVALID, "portfolio: must not begin or end"),
    (
        wire.PutPortfolioRequest(portfolio=portfolio(rows=(spot_position(-1e13),))),
        INVALID,
        "positions.quantity[0]: must be finite and at most 1e+12",
    ),
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
        fault = from_rpc(refused.value)
        assert fault.violations[0].field == says.split(":")[0]


def test_a_window_of_no_days_is_that_of_the_live_numbers(stub):
    plain = stub.ExpectedShortfall(es(historical=history()), timeout=PATIENCE_S)
    whole = stub.ExpectedShortfall(es(historical=history(window_days=500)), timeout=PATIENCE_S)
    live = next(stub.WatchRisk(wire.WatchRiskRequest(portfolios=["desk"]), timeout=PATIENCE_S))
    assert (plain.scenarios, whole.scenarios) == (RISK.history_days_max, 500)
    assert plain.tail[0].expected_shortfall == live.historical[0].expected_shortfall


def test_the_same_requests_pass_without_the_fault(stub):
    for request in (es(), es(inline_portfolio=inline), es(custom=given(), levels=[0.5])):
        assert stub.ExpectedShortfall(request, timeout=PATIENCE_S).tail
    assert len(stub.StressTest(stress(named=["2020-03"]), timeout=PATIENCE_S).pnl) == 3
    assert stub.WhatIf(what_if(), timeout=PATIENCE_S).incremental
    assert len(stub.Hedge(hedge(), timeout=PATIENCE_S).trade) == 1


@pytest.mark.parametrize(
    ("kind", "row_bytes"),
    [(wire.PriceRequest, 9), (wire.GreeksRequest, 73), (wire.ImpliedVolatilityRequest, 9)],
)
def test_an_answer_that_fits_no_message_is_refused_before_it_is_computed(service, kind, row_bytes):
    most = (SMALL_BYTES - ANSWER_BYTES_BESIDE) // row_bytes
    price = {"price": [10.0]} if kind is wire.ImpliedVolatilityRequest else {}
    settings = GrpcSettings(port=0, max_message_bytes=SMALL_BYTES)
    with (
        serving(lambda: service.server(settings)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        method = getattr(RiskServiceStub(channel), kind.__name__.removesuffix("Request"))

        def ask(rows):
            columns = wire.OptionColumns(spot=[100.0], expiry=[1.0], vol=[0.2], is_call=[True] * rows)
            columns.strike.append(100.0)
            return method(kind(options=columns, **price), timeout=PATIENCE_S)

        assert len(ask(most).status) == most
        with pytest.raises(grpc.RpcError) as refused:
            ask(most + 1)
    assert refused.value.code() is LARGE
    assert (
        f"{most + 1} rows are more than the {most} whose answer fits one message" in refused.value.details()
    )
    assert "or stream" in refused.value.details()


@pytest.mark.parametrize(
    "request_",
    [
        es(historical=history(window_days=4_000_000_000)),
        wire.StressTestRequest(portfolio="desk", historical=history(window_days=4_000_000_000)),
        what_if(historical=history(window_days=4_000_000_000)),
        hedge(
            objective=wire.HedgeRequest.OBJECTIVE_MIN_EXPECTED_SHORTFALL,
            historical=history(window_days=4_000_000_000),
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_window_longer_than_the_history_is_told(stub, request_):
    method = getattr(stub, type(request_).__name__.removesuffix("Request"))
    answer = method(request_, timeout=PATIENCE_S)
    told = "historical.window_days: of 4000000000 days the history has 500"
    for warnings in warnings_of(answer):
        assert told in warnings
    request_.historical.window_days = 500
    for warnings in warnings_of(method(request_, timeout=PATIENCE_S)):
        assert told not in warnings


def warnings_of(answer):
    if isinstance(answer, wire.ExpectedShortfallResponse):
        return [list(one.warnings) for one in answer.tail]
    if isinstance(answer, wire.WhatIfResponse):
        return [list(answer.before.warnings), list(answer.after.warnings)]
    return [list(answer.warnings)]
