"""Portfolios over gRPC: put, read, listed, deleted and watched by those who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.access import Access
from risk_service.api.work import Work
from risk_service.board import RiskBoard
from risk_service.portfolios import HeldPortfolio, PortfolioStore
from service_kit.errors import InvalidRequest, NotFound
from service_kit.grpc_server.call import current_call

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
WATCH_INTERVAL_MS_MAX = 60_000


class PortfolioLog(Protocol):
    """Where changes of portfolios are made to last."""

    def put(self, portfolio: wire.Portfolio) -> int:
        """Returns when the log has it: the offset of its record."""

    def delete(self, name: str) -> int:
        """Returns when the log has it: the offset of its record."""


@dataclass(slots=True)
class PortfolioRpcs:
    """The portfolios that this service holds."""

    store: PortfolioStore
    board: RiskBoard
    log: PortfolioLog
    access: Access
    work: Work
    # One change at a time, logged before it is applied: the log must end with the version that is held.
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def readable(self, name: str) -> HeldPortfolio:
        """The portfolio of that name if the caller may read it; NotFound or PermissionDenied if not."""
        held = self.store.get(name)
        self.access.expect_read(held, current_call().principal)
        return held

    async def put(self, request: wire.PutPortfolioRequest) -> wire.PutPortfolioResponse:
        """Checks a portfolio, logs it and holds it from then on."""
        async with self._changing:
            owner = self._owner_after(request.portfolio.portfolio)
            logged = self.store.prepare(request.portfolio, request.expected_version, owner)
            offset = await self.work.thread(lambda: self.log.put(logged))
            self.store.apply(logged, offset)
        return wire.PutPortfolioResponse(version=logged.version)

    async def get(self, request: wire.GetPortfolioRequest) -> wire.Portfolio:
        """A portfolio as it was put."""
        self.readable(request.portfolio)
        return self.store.message(request.portfolio)

    async def list(self, request: wire.ListPortfoliosRequest) -> wire.ListPortfoliosResponse:
        """Names, versions and sizes, a page at a time; a page's token is the last name of the one before."""
        size = request.page_size or PAGE_SIZE_DEFAULT
        if size > PAGE_SIZE_MAX:
            raise InvalidRequest("page_size", f"{size} is more than {PAGE_SIZE_MAX}")
        principal = current_call().principal
        after = [
            held
            for held in self.store.all()
            if held.name > request.page_token and self.access.may_read(held, principal)
        ]
        page = after[:size]
        response = wire.ListPortfoliosResponse()
        for held in page:
            response.portfolios.add(portfolio=held.name, version=held.version, positions=len(held))
        if len(after) > size:
            response.next_page_token = page[-1].name
        return response

    async def delete(self, request: wire.DeletePortfolioRequest) -> wire.DeletePortfolioResponse:
        """Forgets a portfolio, here and in the log."""
        name = request.portfolio
        async with self._changing:
            self.access.expect_write(self.store.get(name), current_call().principal)
            self.store.expect(name, request.expected_version)
            offset = await self.work.thread(lambda: self.log.delete(name))
            self.store.apply_delete(name, offset)
        return wire.DeletePortfolioResponse()

    async def watch(self, request: wire.WatchRiskRequest) -> AsyncGenerator[wire.RiskMetrics]:
        """The risk now, then every change; between two answers to a slow reader only the latest is kept."""
        if request.min_interval_ms > WATCH_INTERVAL_MS_MAX:
            raise InvalidRequest("min_interval_ms", f"is more than {WATCH_INTERVAL_MS_MAX}")
        for name in request.portfolios:
            self.readable(name)
        wanted, principal = frozenset(request.portfolios), current_call().principal
        with self.board.watch(lambda name: not wanted or name in wanted) as watcher:
            while True:
                for name in await watcher.changed():
                    latest = self.board.latest(name)
                    if latest is not None and self._may_see(latest, principal):
                        yield latest
                if request.min_interval_ms:
                    await asyncio.sleep(request.min_interval_ms / 1e3)

    def _owner_after(self, name: str) -> str:
        """Owner of what is put: the owner that the portfolio has, or for a new one the caller."""
        principal = current_call().principal
        try:
            held = self.store.get(name)
        except NotFound:
            return principal
        self.access.expect_write(held, principal)
        return held.owner or principal

    def _may_see(self, metrics: wire.RiskMetrics, principal: str) -> bool:
        """Asked for each answer: a name may be deleted and put again by somebody else."""
        try:
            held = self.store.get(metrics.portfolio)
        except NotFound:
            return False
        # What was measured of an older version may have been somebody else's book.
        return held.version == metrics.portfolio_version and self.access.may_read(held, principal)
