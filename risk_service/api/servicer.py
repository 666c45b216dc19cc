"""RiskService: which part of the service answers which RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceServicer
from risk_service.api.on_demand_plans import OnDemandPlans, Plan
from risk_service.api.on_demand_rpcs import OnDemandRpcs
from risk_service.api.option_rpcs import OptionRpcs
from risk_service.api.portfolio_rpcs import PortfolioRpcs
from risk_service.device_health import Device, DeviceWatch
from risk_service.engines import DEVICE_ENGINES, Engines
from service_kit.grpc_server.call import current_call

# How long a list of engines waits for those that are still being looked for, right after the start.
SURVEY_WAIT_S = 5.0


def _each(answer: Callable[[OptionRpcs, Any], Awaitable[Any]]) -> Any:
    """A stream of requests: one answer to each, in order."""

    async def stream(self: RiskServicer, requests: AsyncIterable[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield await answer(self.options, request)

    return stream


def _told(plan: Callable[[OnDemandPlans, Any], Plan[Any]], update: Callable[..., Any]) -> Any:
    """The same answer as the call without progress, and before it how far it is."""

    async def stream(self: RiskServicer, request: Any, context: Any) -> AsyncIterator[Any]:
        told = self.on_demand.with_progress(plan(self.on_demand.plans, request), update)
        async with aclosing(told) as updates:
            async for one in updates:
                yield one

    return stream


@dataclass(slots=True)
class RiskServicer(RiskServiceServicer):
    """The RPCs that this service answers."""

    engines: Engines
    options: OptionRpcs
    portfolios: PortfolioRpcs
    on_demand: OnDemandRpcs
    devices: DeviceWatch

    async def Price(self, request: wire.PriceRequest, context: Any) -> wire.PriceResponse:
        """Prices of options in columns."""
        return await self.options.price(request)

    async def Greeks(self, request: wire.GreeksRequest, context: Any) -> wire.GreeksResponse:
        """Prices and Greeks of options in columns."""
        return await self.options.greeks(request)

    async def ImpliedVolatility(
        self, request: wire.ImpliedVolatilityRequest, context: Any
    ) -> wire.ImpliedVolatilityResponse:
        """Vols of options in columns."""
        return await self.options.implied_volatility(request)

    PriceStream = _each(OptionRpcs.price)
    GreeksStream = _each(OptionRpcs.greeks)
    ImpliedVolatilityStream = _each(OptionRpcs.implied_volatility)

    async def PutPortfolio(
        self, request: wire.PutPortfolioRequest, context: Any
    ) -> wire.PutPortfolioResponse:
        """Checks a portfolio, logs it and holds it from then on."""
        return await self.portfolios.put(request)

    async def GetPortfolio(self, request: wire.GetPortfolioRequest, context: Any) -> wire.Portfolio:
        """A portfolio as it was put."""
        return await self.portfolios.get(request)

    async def ListPortfolios(
        self, request: wire.ListPortfoliosRequest, context: Any
    ) -> wire.ListPortfoliosResponse:
        """The portfolios that the caller may read, a page at a time."""
        return await self.portfolios.list(request)

    async def DeletePortfolio(
        self, request: wire.DeletePortfolioRequest, context: Any
    ) -> wire.DeletePortfolioResponse:
        """Forgets a portfolio, here and in the log."""
        return await self.portfolios.delete(request)

    async def ExpectedShortfall(
        self, request: wire.ExpectedShortfallRequest, context: Any
    ) -> wire.ExpectedShortfallResponse:
        """Tail risk of a portfolio: historical, Monte Carlo or under given scenarios."""
        return await self.on_demand.answer(self.on_demand.plans.expected_shortfall(request))

    async def StressTest(self, request: wire.StressTestRequest, context: Any) -> wire.StressTestResponse:
        """What given and named scenarios do to a portfolio."""
        return await self.on_demand.answer(self.on_demand.plans.stress_test(request))

    async def Hedge(self, request: wire.HedgeRequest, context: Any) -> wire.HedgeResponse:
        """Trades that take risk off a portfolio."""
        return await self.on_demand.answer(self.on_demand.plans.hedge(request))

    async def WhatIf(self, request: wire.WhatIfRequest, context: Any) -> wire.WhatIfResponse:
        """Expected shortfall with and without a trade."""
        return await self.on_demand.answer(self.on_demand.plans.what_if(request))

    ExpectedShortfallWithProgress = _told(OnDemandPlans.expected_shortfall, wire.ExpectedShortfallUpdate)
    StressTestWithProgress = _told(OnDemandPlans.stress_test, wire.StressTestUpdate)
    HedgeWithProgress = _told(OnDemandPlans.hedge, wire.HedgeUpdate)

    async def WatchRisk(
        self, request: wire.WatchRiskRequest, context: Any
    ) -> AsyncIterator[wire.RiskMetrics]:
        """The risk now, then every change; between two answers to a slow reader only the latest is kept."""
        async with aclosing(self.portfolios.watch(request)) as changes:
            async for metrics in changes:
                yield metrics

    async def ListEngines(self, request: wire.ListEnginesRequest, context: Any) -> wire.ListEnginesResponse:
        """Every engine, there or not, and why; one that is still being looked for is waited for shortly."""
        wait_s = min(SURVEY_WAIT_S, current_call().remaining_s() / 2.0)
        await asyncio.wait((asyncio.wrap_future(self.engines.survey()),), timeout=wait_s)
        response = wire.ListEnginesResponse(serving=self.engines.serving.name)
        reading = self.devices.latest()
        for one in self.engines.known():
            row = response.engines.add(
                name=one.name,
                device=one.device,
                available=one.available,
                reason=self.engines.chosen_because
                if one.available and one.name == response.serving
                else one.reason,
                own_process=self.engines.supervisor(one.name) is not None,
                cannot=gk.cannot(one.name),
            )
            if one.name in DEVICE_ENGINES:
                row.device_health = reading.words or "well"
                if reading.devices and one.available:
                    _write_device(row, reading.devices[0])
        return response


def _write_device(row: wire.Engine, device: Device) -> None:
    row.memory_used_bytes, row.memory_total_bytes = device.memory_used_bytes, device.memory_total_bytes
    row.utilisation, row.temperature_celsius = device.utilisation, device.temperature_celsius
    row.last_xid = device.last_xid
    if device.last_xid:
        row.device_health = f"the driver has reported fault {device.last_xid} (Xid)"
