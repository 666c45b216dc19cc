"""BookService: orders in, depth out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from book_service import order_events
from book_service.api.access import Access
from book_service.api.limits import budgets_of, capital_of, wanted_of
from book_service.budgets import Budget, Splitter
from book_service.matching import ControlCommand
from protos import packing
from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import BookServiceServicer
from protos.control_commands import ControlRow, control_batch
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ACTION_CONTROL, OrderBatch
from service_kit.errors import InvalidRequest, NotFound, PreconditionFailed
from service_kit.grpc_server.call import current_call
from service_kit.kafka.control_log import PARTITIONS, Acknowledged

KILL_ACCOUNTS_MAX = 10_000
LEVELS_DEFAULT = 10
LEVELS_MAX = 1_000
WATCH_INTERVAL_MS_DEFAULT = 100
WATCH_INTERVAL_MS_MAX = 60_000

Answer = TypeVar("Answer")


class OrderLog(Protocol):
    """Where orders are made to last."""

    def append(self, orders: OrderBatch) -> list[Origin]:
        """Returns when the log has them: where each partition's part is."""


class Commands(Protocol):
    """How control commands reach partitions, whichever process holds them."""

    def send(self, batches: Mapping[int, OrderBatch], within_s: float) -> list[Acknowledged]:
        """Returns when every partition has applied its commands, with what it says to each."""


@dataclass(slots=True)
class BookServicer(BookServiceServicer):
    """The RPCs that this service answers."""

    book: Callable[[str, int], wire.Book | None]
    log: OrderLog
    commands: Commands
    instruments: tuple[str, ...]
    executor: Executor
    access: Access = field(default_factory=Access)
    has_controls: bool = True
    money_unit: float = 1.0  # of the venue's amounts, in currency
    clock_ns: Callable[[], int] = time.time_ns

    async def SubmitOrders(
        self, request: wire.SubmitOrdersRequest, context: Any
    ) -> wire.SubmitOrdersResponse:
        """Appends a batch to the log, at the time of its arrival; what becomes of each order is reported."""
        try:
            rows = order_events.decode(request.orders.SerializeToString()).rows
        except packing.PackingError as fault:
            raise InvalidRequest(f"orders.{fault.field}", fault.why, fault.row) from fault
        principal = current_call().principal
        if (rows["action"] == ACTION_CONTROL).any():
            self.access.expect_operator(principal, "send control commands")
        self.access.expect_accounts(principal, rows["account"])
        request.orders.client = principal
        # The venue's clock is the latest time of any message: it is ours to say, not a caller's.
        request.orders.time_ns[:] = [self.clock_ns()]
        logged = await self._in_thread(lambda: self.log.append(request.orders))
        return wire.SubmitOrdersResponse(logged=logged)

    async def GetBook(self, request: wire.GetBookRequest, context: Any) -> wire.Book:
        """Depth of one instrument now."""
        return self._book(request.symbol, _levels(request.levels))

    async def WatchBook(self, request: wire.WatchBookRequest, context: Any) -> AsyncIterator[wire.Book]:
        """Depth now, then whenever it has changed; looked at no oftener than the interval asked for."""
        if request.min_interval_ms > WATCH_INTERVAL_MS_MAX:
            raise InvalidRequest("min_interval_ms", f"is more than {WATCH_INTERVAL_MS_MAX}")
        interval_s = (request.min_interval_ms or WATCH_INTERVAL_MS_DEFAULT) / 1e3
        levels = _levels(request.levels)
        last: wire.Book | None = None
        while True:
            book = self._book(request.symbol, levels)
            if last is None or book != last:
                last = book
                yield book
            await asyncio.sleep(interval_s)

    async def Kill(self, request: wire.KillRequest, context: Any) -> wire.KillResponse:
        """Cancels every order and refuses new ones, of some accounts or of all, on every partition."""
        self.access.expect_operator(current_call().principal, "kill")
        self._expect_controls("a kill would do nothing")
        if len(request.accounts) > KILL_ACCOUNTS_MAX:
            raise InvalidRequest("accounts", f"has more than {KILL_ACCOUNTS_MAX}")
        accounts: list[int | None] = list(request.accounts) or [None]
        rows = [ControlRow(ControlCommand.KILL, account) for account in accounts]
        command = control_batch(rows, self.clock_ns(), current_call().principal)
        everywhere = dict.fromkeys(range(PARTITIONS), command)
        left_s = current_call().remaining_s()
        response = wire.KillResponse()
        for one in await self._in_thread(lambda: self.commands.send(everywhere, left_s)):
            cancelled = sum(answer.amount for answer in one.answers)
            response.acknowledged.add(partition=one.partition, offset=one.offset, cancelled=cancelled)
        return response

    async def SetLimits(self, request: wire.SetLimitsRequest, context: Any) -> wire.SetLimitsResponse:
        """Splits limits over the partitions while trading goes on; tells the budgets that are in force."""
        self.access.expect_operator(current_call().principal, "set limits")
        self._expect_controls("there are no limits")
        wanted = wanted_of(request, self.money_unit)
        capital = capital_of(request, self.money_unit)
        ends_s = time.monotonic() + current_call().remaining_s()
        splitter = Splitter(
            send=lambda batches: self.commands.send(batches, max(0.0, ends_s - time.monotonic())),
            partitions=PARTITIONS,
            time_ns=self.clock_ns,
            client=current_call().principal,
        )
        accounts: list[int | None] = list(request.accounts) or [None]

        def work() -> list[Budget]:
            if wanted or capital:
                splitter.split(wanted, capital, by_use=request.by_use)
            told = [budget for account in accounts for budget in splitter.tell(account)]
            return list(dict.fromkeys(told))  # the breaker's is the same for every account

        budgets = await self._in_thread(work)
        return wire.SetLimitsResponse(budgets=budgets_of(budgets, self.money_unit))

    def _expect_controls(self, why: str) -> None:
        if not self.instruments:
            raise PreconditionFailed(f"this service has no instruments: {why}")
        if not self.has_controls:
            raise PreconditionFailed(f"this service runs without pre-trade controls: {why}")

    def _book(self, symbol: str, levels: int) -> wire.Book:
        book = self.book(symbol, levels)
        if book is None:
            raise NotFound("instrument", symbol)
        return book

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


def _levels(asked: int) -> int:
    if asked > LEVELS_MAX:
        raise InvalidRequest("levels", f"is more than {LEVELS_MAX}")
    return asked or LEVELS_DEFAULT
