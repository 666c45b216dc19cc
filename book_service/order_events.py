"""What a record of orders.incoming says, as the matching core takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from book_service.matching import ORDER_DTYPE
from protos import packing
from protos.orders.v1.orders_pb2 import OrderBatch
from service_kit.kafka.records import Record

SYMBOL_CHARACTERS_MAX = 256  # a report names its symbol, and must fit into a record
AHEAD_MS_MAX = 60_000  # a sender's clock may be ahead of the log's

# Column of the message by field of ORDER_DTYPE.
COLUMNS = {
    "action": "action",
    "order_id": "order_id",
    "account": "account",
    "side": "side",
    "kind": "kind",
    "tif": "time_in_force",
    "flags": "flags",
    "price": "price_ticks",
    "stop_price": "stop_price_ticks",
    "quantity": "quantity",
    "time": "time_ns",
    "expire_time": "expire_time_ns",
    "stp": "self_trade_prevention",
}


@dataclass(frozen=True, slots=True)
class OrderEvents:
    """One batch of orders; `rows.symbol` is a place in `symbols`, not yet one of the venue's."""

    symbols: tuple[str, ...]
    rows: NDArray[np.void]


def decode(value: bytes) -> OrderEvents:
    """Reads a record's value; a value that is no batch raises ValueError naming the column."""
    batch = OrderBatch.FromString(value)
    if len(set(batch.symbols)) != len(batch.symbols):
        raise packing.PackingError("symbols", "names a symbol twice")
    longest = max(batch.symbols, key=len, default="")
    if len(longest) > SYMBOL_CHARACTERS_MAX:
        raise packing.PackingError(
            "symbols",
            f"{longest[:40]}... has {len(longest)} characters, {SYMBOL_CHARACTERS_MAX} are the most",
        )
    count = packing.row_count(batch, ("symbol_index", *COLUMNS.values()))
    if count == 0:
        raise packing.PackingError("action", "the batch has no orders")
    rows = np.zeros(count, ORDER_DTYPE)
    rows["symbol"] = packing.names(batch, "symbols", "symbol_index", count)
    for name, column in COLUMNS.items():
        rows[name] = _fitting(packing.column(batch, column, count), rows.dtype[name], column)
    return OrderEvents(tuple(batch.symbols), rows)


def expect_present(events: OrderEvents, record: Record) -> None:
    """Refuses a record with times long after it was written, by the log's own clock.

    The venue's clock is the latest time of any message: one from the future would hold the rates, pauses and
    expiries of all accounts for ever.
    """
    latest = (record.timestamp_ms + AHEAD_MS_MAX) * 1_000_000
    times = events.rows["time"]
    if record.timestamp_ms > 0 and times.max() > latest:
        row = int(np.argmax(times > latest))
        raise packing.PackingError("time_ns", f"{times[row]} is in the future of its record", row)


def _fitting(values: NDArray[Any], dtype: np.dtype[Any], column: str) -> NDArray[Any]:
    """Refuses what the core's narrower column would cut: a cut value would be another order."""
    limits = np.iinfo(dtype)
    outside = np.flatnonzero((values < limits.min) | (values > limits.max))
    if outside.size:
        row = int(outside[0])
        raise packing.PackingError(column, f"{values[row]} does not fit {dtype}", row)
    return values
