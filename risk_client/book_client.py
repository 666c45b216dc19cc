"""The desk's client of book_service: orders in, depth out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import grpc

from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import BookServiceStub
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from risk_client.connection import Token, bearer, open_channel
from risk_client.failed_calls import from_rpc

DEADLINE_S = 5.0  # of a call, unless the client is given another
COMMAND_S = 20.0  # at least, of a command: every partition must answer, one that is being taken over too
WATCH_S = 3_600.0

Answer = TypeVar("Answer")


class BookClient:
    """A connection to book_service. Safe to share between threads; close it, or use it in a `with`."""

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        token: Token | None = None,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._channel: grpc.Channel = open_channel(grpc, target, credentials, token)
        self._stub = BookServiceStub(self._channel)
        self._token = token
        self._deadline_s = deadline_s

    def submit_orders(self, orders: OrderBatch) -> list[Origin]:
        """Appends orders to the log; where each partition's part is."""
        answer = self._call(self._stub.SubmitOrders, wire.SubmitOrdersRequest(orders=orders))
        return list(answer.logged)

    def get_book(self, symbol: str, levels: int = 0) -> wire.Book:
        """Depth of an instrument now, best first."""
        book: wire.Book = self._call(self._stub.GetBook, wire.GetBookRequest(symbol=symbol, levels=levels))
        return book

    def watch_book(
        self, symbol: str, levels: int = 0, min_interval_s: float = 0.1, deadline_s: float = WATCH_S
    ) -> Iterator[wire.Book]:
        """Depth now, then whenever it has changed, for at most so long; it ends with an error."""
        request = wire.WatchBookRequest(
            symbol=symbol, levels=levels, min_interval_ms=max(1, round(min_interval_s * 1e3))
        )
        books = self._stub.WatchBook(request, timeout=deadline_s, metadata=bearer(self._token))
        try:
            yield from books
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        finally:
            books.cancel()

    def kill(self, accounts: Iterable[int] = (), reason: str = "") -> wire.KillResponse:
        """Cancels every order and refuses new ones, of these accounts or all, on every partition."""
        request = wire.KillRequest(reason=reason, accounts=accounts)
        answer: wire.KillResponse = self._call(self._stub.Kill, request, COMMAND_S)
        return answer

    def set_limits(self, request: wire.SetLimitsRequest) -> wire.SetLimitsResponse:
        """Splits limits over the partitions; without limits tells those in force."""
        answer: wire.SetLimitsResponse = self._call(self._stub.SetLimits, request, COMMAND_S)
        return answer

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> BookClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Answer], request: Any, at_least_s: float = 0.0) -> Answer:
        try:
            return method(request, timeout=max(self._deadline_s, at_least_s), metadata=bearer(self._token))
        except grpc.RpcError as error:
            raise from_rpc(error) from None
