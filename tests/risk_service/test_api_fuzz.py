"""Requests that no client would send: none crashes the service or finds an error of its own."""

from __future__ import annotations

import grpc
import pytest
from served import STRIKES, Service, price_history
from worlds import DAY_NS, NOW_NS, option, osi, portfolio, spot_position

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings
from tests.service_kit.rpc_fuzz import fuzz

REQUESTS, SOAK_REQUESTS = 2_000, 100_000
RPCS = wire.DESCRIPTOR.services_by_name["RiskService"]

BOOK = portfolio(
    rows=(option(90.0, False, 10.0), option(100.0, True, -20.0, group=1), spot_position(150.0)),
    groups=("vol", "carry"),
)
OPTIONS = wire.OptionColumns(
    spot=[100.0], strike=[90.0, 100.0], expiry=[0.5], vol=[0.2], rate=[0.03], is_call=[True]
)
SHOCKS = wire.ScenarioColumns(
    spot_return=wire.Matrix(rows=4, columns=1, values=[-0.1, 0.0, 0.1, -0.2]),
    vol_change=wire.Matrix(rows=4, columns=1, values=[0.1, 0.0, 0.0, 0.2]),
    name=["a", "b", "c", "d"],
)
TRADE = portfolio(rows=(option(90.0, False, 5.0), spot_position(20.0))).positions
BY = wire.ByUnderlying(other=0.5, underlying=["IDX"], value=[-0.1])
DIVIDENDS = wire.OptionColumns(
    spot=[100.0],
    strike=[90.0, 100.0],
    expiry=[0.5],
    vol=[0.2],
    american=[False],
    dividends=wire.DividendColumns(schedule=[0, 1], ex_date=[0.2, 0.3], amount=[1.0, 2.0]),
    dividend_schedule=[0, 1],
)
PAYING = portfolio(rows=(option(90.0, False, 10.0), spot_position(150.0)))
PAYING.dividends.CopyFrom(
    wire.PortfolioDividends(underlying_index=[0], ex_time_ns=[NOW_NS + 30 * DAY_NS], amount=[1.5])
)
PRICE = [wire.PriceRequest(options=OPTIONS), wire.PriceRequest(options=DIVIDENDS)]
GREEKS = [wire.GreeksRequest(options=OPTIONS), wire.GreeksRequest(options=DIVIDENDS)]
VOLS = [wire.ImpliedVolatilityRequest(options=OPTIONS, price=[11.0, 7.0])]
GOOD = {
    "Price": PRICE,
    "PriceStream": PRICE,
    "Greeks": GREEKS,
    "GreeksStream": GREEKS,
    "ImpliedVolatility": VOLS,
    "ImpliedVolatilityStream": VOLS,
    "PutPortfolio": [wire.PutPortfolioRequest(portfolio=BOOK)],
    "GetPortfolio": [wire.GetPortfolioRequest(portfolio="desk")],
    "DeletePortfolio": [wire.DeletePortfolioRequest(portfolio="other")],
    "ListPortfolios": [wire.ListPortfoliosRequest(page_size=2, page_token="a")],
    "ExpectedShortfall": [
        wire.ExpectedShortfallRequest(
            portfolio="desk", historical=wire.HistoricalScenarios(window_days=200), with_components=True
        ),
        wire.ExpectedShortfallRequest(
            inline_portfolio=BOOK,
            monte_carlo=wire.MonteCarloScenarios(scenarios=512, seed=1, vol_beta=[-0.5]),
        ),
        wire.ExpectedShortfallRequest(inline_portfolio=BOOK, custom=SHOCKS, levels=[0.5], with_pnl=True),
    ],
    "StressTest": [
        wire.StressTestRequest(portfolio="desk", scenarios=SHOCKS, by_group=True, by_position=True),
        wire.StressTestRequest(inline_portfolio=BOOK, named=["2020-03"], by_position=True),
        wire.StressTestRequest(
            portfolio="desk",
            shocks=[wire.Shock(name="a", spot=BY, vol=BY, rate=0.01, elapsed=0.1)],
            ladders=[wire.Ladder(name="b", spot=[-0.1, 0.1], vol=[0.0, 0.2], beta=BY)],
            events=[wire.NamedEvent(name="2020-03", beta=BY)],
            historical=wire.HistoricalScenarios(window_days=20, horizon_days=2),
        ),
        wire.StressTestRequest(inline_portfolio=PAYING, scenarios=SHOCKS),
    ],
    "Hedge": [
        wire.HedgeRequest(portfolio="desk", objective=objective, instruments=TRADE, lot_size=[1.0])
        for objective in wire.HedgeRequest.Objective.values()
    ]
    + [
        wire.HedgeRequest(portfolio="desk", cost_rate=[0.001], risk_aversion=0.1, plan_reach=0.2),
        wire.HedgeRequest(
            portfolio="desk",
            objective=wire.HedgeRequest.OBJECTIVE_KELLY,
            instruments=portfolio(rows=(spot_position(1e6),)).positions,
            kelly=wire.KellySizing(expected_return=[0.05], capital=1e6, fraction=0.5, leverage=2.0),
        ),
    ],
    "WhatIf": [
        wire.WhatIfRequest(portfolio="desk", trade=TRADE),
        wire.WhatIfRequest(portfolio="desk", trade=TRADE, custom=SHOCKS, level=0.5, convention=1),
        wire.WhatIfRequest(
            portfolio="desk", trade=TRADE, monte_carlo=wire.MonteCarloScenarios(scenarios=256)
        ),
    ],
    "WatchRisk": [wire.WatchRiskRequest(portfolios=["desk"], min_interval_ms=1)],
}
for _name in ("ExpectedShortfall", "StressTest", "Hedge"):
    GOOD[f"{_name}WithProgress"] = GOOD[_name]
WORDS = ("desk", "IDX", "cpu", "reference", "2020-03", *(osi("IDX", "C", strike) for strike in STRIKES))
LIMITS = RiskSettings(
    revaluations_per_request_max=20_000_000, values_per_answer_max=100_000, positions_put_per_second_max=1e9
)


@pytest.mark.parametrize("count", [REQUESTS, pytest.param(SOAK_REQUESTS, marks=pytest.mark.soak)])
async def test_nothing_that_is_sent_breaks_the_service(seed, count):
    with Service(price_history(), risk=LIMITS) as service:
        # Compiled before the first request, as nothing else is served meanwhile.
        for american in (True, False):
            options = gk.Options(spot=100.0, strike=90.0, expiry=0.5, vol=0.2, american=american)
            service.engines.serving.greeks(options)
            service.engines.serving.implied_vol(options, 12.0)
        service.open_market()
        async with (
            service.server(GrpcSettings(port=0)) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            desk = channel.unary_unary(
                "/gpu_risk.risk.v1.RiskService/PutPortfolio",
                request_serializer=wire.PutPortfolioRequest.SerializeToString,
            )
            await desk(wire.PutPortfolioRequest(portfolio=BOOK), timeout=30)
            outcomes = await fuzz(channel, RPCS, GOOD, seed, count, WORDS)
        print(outcomes)
        # Neither did everything bounce off the first check, nor did everything pass.
        assert outcomes[grpc.StatusCode.OK] > count / 20
        assert outcomes[grpc.StatusCode.INVALID_ARGUMENT] > count / 5
        assert service.thread.is_alive()
        assert service.loop.failure is None
