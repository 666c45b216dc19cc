"""BookService: orders in, depth out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from book_service import order_events
from book_service.matching import ControlCommand
from book_service.matching.layout import FLAG_ALL_ACCOUNTS, FLAG_ALL_SYMBOLS
from protos import packing
from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import BookServiceServicer
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import ACTION_CONTROL, OrderBatch
from service_kit.errors import InvalidRequest, NotFound, PermissionDenied, PreconditionFailed
from service_kit.grpc_server.call import current_call

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

    def append_everywhere(self, command: OrderBatch) -> list[Origin]:
        """Returns when every partition's log has the command: where it is in each."""


@dataclass(slots=True)
class BookServicer(BookServiceServicer):
    """The RPCs that this service answers."""

    book: Callable[[str, int], wire.Book | None]
    log: OrderLog
    wait_for_command: Callable[[Origin, float], int]
    instruments: tuple[str, ...]
    executor: Executor
    # Who may kill and send control commands; the others may trade. `everyone`: no callers are told apart.
    operators: frozenset[str] = frozenset()
    everyone: bool = False
    has_controls: bool = True
    clock_ns: Callable[[], int] = time.time_ns

    async def SubmitOrders(
        self, request: wire.SubmitOrdersRequest, context: Any
    ) -> wire.SubmitOrdersResponse:
        """Appends a batch to the log."""
        try:
            rows = order_events.decode(request.orders.SerializeToString()).rows
        except packing.PackingError as fault:
            raise InvalidRequest(f"orders.{fault.field}", fault.why, fault.row) from fault
        if (rows["action"] == ACTION_CONTROL).any():
            self._expect_operator("send control commands")
        request.orders.client = current_call().principal
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
        self._expect_operator("kill")
        if not self.instruments:
            raise PreconditionFailed("this service has no instruments: there is nothing to kill")
        if not self.has_controls:
            raise PreconditionFailed("this service runs without pre-trade controls: a kill would do nothing")
        if len(request.accounts) > KILL_ACCOUNTS_MAX:
            raise InvalidRequest("accounts", f"has more than {KILL_ACCOUNTS_MAX}")
        command = kill_command(request.accounts, self.instruments[0], self.clock_ns())
        command.client = current_call().principal
        logged = await self._in_thread(lambda: self.log.append_everywhere(command))
        response = wire.KillResponse()
        for origin in logged:
            left_s = current_call().remaining_s()
            cancelled = await self._in_thread(partial(self.wait_for_command, origin, left_s))
            response.acknowledged.add(partition=origin.partition, offset=origin.offset, cancelled=cancelled)
        return response

    def _expect_operator(self, what: str) -> None:
        principal = current_call().principal
        if not self.everyone and principal not in self.operators:
            raise PermissionDenied(f"{principal!r} is no operator and may not {what}")

    def _book(self, symbol: str, levels: int) -> wire.Book:
        book = self.book(symbol, levels)
        if book is None:
            raise NotFound("instrument", symbol)
        return book

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


def kill_command(accounts: Sequence[int], symbol: str, time_ns: int) -> OrderBatch:
    """The logged command that kills some accounts, or all."""
    command = OrderBatch(symbols=[symbol], symbol_index=[0])
    packing.write(command, "action", [ACTION_CONTROL])
    packing.write(command, "kind", [ControlCommand.KILL])
    packing.write(command, "flags", [FLAG_ALL_SYMBOLS if accounts else FLAG_ALL_SYMBOLS | FLAG_ALL_ACCOUNTS])
    packing.write(command, "account", accounts or [0])
    packing.write(command, "time_ns", [time_ns])
    return command


def _levels(asked: int) -> int:
    if asked > LEVELS_MAX:
        raise InvalidRequest("levels", f"is more than {LEVELS_MAX}")
    return asked or LEVELS_DEFAULT
