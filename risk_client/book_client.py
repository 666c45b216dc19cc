"""The desk's client of book_service: orders in, depth out."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import grpc

from protos.book.v1 import book_pb2 as wire
from protos.book.v1.book_pb2_grpc import BookServiceStub
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from risk_client.connection import Token, bearer, open_channel
from risk_client.errors import from_rpc

DEADLINE_S = 5.0  # of a call, unless the client is given another

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

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def __enter__(self) -> BookClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Answer], request: Any) -> Answer:
        try:
            return method(request, timeout=self._deadline_s, metadata=bearer(self._token))
        except grpc.RpcError as error:
            raise from_rpc(error) from None
