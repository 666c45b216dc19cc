"""Orders through the client to real venues: where they are logged, what trades, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from served import serving

from book_service.api.access import Access
from book_service.venue import warm_up
from protos import packing, topics
from protos.market.v1.market_pb2 import SIDE_BUY, SIDE_SELL
from protos.orders.v1 import orders_pb2 as orders
from risk_client import BookClient, InvalidRequest, PermissionDenied, Unavailable
from service_kit.grpc_server import GrpcSettings
from service_kit.kafka.partitioning import partition_of
from tests.book_service.test_book_api import PARTITIONS, Market

# A buyer's two orders, a seller who takes the better and half of the worse, and one on another partition.
ORDERS = {
    "action": [orders.ACTION_NEW],
    "symbol_index": [0, 0, 0, 1],
    "order_id": [1, 2, 3, 9],
    "account": [7, 7, 8, 7],
    "side": [SIDE_BUY, SIDE_BUY, SIDE_SELL, SIDE_BUY],
    "price_ticks": [100, 99, 99, 20],
    "quantity": [10, 20, 20, 5],
}
SYMBOLS = ("AAA", "CCC")


def batch(**changed: Any) -> orders.OrderBatch:
    message = orders.OrderBatch(symbols=SYMBOLS)
    for name, values in (ORDERS | changed).items():
        packing.write(message, name, np.array(values))
    return message


@contextmanager
def connected(**access: Any) -> Iterator[tuple[Market, BookClient]]:
    warm_up()
    market = Market()
    with (
        serving(lambda: market.server(GrpcSettings(port=0), **access)) as server,
        BookClient(f"127.0.0.1:{server.port}") as client,
    ):
        yield market, client
    market.executor.shutdown()


def test_orders_are_logged_where_they_are_said_to_be_and_trade_there() -> None:
    with connected() as (market, client):
        logged = client.submit_orders(batch())
        homes = {symbol: partition_of(symbol, PARTITIONS) for symbol in SYMBOLS}
        assert homes["AAA"] != homes["CCC"]
        assert {(one.topic, one.partition, one.offset) for one in logged} == {
            (topics.ORDERS_INCOMING, home, 0) for home in homes.values()
        }
        for symbol, ids in (("AAA", [1, 2, 3]), ("CCC", [9])):
            kept = market.log[homes[symbol]][0]
            assert (list(kept.symbols), list(kept.order_id)) == ([symbol], ids)
            assert kept.client == "anonymous"
        # The seller gets the maker's prices: 10 at 100, then 10 of the 20 at 99.
        made = market.made[homes["AAA"]]
        trades = [row for row, kind in enumerate(made.kind) if kind == orders.REPORT_KIND_TRADE]
        assert [(made.price_ticks[row], made.quantity[row], made.maker_id[row]) for row in trades] == [
            (100, 10, 1),
            (99, 10, 2),
        ]
        book = client.get_book("AAA")
        assert (list(book.bid_price_ticks), list(book.bid_quantity)) == ([99], [10])
        assert not book.ask_price_ticks
        assert list(client.get_book("CCC").bid_quantity) == [5]
        # The next batch of a partition comes behind the first.
        cancel = batch(action=[orders.ACTION_CANCEL], order_id=[2, 2, 2, 9])
        assert {one.offset for one in client.submit_orders(cancel)} == {1}
        assert not client.get_book("AAA").bid_quantity


@pytest.mark.parametrize(
    ("changed", "field", "row"),
    [
        ({"symbol_index": [0, 0, 0, 2]}, "orders.symbol_index", 3),
        ({"flags": [0, 0, 70_000, 0]}, "orders.flags", 2),
        ({"quantity": [1, 2]}, "orders.quantity", None),
    ],
)
def test_a_bad_order_is_told_by_field_and_row_and_none_is_logged(
    changed: dict[str, Any], field: str, row: int | None
) -> None:
    with connected() as (market, client):
        with pytest.raises(InvalidRequest) as refused:
            client.submit_orders(batch(**changed))
        assert [(one.column, one.row) for one in refused.value.violations] == [(field, row)]
        assert not any(market.log.values())


def test_orders_for_an_account_of_somebody_else_are_refused() -> None:
    with connected(access=Access.of(["boss"], ["anonymous=7"])) as (market, client):
        with pytest.raises(PermissionDenied, match="8"):
            client.submit_orders(batch())
        assert not any(market.log.values())
        assert len(client.submit_orders(batch(account=[7]))) == 2


def test_a_service_that_is_not_there_is_unavailable() -> None:
    with BookClient("127.0.0.1:1", deadline_s=0.5) as client, pytest.raises(Unavailable):
        client.submit_orders(batch())
