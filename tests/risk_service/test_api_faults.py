"""Every RPC of the real service against every way to be refused; afterwards nothing is left behind."""

from __future__ import annotations

import asyncio
import gc

import grpc
import psutil
import pytest
from served import Service, price_history
from worlds import option, portfolio

from protos.risk.v1 import risk_pb2 as wire
from risk_service.settings import RiskSettings
from service_kit.grpc_server import GrpcSettings
from tests.service_kit.certificates import World
from tests.service_kit.rpc_faults import FaultCase, call, fault_cases, secure_channel

RPCS = wire.DESCRIPTOR.services_by_name["RiskService"]
CASES = fault_cases(RPCS)
# One RPC that streams both ways, and one that computes in a thread.
SOME = ("PriceStream", "ExpectedShortfall")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def service():
    # The bearer puts a portfolio that fills are routed to.
    with Service(price_history(), risk=RiskSettings(writers=("desk-1",))) as service:
        service.open_market()
        yield service
        assert service.loop.teller.board.watchers() == 0
        assert not service.loop.desk.asked()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_refused(case: FaultCase, world: World, service: Service) -> None:
    await case.check(service.server, world)


async def test_the_same_calls_pass_without_the_fault(world: World, service: Service) -> None:
    book = portfolio(rows=(option(100.0, True),))
    columns = wire.OptionColumns(spot=[100.0], strike=[100.0], expiry=[1.0], vol=[0.2])
    priced = {name: wire.PriceRequest(options=columns) for name in ("Price", "PriceStream")}
    trade = portfolio(rows=(option(90.0, False),)).positions
    requests = {
        **priced,
        "Greeks": wire.GreeksRequest(options=columns),
        "GreeksStream": wire.GreeksRequest(options=columns),
        "ImpliedVolatility": wire.ImpliedVolatilityRequest(options=columns, price=[8.0]),
        "ImpliedVolatilityStream": wire.ImpliedVolatilityRequest(options=columns, price=[8.0]),
        "PutPortfolio": wire.PutPortfolioRequest(portfolio=book),
        "GetPortfolio": wire.GetPortfolioRequest(portfolio="desk"),
        "ListPortfolios": wire.ListPortfoliosRequest(),
        "ExpectedShortfall": wire.ExpectedShortfallRequest(
            portfolio="desk", historical=wire.HistoricalScenarios()
        ),
        "StressTest": wire.StressTestRequest(portfolio="desk", named=["2020-03"]),
        "Hedge": wire.HedgeRequest(portfolio="desk"),
        "WhatIf": wire.WhatIfRequest(portfolio="desk", trade=trade),
        "ExpectedShortfallWithProgress": wire.ExpectedShortfallRequest(
            portfolio="desk", historical=wire.HistoricalScenarios()
        ),
        "StressTestWithProgress": wire.StressTestRequest(portfolio="desk", named=["2020-03"]),
        "HedgeWithProgress": wire.HedgeRequest(portfolio="desk"),
        "WatchRisk": wire.WatchRiskRequest(),
        "ListEngines": wire.ListEnginesRequest(),
        "DeletePortfolio": wire.DeletePortfolioRequest(portfolio="desk"),
    }
    assert requests.keys() == {method.name for method in RPCS.methods}
    async with (
        service.server(GrpcSettings(**world.settings())) as server,
        secure_channel(server, world, world.client) as channel,
    ):
        for name, request in requests.items():
            method = RPCS.methods_by_name[name]
            good = await call(channel, method, metadata=world.bearer(), request=request)
            assert good.code is grpc.StatusCode.OK, (name, good)
            assert len(good.messages) == 1


async def test_a_whole_battery_leaves_nothing_behind(world: World, service: Service) -> None:
    process = psutil.Process()
    battery = [case for case in CASES if case.method.name in SOME]

    async def run() -> tuple[int, int]:
        for case in battery:
            await case.check(service.server, world)
        gc.collect()
        return process.num_fds(), process.num_threads()

    await run()  # fills grpc's own pools
    fds, threads = await run()
    again = await run()
    async with asyncio.timeout(60):
        # grpc closes its sockets and lets its threads go in the background.
        while again[0] > fds or again[1] > threads + 4:
            await asyncio.sleep(0.01)
            again = process.num_fds(), process.num_threads()
