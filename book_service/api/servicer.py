"""BookService: orders in, depth out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from book_service import order_events
from protos import packing
from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import BookServiceServicer
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.errors import InvalidRequest, NotFound, NotSupported
from service_kit.grpc_server.call import current_call

LEVELS_DEFAULT = 10
LEVELS_MAX = 1_000
WATCH_INTERVAL_MS_DEFAULT = 100
WATCH_INTERVAL_MS_MAX = 60_000

Answer = TypeVar("Answer")


class OrderLog(Protocol):
    """Where orders are made to last."""

    def append(self, orders: OrderBatch) -> list[Origin]:
        """Returns when the log has them: where each partition's part is."""


@dataclass(slots=True)
class BookServicer(BookServiceServicer):
    """The RPCs that this service answers."""

    book: Callable[[str, int], wire.Book | None]
    log: OrderLog
    executor: Executor

    async def SubmitOrders(
        self, request: wire.SubmitOrdersRequest, context: Any
    ) -> wire.SubmitOrdersResponse:
        """Appends a batch to the log."""
        try:
            order_events.decode(request.orders.SerializeToString())
        except packing.PackingError as fault:
            raise InvalidRequest(f"orders.{fault.field}", fault.why, fault.row) from fault
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

    async def Kill(self, request: Any, context: Any) -> wire.KillResponse:
        """Not yet."""
        raise NotSupported("Kill")

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
