"""RiskService: each method reads its request, asks the kernels or the live state, and answers in columns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import gpu_kernels as gk
from protos.risk.v1 import risk_pb2 as wire
from protos.risk.v1.risk_pb2_grpc import RiskServiceServicer
from risk_service.api import option_requests as options
from risk_service.board import RiskBoard
from risk_service.engines import Engines
from risk_service.portfolios import PortfolioStore
from service_kit.errors import InvalidRequest, NotSupported
from service_kit.grpc_server.call import current_call

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
WATCH_INTERVAL_MS_MAX = 60_000

# Up to this many rows the kernel takes less time than handing the work to another thread.
INLINE_ROWS = 256

Answer = TypeVar("Answer")


class PortfolioLog(Protocol):
    """Where changes of portfolios are made to last."""

    def put(self, portfolio: wire.Portfolio) -> None:
        """Returns when the log has it."""

    def delete(self, name: str) -> None:
        """Returns when the log has it."""


@dataclass(slots=True)
class RiskServicer(RiskServiceServicer):
    """The RPCs that this service answers."""

    engines: Engines
    store: PortfolioStore
    board: RiskBoard
    log: PortfolioLog
    executor: Executor
    rows_per_request_max: int
    # One change at a time, logged before it is applied: the log must end with the version that is held.
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def Price(self, request: wire.PriceRequest, context: Any) -> wire.PriceResponse:
        """Prices of options in columns."""
        engine = self.engines.named(request.engine)
        columns = options.read_options(request.options, self.rows_per_request_max, with_vol=True)
        method = options.american_method(request.american_method)
        result = await self._compute(columns.size, lambda: engine.price(columns, american_method=method))
        response = options.price_response(result)
        response.provenance.CopyFrom(_provenance(engine, "price"))
        return response

    async def Greeks(self, request: wire.GreeksRequest, context: Any) -> wire.GreeksResponse:
        """Prices and Greeks of options in columns."""
        engine = self.engines.named(request.engine)
        columns = options.read_options(request.options, self.rows_per_request_max, with_vol=True)
        method = options.american_method(request.american_method)
        result = await self._compute(columns.size, lambda: engine.greeks(columns, american_method=method))
        response = options.greeks_response(result)
        response.provenance.CopyFrom(_provenance(engine, "greeks"))
        return response

    async def ImpliedVolatility(
        self, request: wire.ImpliedVolatilityRequest, context: Any
    ) -> wire.ImpliedVolatilityResponse:
        """Vols of options in columns."""
        engine = self.engines.named(request.engine)
        columns = options.read_options(request.options, self.rows_per_request_max, with_vol=False)
        prices = options.read_prices(request, columns.size)
        result = await self._compute(columns.size, lambda: engine.implied_vol(columns, prices))
        response = options.vol_response(result)
        response.provenance.CopyFrom(_provenance(engine, "implied volatility"))
        return response

    async def PriceStream(
        self, requests: AsyncIterable[wire.PriceRequest], context: Any
    ) -> AsyncIterator[wire.PriceResponse]:
        """One answer to each request, in order."""
        async for request in requests:
            yield await self.Price(request, context)

    async def GreeksStream(
        self, requests: AsyncIterable[wire.GreeksRequest], context: Any
    ) -> AsyncIterator[wire.GreeksResponse]:
        """One answer to each request, in order."""
        async for request in requests:
            yield await self.Greeks(request, context)

    async def ImpliedVolatilityStream(
        self, requests: AsyncIterable[wire.ImpliedVolatilityRequest], context: Any
    ) -> AsyncIterator[wire.ImpliedVolatilityResponse]:
        """One answer to each request, in order."""
        async for request in requests:
            yield await self.ImpliedVolatility(request, context)

    async def PutPortfolio(
        self, request: wire.PutPortfolioRequest, context: Any
    ) -> wire.PutPortfolioResponse:
        """Checks a portfolio, logs it and holds it from then on."""
        owner = current_call().principal
        async with self._changing:
            logged = self.store.prepare(request.portfolio, request.expected_version, owner)
            await self._in_thread(lambda: self.log.put(logged))
            self.store.apply(logged)
        return wire.PutPortfolioResponse(version=logged.version)

    async def GetPortfolio(self, request: wire.GetPortfolioRequest, context: Any) -> wire.Portfolio:
        """A portfolio as it was put."""
        return self.store.message(request.portfolio)

    async def ListPortfolios(
        self, request: wire.ListPortfoliosRequest, context: Any
    ) -> wire.ListPortfoliosResponse:
        """Names, versions and sizes, a page at a time; a page's token is the last name of the one before."""
        size = request.page_size or PAGE_SIZE_DEFAULT
        if size > PAGE_SIZE_MAX:
            raise InvalidRequest("page_size", f"{size} is more than {PAGE_SIZE_MAX}")
        after = [held for held in self.store.all() if held.name > request.page_token]
        page = after[:size]
        response = wire.ListPortfoliosResponse()
        for held in page:
            response.portfolios.add(portfolio=held.name, version=held.version, positions=len(held))
        if len(after) > size:
            response.next_page_token = page[-1].name
        return response

    async def DeletePortfolio(
        self, request: wire.DeletePortfolioRequest, context: Any
    ) -> wire.DeletePortfolioResponse:
        """Forgets a portfolio, here and in the log."""
        name = request.portfolio
        async with self._changing:
            self.store.get(name)
            self.store.expect(name, request.expected_version)
            await self._in_thread(lambda: self.log.delete(name))
            self.store.apply_delete(name)
        return wire.DeletePortfolioResponse()

    async def WatchRisk(
        self, request: wire.WatchRiskRequest, context: Any
    ) -> AsyncIterator[wire.RiskMetrics]:
        """The risk now, then every change; between two answers to a slow reader only the latest is kept."""
        if request.min_interval_ms > WATCH_INTERVAL_MS_MAX:
            raise InvalidRequest("min_interval_ms", f"is more than {WATCH_INTERVAL_MS_MAX}")
        for name in request.portfolios:
            self.store.get(name)
        wanted = frozenset(request.portfolios)
        with self.board.watch(lambda name: not wanted or name in wanted) as watcher:
            while True:
                for name in await watcher.changed():
                    latest = self.board.latest(name)
                    if latest is not None:
                        yield latest
                if request.min_interval_ms:
                    await asyncio.sleep(request.min_interval_ms / 1e3)

    async def ListEngines(self, request: wire.ListEnginesRequest, context: Any) -> wire.ListEnginesResponse:
        """Every engine, there or not, and why."""
        response = wire.ListEnginesResponse(serving=self.engines.serving.name)
        for one in self.engines.all:
            response.engines.add(
                name=one.name,
                device=one.engine.device if one.engine is not None else "",
                available=one.engine is not None,
                reason=self.engines.chosen_because if one.name == response.serving else one.reason,
            )
        return response

    async def ExpectedShortfall(self, request: Any, context: Any) -> wire.ExpectedShortfallResponse:
        """Not yet."""
        raise NotSupported("ExpectedShortfall")

    async def StressTest(self, request: Any, context: Any) -> wire.StressTestResponse:
        """Not yet."""
        raise NotSupported("StressTest")

    async def Hedge(self, request: Any, context: Any) -> wire.HedgeResponse:
        """Not yet."""
        raise NotSupported("Hedge")

    async def WhatIf(self, request: Any, context: Any) -> wire.WhatIfResponse:
        """Not yet."""
        raise NotSupported("WhatIf")

    async def _compute(self, rows: int, work: Callable[[], Answer]) -> Answer:
        """Runs a kernel: here when it is small, else in a thread, so that other calls go on."""
        return work() if rows <= INLINE_ROWS else await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


def _provenance(engine: gk.Engine, method: str) -> wire.Provenance:
    return wire.Provenance(engine=engine.name, device=engine.device, method=method)
