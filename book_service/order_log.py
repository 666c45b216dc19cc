"""Orders from a call onto orders.incoming: one record per partition, answered when the brokers have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from book_service.order_events import COLUMNS
from protos import packing, topics
from protos.market.v1.market_pb2 import Origin
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.errors import Unavailable
from service_kit.kafka.appender import Appender
from service_kit.kafka.errors import DeliveryFailed
from service_kit.kafka.partitioning import partition_of


def by_partition(orders: OrderBatch, partitions: int) -> list[OrderBatch]:
    """The batch cut by the partition of each order's symbol, orders in their order."""
    rows = packing.row_count(orders, ("symbol_index", *COLUMNS.values()))
    index = packing.names(orders, "symbols", "symbol_index", rows)
    homes = np.array([partition_of(symbol, partitions) for symbol in orders.symbols])[index]
    return [_rows(orders, np.flatnonzero(homes == home), rows) for home in np.unique(homes)]


def _rows(orders: OrderBatch, chosen: np.ndarray[tuple[int], np.dtype[np.intp]], rows: int) -> OrderBatch:
    present, index = np.unique(packing.column(orders, "symbol_index", rows)[chosen], return_inverse=True)
    part = OrderBatch(symbols=[orders.symbols[place] for place in present], client=orders.client)
    packing.write(part, "symbol_index", index)
    for column in COLUMNS.values():
        values = packing.column(orders, column, rows)[chosen]
        if column == "action" or values.any():
            packing.write(part, column, values)
    return part


@dataclass(frozen=True, slots=True)
class KafkaOrderLog:
    """The log as calls see it."""

    appender: Appender
    partitions: int

    def append(self, orders: OrderBatch) -> list[Origin]:
        """Logs the batch; a part that could not be logged is reported, with those that were."""
        logged: list[Origin] = []
        for part in by_partition(orders, self.partitions):
            self._append(part, logged)
        return logged

    def _append(self, orders: OrderBatch, logged: list[Origin]) -> None:
        try:
            place, offset = self.appender.append(
                topics.ORDERS_INCOMING, orders.symbols[0], orders.SerializeToString()
            )
        except DeliveryFailed as fault:
            before = ", ".join(f"partition {one.partition} offset {one.offset}" for one in logged)
            raise Unavailable(f"{fault}; logged before it: {before or 'nothing'}") from fault
        logged.append(Origin(topic=topics.ORDERS_INCOMING, partition=place, offset=offset))
