"""Orders as OrderBatch messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protos import packing
from protos.orders.v1.orders_pb2 import OrderBatch

_COLUMNS = {
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


def order_batch(orders: NDArray[np.void], symbols: Sequence[str], client: str) -> OrderBatch:
    """The rows of an ORDER_DTYPE array as one message; `symbols` names those of their `symbol` column."""
    present, index = np.unique(orders["symbol"], return_inverse=True)
    batch = OrderBatch(symbols=[symbols[place] for place in present], client=client)
    packing.write(batch, "symbol_index", index.astype(np.uint32))
    for column, field in _COLUMNS.items():
        if orders[column].any():
            packing.write(batch, field, np.ascontiguousarray(orders[column]))
    return batch
