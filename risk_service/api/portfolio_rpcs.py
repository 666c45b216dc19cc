"""Portfolios over gRPC: put, read, listed, deleted and watched by those who may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from protos.risk.v1 import risk_pb2 as wire
from risk_service.api.access import Access
from risk_service.api.portfolio_limits import ChangeBudget, PortfolioLimits
from risk_service.board import RiskBoard
from risk_service.live_snapshot import NotYet
from risk_service.portfolios import HeldPortfolio, PortfolioStore
from service_kit.errors import InvalidRequest, NotFound, Unavailable
from service_kit.grpc_server.call import current_call

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
WATCH_INTERVAL_MS_MAX = 60_000
# A change that waits for the brokers so long holds up all others: these are told to come again.
LOG_SLOW_S = 1.0
LOG_RETRY_S = 1.0
# How long a change waits for a service that has just started, or takes over from another.
READY_S_MAX = 5.0
READY_LOOK_S = 0.02

Made = TypeVar("Made")


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
    limits: PortfolioLimits = field(default_factory=PortfolioLimits)
    no_changes: Callable[[], str] = str  # why there can be none now; empty where there can
    catching_up: Callable[[], bool] = bool  # whether the store is still being read from the log
    # One change at a time, logged before it is applied: the log must end with the version that is held. The
    # thread is of changes alone: one may wait long for the brokers. A caller who leaves takes along a change
    # that has not begun; what has begun goes on to its end, so that log and store stay alike.
    _changes: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "portfolio changes"))
    _logging_since: float | None = None
    _budget: ChangeBudget = field(init=False)

    def __post_init__(self) -> None:
        self._budget = ChangeBudget(self.limits)

    def readable(self, name: str) -> HeldPortfolio:
        """The portfolio of that name if the caller may read it; NotFound or PermissionDenied if not.

        NotYet before the log is read: nobody knows yet what there is and whose it is.
        """
        self._expect_read()
        held = self.store.get(name)
        self.access.expect_read(held, current_call().principal)
        return held

    async def put(self, request: wire.PutPortfolioRequest) -> wire.PutPortfolioResponse:
        """Checks a portfolio, logs it and holds it from then on."""
        principal, message = current_call().principal, request.portfolio

        def change() -> int:
            owner = self._owner_after(message, principal)
            rows = len(message.positions.symbol)
            counted = None if self.access.everyone else owner
            self.limits.expect_room(self.store.all(), message, counted)
            logged = self.store.prepare(message, request.expected_version, owner)
            self._budget.spend(principal, rows)
            self.store.apply(logged, self._logged(lambda: self.log.put(logged)))
            return logged.version

        await self._expect_ready()
        return wire.PutPortfolioResponse(version=await self._in_turn(change))

    async def get(self, request: wire.GetPortfolioRequest) -> wire.Portfolio:
        """A portfolio as it was put."""
        self.readable(request.portfolio)
        return self.store.message(request.portfolio)

    async def list(self, request: wire.ListPortfoliosRequest) -> wire.ListPortfoliosResponse:
        """Names, versions and sizes, a page at a time; a page's token is the last name of the one before."""
        size = request.page_size or PAGE_SIZE_DEFAULT
        if size > PAGE_SIZE_MAX:
            raise InvalidRequest("page_size", f"{size} is more than {PAGE_SIZE_MAX}")
        self._expect_read()
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
        principal, name = current_call().principal, request.portfolio

        def change() -> None:
            self.access.expect_write(self.store.get(name), principal)
            self.store.expect(name, request.expected_version)
            self._budget.spend(principal, 0)
            self.store.apply_delete(name, self._logged(lambda: self.log.delete(name)))

        await self._expect_ready()
        await self._in_turn(change)
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

    def _expect_read(self) -> None:
        if self.catching_up():
            raise NotYet

    async def _expect_ready(self) -> None:
        """Returns when what is held is all that was logged, and nobody else changes it."""
        ends = time.monotonic() + READY_S_MAX
        while why := self.no_changes():
            if time.monotonic() >= ends:
                raise Unavailable(f"portfolios cannot be changed here: {why}", LOG_RETRY_S)
            await asyncio.sleep(READY_LOOK_S)

    async def _in_turn(self, change: Callable[[], Made]) -> Made:
        """Runs a change after those that came before; refused at once while the log does not answer."""
        since = self._logging_since
        if since is not None and time.monotonic() - since > LOG_SLOW_S:
            raise Unavailable("the log of portfolios does not answer: its brokers may be away", LOG_RETRY_S)
        return await asyncio.get_running_loop().run_in_executor(self._changes, change)

    def _logged(self, write: Callable[[], int]) -> int:
        self._logging_since = time.monotonic()
        try:
            return write()
        finally:
            self._logging_since = None

    def _owner_after(self, message: wire.Portfolio, principal: str) -> str:
        """Owner of what is put: the owner that the portfolio has, or for a new one whom the access says."""
        try:
            held = self.store.get(message.portfolio)
        except NotFound:
            return self.access.owner_of_new(message.portfolio, message.owner, principal)
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
